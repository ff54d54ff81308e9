"""The signal that events have been recorded, within one process."""

from collections.abc import Callable


class LocalSignal:
    """``ports.EventSignal`` for the only process of the service."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def notify(self) -> None:
        """Call the listeners."""
        for listener in tuple(self._listeners):
            listener()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Add a listener; returns what removes it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def close(self) -> None:
        """Nothing is to be closed."""
