"""Waiting for conditions, with limits that scale with the speed of the machine (see ``pace``)."""

# ruff: noqa: ASYNC109  (time limits that are checked between tries: no try is cancelled)

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

import pytest

from harness.pace import Deadline

Result = TypeVar("Result")
_CHECK_INTERVAL = 0.5
"""Seconds between two checks of the limit in ``wait_for``."""


@overload
async def eventually(
    condition: Callable[[], Awaitable[Result]], timeout: float = ..., interval: float = ...
) -> Result: ...


@overload
async def eventually(condition: Callable[[], Result], timeout: float = ..., interval: float = ...) -> Result: ...


async def eventually(
    condition: Callable[[], Result | Awaitable[Result]], timeout: float = 10.0, interval: float = 0.02
) -> Result:
    """Call the condition until its result is true, and return it; fail the test when the time limit is over."""
    deadline = Deadline(timeout)
    while True:
        answer = condition()
        result = await answer if inspect.isawaitable(answer) else answer
        if result:
            return result
        if deadline.passed:
            pytest.fail(
                f"not true within {deadline.elapsed:.0f} s (limit {timeout:g} s on an idle machine): "
                f"{_describe(condition)}\nits last result was {result!r}"
            )
        await asyncio.sleep(interval)


async def wait_for(work: Awaitable[Result], timeout: float = 10.0) -> Result:
    """Return the result of the work; cancel it and fail the test when the time limit is over."""
    task = asyncio.ensure_future(work)
    deadline = Deadline(timeout)
    try:
        while not task.done():
            if deadline.passed:
                pytest.fail(f"not finished within {deadline.elapsed:.0f} s (limit {timeout:g} s on an idle machine)")
            await asyncio.wait({task}, timeout=min(_CHECK_INTERVAL, timeout))
        return task.result()
    finally:
        task.cancel()


def _describe(condition: Callable[[], object]) -> str:
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):
        return repr(condition)
