"""Work that is worth only so much time."""

from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")


def in_time(work: Callable[[], Result], seconds: float) -> Result | None:
    """What the work returns; None where it fails or takes longer.

    Nothing stops a codec but the end of its process. Work that is late goes on in a thread that nobody waits for, so
    that whoever wants the processor back ends the process soon.
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
