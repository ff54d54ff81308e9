"""What the queues share in running handlers: the delay of a requeue, idle tasks, and cancelling tasks."""

import asyncio
import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

_MAX_REQUEUE_DELAY: Final = 10.0
_MAX_HOLD: Final = 900.0
"""Below the time in which RabbitMQ closes the channel of a consumer that does not acknowledge: half an hour."""
_MAX_DOUBLINGS: Final = 11


def requeue_delay(first: float, tries: int) -> float:
    """Returns seconds, with jitter, to hold a delivery whose handler raised.

    Args:
        first: The delay after the first try; doubled with each further try, up to ten seconds.
        tries: Earlier tries.
    """
    longest = min(_MAX_REQUEUE_DELAY, first * 2 ** min(tries, _MAX_DOUBLINGS))
    return random.uniform(longest / 2, longest)  # noqa: S311 - jitter, not cryptography


def outage_hold(first: float, tries: int) -> float:
    """Returns seconds, with jitter, for which a worker keeps a delivery in an outage before others may have it.

    Short at first, since the outage may be this worker's alone. But each time a delivery is returned counts towards the
    broker's delivery limit, and twenty times must not be used up while the outage lasts: they take two hours.

    Args:
        first: The time of the first delivery; doubled with each further one, up to fifteen minutes.
        tries: Earlier deliveries.
    """
    longest = min(_MAX_HOLD, first * 2 ** min(tries, _MAX_DOUBLINGS))
    return random.uniform(longest / 2, longest)  # noqa: S311 - jitter, not cryptography


class IdleTasks:
    """Tasks that run no handler at the moment: cancelling them loses nothing."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Count the current task as idle for the duration of the block."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    def cancel(self) -> None:
        """Cancel the idle tasks."""
        for task in self._tasks:
            task.cancel()


async def cancel_all(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
