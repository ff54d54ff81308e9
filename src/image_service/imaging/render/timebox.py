"""Runs work that may only take so much time."""

from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")


def run_within(work: Callable[[], Result], seconds: float) -> Result | None:
    """Return what the work returns; None where it fails or takes longer.

    Nothing stops a codec but the end of its process. Late work goes on in a thread that is not joined, so the process
    should be ended soon.
    """
    results: list[Result] = []

    def attempt() -> None:
        with suppress(Exception):
            results.append(work())

    if seconds > 0:
        thread = Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(seconds)
    return results[0] if results else None
