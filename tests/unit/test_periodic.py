"""Periodic jobs run until cancelled, whether they succeed or fail."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from harness.waiting import eventually
from image_service.errors import DatabaseUnavailable
from image_service.worker.periodic import every


class Pauses(list[float]):
    """Notes the seconds between runs instead of waiting."""

    async def sleep(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@asynccontextmanager
async def running(job: Callable[[], Awaitable[object]], pauses: Pauses) -> AsyncIterator[list[EventDict]]:
    """Run the job, and yield the log lines."""
    with capture_logs() as logs:
        task = asyncio.create_task(every(60, job, "the job", sleep=pauses.sleep))
        yield logs
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


async def test_job_runs_at_once_and_then_repeatedly(pauses: Pauses) -> None:
    runs: list[int] = []

    async def job() -> None:
        runs.append(len(pauses))

    async with running(job, pauses) as logs:
        await eventually(lambda: len(runs) >= 50)
    assert runs[:3] == [0, 1, 2]
    assert logs == []


async def test_interval_has_a_jitter_of_a_tenth(pauses: Pauses) -> None:
    async def job() -> None:
        pass

    async with running(job, pauses):
        await eventually(lambda: len(pauses) >= 100)
    assert all(54 <= pause <= 66 for pause in pauses)
    assert max(pauses) - min(pauses) > 6


@pytest.mark.parametrize(
    ("error", "event", "level"),
    [
        (DatabaseUnavailable("No database."), "periodic job skipped: outage", "warning"),
        (RuntimeError("a defect"), "periodic job failed", "error"),
    ],
)
async def test_failed_job_is_logged_and_runs_again(error: Exception, event: str, level: str, pauses: Pauses) -> None:
    runs: list[int] = []

    async def job() -> None:
        runs.append(1)
        if len(runs) <= 2:
            raise error

    async with running(job, pauses) as logs:
        await eventually(lambda: len(runs) >= 5)
    assert [(line["event"], line["log_level"], line["job"]) for line in logs] == [(event, level, "the job")] * 2
    assert [bool(line.get("exc_info")) for line in logs] == [level == "error"] * 2


async def test_running_job_is_cancelled(pauses: Pauses) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def job() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with running(job, pauses) as logs:
        await started.wait()
    assert cancelled.is_set()
    assert logs == []
