"""Jobs that are done again and again, whatever becomes of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from harness.waiting import eventually
from image_service.errors import DatabaseUnavailable
from image_service.worker import periodic
from image_service.worker.periodic import every


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited between the runs, none of which takes any time."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(periodic, "asyncio", SimpleNamespace(sleep=sleep))
    return pauses


@asynccontextmanager
async def running(job: Callable[[], Awaitable[object]]) -> AsyncIterator[list[EventDict]]:
    """The job at work, and what the log says meanwhile."""
    with capture_logs() as logs:
        task = asyncio.create_task(every(60, job, "the job"))
        yield logs
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


async def test_a_job_is_done_at_once_and_then_again_and_again(pauses: list[float]) -> None:
    runs: list[int] = []

    async def job() -> None:
        runs.append(len(pauses))

    async with running(job) as logs:
        await eventually(lambda: len(runs) >= 50)
    assert runs[:3] == [0, 1, 2]
    assert logs == []


async def test_the_pauses_are_jittered_by_a_tenth(pauses: list[float]) -> None:
    async def job() -> None:
        pass

    async with running(job):
        await eventually(lambda: len(pauses) >= 100)
    assert all(54 <= pause <= 66 for pause in pauses)
    assert max(pauses) - min(pauses) > 6


@pytest.mark.parametrize(
    ("error", "event", "level"),
    [
        (DatabaseUnavailable("No database."), "put off by an outage", "warning"),
        (RuntimeError("a defect"), "failed; it is tried again", "error"),
    ],
)
@pytest.mark.usefixtures("pauses")
async def test_a_job_that_fails_is_tried_again(error: Exception, event: str, level: str) -> None:
    runs: list[int] = []

    async def job() -> None:
        runs.append(1)
        if len(runs) <= 2:
            raise error

    async with running(job) as logs:
        await eventually(lambda: len(runs) >= 5)
    assert [(line["event"], line["log_level"], line["job"]) for line in logs] == [(event, level, "the job")] * 2
    assert [bool(line.get("exc_info")) for line in logs] == [level == "error"] * 2


async def test_a_job_is_cancelled_in_the_middle_of_its_work() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def job() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with running(job) as logs:
        await started.wait()
    assert cancelled.is_set()
    assert logs == []
