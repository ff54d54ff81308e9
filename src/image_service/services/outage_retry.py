"""Retries work that an outage interrupted."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from image_service.errors import Outage

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0

T = TypeVar("T")


async def retry_on_outage(
    work: Callable[[], Awaitable[T]],
    *,
    budget: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> T:
    """Returns the result of ``work``, which is called again after each ``Outage`` while the budget lasts.

    Args:
        work: Must be safe to repeat: it may have succeeded although it raised an outage.
        budget: Seconds after which no further call begins; a running call is not interrupted.
        clock: Returns the time in seconds.
        sleep: Waits for a number of seconds.

    Raises:
        Outage: the last one.
    """
    deadline = clock() + budget
    pause = _FIRST_PAUSE
    while True:
        try:
            return await work()
        except Outage:
            wait = random.uniform(pause / 2, pause)  # noqa: S311 — jitter, not cryptography
            if clock() + wait >= deadline:
                raise
        await sleep(wait)
        pause = min(_LONGEST_PAUSE, pause * 2)
