"""What each step costs."""

from time import perf_counter
from typing import Final

STEPS: Final = frozenset(
    {
        "inspect",
        "metadata",
        "open",
        "check",
        "decode",
        "note",
        "normalise",
        "shrink",
        "convert_colour",
        "turn",
        "placeholder",
    }
)
"""What a rendering's laps are called."""
STEPS_OF_A_PRESET: Final = frozenset({"resize", "encode"})
"""The same for those that each preset has; the preset's name follows."""


class Stopwatch:
    """Runs from its making on; every lap is the time since the one before."""

    def __init__(self) -> None:
        self._began = self._lapped = perf_counter()
        self._laps: list[tuple[str, float]] = []

    def lap(self, name: str) -> None:
        """Name what was done since the last lap."""
        now = perf_counter()
        self._laps.append((name, now - self._lapped))
        self._lapped = now

    @property
    def laps(self) -> tuple[tuple[str, float], ...]:
        """Names and seconds."""
        return tuple(self._laps)

    @property
    def elapsed(self) -> float:
        """Seconds in all."""
        return perf_counter() - self._began
