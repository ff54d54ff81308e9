"""Passing events on: to other processes, and to other services."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

PUBLISH_LIMIT: Final = 5.0
"""Seconds that publishing events to the exchange may take."""


class EventSignal(Protocol):
    """Tells the processes of the service that events have been recorded.

    It is a hint without a guarantee: those who wait for events also look for them from time to time.
    """

    def notify(self) -> None:
        """Tell all processes, this one included, soon. Never blocks or raises; many calls may become one."""
        ...

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener``, which must not block, after each notification; returns what ends that."""
        ...


class NullSignal:
    """An ``EventSignal`` that does nothing: those who wait for events find them when they look for them."""

    def notify(self) -> None:
        """Do nothing."""

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002 — as the protocol has it
        """Do nothing; returns what does nothing."""
        return lambda: None


NULL_SIGNAL: Final[EventSignal] = NullSignal()


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedEvent:
    """An event as other services receive it."""

    id: str
    topic: str
    """Its type, such as ``image.done``, by which receivers choose."""
    subject: str
    """Whom it is about: events with the same one stay in order."""
    content_type: str
    body: bytes


class EventExchange(Protocol):
    """Publishes events to other services, which take those that they want."""

    async def start(self) -> None:
        """Begin connecting; returns at once."""
        ...

    async def close(self) -> None:
        """Disconnect, within a few seconds."""
        ...

    async def publish(self, events: Sequence[EncodedEvent]) -> None:
        """Publish events, those with the same subject in this order.

        When this returns, the broker has taken all of them. It begins no later than ``PUBLISH_LIMIT`` seconds from the
        call to send any of them, whatever happens.

        Raises:
            QueueUnavailable: the broker did not confirm all of them; some may be published. If one is missing, later
                ones with its subject are not published.
        """
        ...
