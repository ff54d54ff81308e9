"""Time limits for a broker that may never answer."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")

_abandoned: Final[set[asyncio.Task[Any]]] = set()


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Returns the result of ``work``, or raises ``TimeoutError`` after ``seconds`` at the latest.

    Unlike ``asyncio.timeout`` it does not wait for cancelled work to end: aiormq's clean-up writes to the connection,
    which takes long if the other end does not read.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=max(0.0, seconds))
    except asyncio.CancelledError:
        _abandon(task)
        raise
    if not done:
        _abandon(task)
        raise TimeoutError
    if task.cancelled():
        # aiormq cancels what waits on a lost connection. Here that must not look like our own cancellation.
        raise ConnectionError("the connection was lost")
    return task.result()


async def ignore_errors(work: Awaitable[object]) -> None:
    """Wait for work whose failure does not matter."""
    with suppress(Exception):
        await work


def now() -> float:
    """Returns the event loop's time in seconds."""
    return asyncio.get_running_loop().time()


def _abandon(task: asyncio.Future[Any]) -> None:
    task.cancel()
    if isinstance(task, asyncio.Task):
        _abandoned.add(task)
        task.add_done_callback(_forget)


def _forget(task: asyncio.Task[Any]) -> None:
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not report it
