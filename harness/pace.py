"""Time limits that scale with the measured speed of the machine.

A test waits for a condition, not for a time. Its limit only ends a wait that would never end, so on a busy or slow
machine it grows with the time that a fixed amount of processor work takes there. Where time is what a test is about, it
measures what the process did, without the time in which other processes had the processor.
"""

import time
from contextlib import suppress
from pathlib import Path

_WORK = range(2_500_000)
_REFERENCE = 0.05
"""Seconds that adding up ``_WORK`` takes on an idle machine: longer than a time slice, so that others run, too."""
_VALID_FOR = 1.0
"""Seconds for which a measurement is reused."""

_measured: tuple[float, float] = (float("-inf"), 1.0)
"""When the machine was measured last, and how slow it was."""


def slowness() -> float:
    """Return how many times longer processor work takes now than on an idle reference machine; at least 1."""
    global _measured  # noqa: PLW0603  (one measurement for all limits of the process)
    if time.monotonic() - _measured[0] > _VALID_FOR:
        began = time.perf_counter()
        sum(_WORK)  # in C, which a tracer for coverage does not slow down
        taken = time.perf_counter() - began
        _measured = time.monotonic(), max(1.0, taken / _REFERENCE)
    return _measured[1]


class Deadline:
    """A time limit in seconds of an idle reference machine; nothing is measured before they have passed."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.monotonic()
        self._slowest = 1.0

    @property
    def elapsed(self) -> float:
        """Seconds since the deadline was set."""
        return time.monotonic() - self._began

    @property
    def passed(self) -> bool:
        """Whether the limit, multiplied by the slowness of the machine, is over."""
        if self.elapsed <= self._seconds * self._slowest:
            return False
        self._slowest = max(self._slowest, slowness())
        return self.elapsed > self._seconds * self._slowest


class Stopwatch:
    """Measures what this process did: elapsed time without the time that its threads waited for a processor."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._delayed = _run_delay()

    @property
    def seconds(self) -> float:
        """Seconds since the start, without the waiting time; on kernels that do not count it, all seconds."""
        return time.monotonic() - self._began - max(0.0, _run_delay() - self._delayed)


def _run_delay() -> float:
    """Return the seconds for which this process's threads have been runnable without running."""
    delays = 0
    for statistics in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):  # the thread has just ended
            delays += int(statistics.read_text().split()[1])
    return delays / 1e9
