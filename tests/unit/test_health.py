"""The health check: what it probes, and the condition that follows."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import product
from typing import cast

import pytest
from structlog.testing import capture_logs

from image_service.database import Database
from image_service.domain.lane import Lane
from image_service.errors import DatabaseUnavailable, QueueUnavailable, StorageUnavailable
from image_service.ports import Storage, TaskQueue
from image_service.services.health import PROBE_TIMEOUT, REUSED_FOR, Condition, Health, HealthCheck

PARTS = ("database", "queue", "storage")
OUTAGES = {"database": DatabaseUnavailable, "queue": QueueUnavailable, "storage": StorageUnavailable}

WAITING = {Lane.NORMAL: 3, Lane.EXPRESS: 2, Lane.BACKFILL: 1}

Probe = Callable[[], Awaitable[Mapping[Lane, int] | None]]


class Part:
    """A dependency; a queue is probed with ``depth``."""

    def __init__(self, probe: Probe) -> None:
        self.probe = self.depth = probe


async def answer() -> Mapping[Lane, int]:
    return WAITING


async def hang() -> None:
    await asyncio.Event().wait()


def failing(part: str) -> Probe:
    async def fail() -> None:
        raise OUTAGES[part]("It is unavailable.")

    return fail


def check(probe_timeout: float = PROBE_TIMEOUT, reused_for: float = 0, /, **probes: Probe) -> HealthCheck:
    parts = {part: Part(probes.get(part, answer)) for part in PARTS}
    return HealthCheck(
        database=cast("Database", parts["database"]),
        queue=cast("TaskQueue", parts["queue"]),
        storage=cast("Storage", parts["storage"]),
        probe_timeout=probe_timeout,
        reused_for=reused_for,
    )


@pytest.mark.parametrize(("database", "queue", "storage"), list(product([True, False], repeat=3)))
def test_without_database_or_storage_it_is_unhealthy_and_without_the_queue_degraded(
    *, database: bool, queue: bool, storage: bool
) -> None:
    condition = Health(database=database, queue=queue, storage=storage).condition
    if database and storage:
        assert condition is (Condition.HEALTHY if queue else Condition.DEGRADED)
    else:
        assert condition is Condition.UNHEALTHY


async def test_when_all_dependencies_answer_it_is_healthy() -> None:
    with capture_logs() as logs:
        assert await check().run() == Health(database=True, queue=True, storage=True, waiting=WAITING)
    assert logs == []


@pytest.mark.parametrize("part", PARTS)
async def test_an_unavailable_dependency_is_reported_and_logged(part: str) -> None:
    with capture_logs() as logs:
        found = await check(**{part: failing(part)}).run()
    assert {each: getattr(found, each) for each in PARTS} == {each: each != part for each in PARTS}
    assert found.waiting == (None if part == "queue" else WAITING)
    assert [(line["part"], line["reason"]) for line in logs] == [(part, "It is unavailable.")]


@pytest.mark.parametrize("part", PARTS)
async def test_an_unexpected_error_counts_as_unavailable_and_is_logged_with_its_traceback(part: str) -> None:
    async def fail() -> None:
        raise RuntimeError

    with capture_logs() as logs:
        found = await check(**{part: fail}).run()
    assert {each: getattr(found, each) for each in PARTS} == {each: each != part for each in PARTS}
    assert [(line["part"], line["log_level"], line["exc_info"]) for line in logs] == [(part, "error", True)]


@pytest.mark.parametrize("part", PARTS)
async def test_a_dependency_that_hangs_counts_as_unavailable(part: str) -> None:
    with capture_logs() as logs:
        async with asyncio.timeout(2):
            found = await check(0.05, **{part: hang}).run()
    assert {each: getattr(found, each) for each in PARTS} == {each: each != part for each in PARTS}
    assert found.waiting == (None if part == "queue" else WAITING)
    assert [(line["part"], line["reason"]) for line in logs] == [(part, "no answer in time")]


def test_probes_time_out_after_two_seconds() -> None:
    assert PROBE_TIMEOUT == 2


async def test_dependencies_are_probed_concurrently() -> None:
    all_are_probed = asyncio.Barrier(3)

    async def meet() -> None:
        await all_are_probed.wait()

    assert (await check(database=meet, queue=meet, storage=meet).run()).condition is Condition.HEALTHY


class Changing:
    """A queue that is available at every other probe."""

    def __init__(self) -> None:
        self.probes = 0

    async def probe(self) -> None:
        self.probes += 1
        await asyncio.sleep(0)
        if self.probes % 2 == 0:
            raise QueueUnavailable


async def test_a_result_is_reused_while_it_is_fresh() -> None:
    queue = Changing()
    checking = check(PROBE_TIMEOUT, 60, queue=queue.probe)
    assert {(await checking.run()).condition for _ in range(3)} == {Condition.HEALTHY}
    assert queue.probes == 1


async def test_a_result_is_not_reused_once_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    queue = Changing()
    checking = check(PROBE_TIMEOUT, 1, queue=queue.probe)
    assert (await checking.run()).condition is Condition.HEALTHY
    now = 1000.99
    assert (await checking.run()).condition is Condition.HEALTHY
    now = 1001.0
    assert (await checking.run()).condition is Condition.DEGRADED
    assert queue.probes == 2


def test_a_result_is_reused_for_one_second() -> None:
    assert REUSED_FOR == 1


async def test_a_hundred_concurrent_checks_share_one_probe() -> None:
    queue = Changing()
    checking = check(PROBE_TIMEOUT, 60, queue=queue.probe)
    assert {each.condition for each in await asyncio.gather(*(checking.run() for _ in range(100)))} == {
        Condition.HEALTHY
    }
    assert queue.probes == 1


async def test_a_cancelled_check_leaves_the_probe_to_the_next() -> None:
    begun, release = asyncio.Event(), asyncio.Event()
    probes = 0

    async def probe() -> None:
        nonlocal probes
        probes += 1
        begun.set()
        await release.wait()

    checking = check(60, 60, queue=probe)
    first, second = [asyncio.create_task(checking.run()) for _ in range(2)]
    await begun.wait()
    first.cancel()
    await asyncio.wait({first})
    release.set()
    assert (await second).condition is Condition.HEALTHY
    assert (first.cancelled(), probes) == (True, 2)


async def test_a_cancelled_check_leaves_no_probe_running() -> None:
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await check(database=hang, queue=hang, storage=hang).run()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
