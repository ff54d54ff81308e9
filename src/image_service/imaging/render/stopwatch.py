"""Measures the time that each step takes."""

from time import perf_counter

from image_service.imaging.render.steps import Step, label


class Stopwatch:
    """Starts when it is created; every lap is the time since the one before."""

    def __init__(self) -> None:
        self._began = self._lapped = perf_counter()
        self._laps: list[tuple[str, float]] = []

    def lap(self, step: Step, output: str | None = None) -> None:
        """Record the time since the last lap as that of a step."""
        now = perf_counter()
        self._laps.append((label(step, output), now - self._lapped))
        self._lapped = now

    @property
    def laps(self) -> tuple[tuple[str, float], ...]:
        """Labels and seconds, in their order."""
        return tuple(self._laps)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self._began
