"""Trying again while something the service depends on is away."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from image_service.errors import Outage

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0

T = TypeVar("T")


async def retry_on_outage(work: Callable[[], Awaitable[T]], *, budget: float) -> T:
    """The result of ``work``, which is called again after an ``Outage`` as long as ``budget`` lasts.

    Args:
        work: Safe to repeat: an outage may hide that it has succeeded.
        budget: Seconds after which no further try begins; none is cut short.

    Raises:
        Outage: the last one.
    """
    deadline = asyncio.get_running_loop().time() + budget
    pause = _FIRST_PAUSE
    while True:
        try:
            return await work()
        except Outage:
            wait = random.uniform(pause / 2, pause)  # noqa: S311 — jitter, not cryptography
            if asyncio.get_running_loop().time() + wait >= deadline:
                raise
        await asyncio.sleep(wait)
        pause = min(_LONGEST_PAUSE, pause * 2)
