"""Waiting for something to become true, instead of sleeping and hoping."""

# ruff: noqa: ASYNC109  (a time limit that is looked at between tries: no try is cut short)

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

import pytest

Result = TypeVar("Result")


@overload
async def eventually(
    condition: Callable[[], Awaitable[Result]], timeout: float = ..., interval: float = ...
) -> Result: ...


@overload
async def eventually(condition: Callable[[], Result], timeout: float = ..., interval: float = ...) -> Result: ...


async def eventually(
    condition: Callable[[], Result | Awaitable[Result]], timeout: float = 10.0, interval: float = 0.02
) -> Result:
    """Call the condition until it gives something true, and return that; fail the test when time is up."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        result = await answer if inspect.isawaitable(answer) else answer
        if result:
            return result
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout:g} s in vain for: {_describe(condition)}\nits last answer was {result!r}")
        await asyncio.sleep(interval)


def _describe(condition: Callable[[], object]) -> str:
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):
        return repr(condition)
