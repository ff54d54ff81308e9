"""Backpressure: which uploads the backlog admits, and that a slow or missing database refuses none."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from harness.fakes import LONG_TIMEOUT
from harness.proxy import Mode, Proxy
from harness.service_harness import ServiceHarness
from harness.waiting import eventually, wait_for
from image_service.database import Database
from image_service.errors import BacklogFull, DatabaseUnavailable
from image_service.services.backlog import Backlog

COUNT_TIMEOUT = 0.3


def uncached(env: ServiceHarness, limit: int) -> Backlog:
    """Returns a backlog that counts for every upload, and waits for the count on a busy machine too."""
    return env.backlog(limit, refresh_interval=0.0, count_timeout=LONG_TIMEOUT)


def with_clock(env: ServiceHarness, limit: int, clock: "Clock") -> Backlog:
    """Returns a backlog that waits for a count on a busy machine too."""
    return env.backlog(limit, count_timeout=LONG_TIMEOUT, clock=clock)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return 1000.0 + self.seconds


async def admits(backlog: Backlog) -> bool:
    try:
        await backlog.admit()
    except BacklogFull:
        return False
    return True


async def test_uploads_are_admitted_below_the_limit_and_refused_at_it(env: ServiceHarness) -> None:
    service = uncached(env, limit=3)
    await env.done()
    await env.failed()
    for make in (ServiceHarness.new, ServiceHarness.queued, ServiceHarness.claimed):
        assert await admits(service)
        await make(env)
    assert not await admits(service)
    await env.new()
    assert not await admits(service)


async def test_uploads_are_admitted_again_when_an_image_is_done(env: ServiceHarness) -> None:
    service = uncached(env, limit=2)
    images = [await env.queued() for _ in range(2)]
    assert not await admits(service)
    await env.render(images[0])
    assert await admits(service)


async def test_reprocessed_images_count_too(env: ServiceHarness) -> None:
    image_id = await env.done()
    await env.reprocess(image_id)
    assert not await admits(uncached(env, limit=1))


async def test_it_counts_at_most_once_a_second(env: ServiceHarness) -> None:
    clock = Clock()
    service = with_clock(env, limit=1, clock=clock)
    for moment, counts in ((0.0, 1), (0.5, 1), (0.99, 1), (1.0, 2), (1.9, 2), (2.0, 3)):
        clock.seconds = moment
        assert await admits(service)
        assert env.script.tried["open_count"] == counts


async def test_a_full_backlog_refuses_for_a_second_without_counting(env: ServiceHarness) -> None:
    image_id = await env.queued()
    clock = Clock()
    service = with_clock(env, limit=1, clock=clock)
    assert not await admits(service)
    await env.render(image_id)
    clock.seconds = 0.9
    assert not await admits(service)
    assert env.script.tried["open_count"] == 1
    clock.seconds = 1.0
    assert await admits(service)


async def test_concurrent_uploads_share_one_count(env: ServiceHarness) -> None:
    service = env.backlog(limit=10)
    assert await asyncio.gather(*(admits(service) for _ in range(50))) == [True] * 50
    assert env.script.tried["open_count"] == 1


async def test_uploads_during_a_count_do_not_wait_for_it(sqlite_env: ServiceHarness) -> None:
    service = sqlite_env.backlog(limit=10)
    counted = asyncio.Event()
    sqlite_env.script.before("open_count", lambda *_: counted.wait())
    first = asyncio.create_task(admits(service))
    await eventually(lambda: sqlite_env.script.tried["open_count"])
    assert await wait_for(admits(service), 10)
    assert not first.done()
    counted.set()
    assert await first


async def test_without_the_database_uploads_are_admitted(env: ServiceHarness) -> None:
    for _ in range(2):
        await env.new()
    service = uncached(env, limit=1)
    env.script.fail("open_count", [DatabaseUnavailable("No database.")])
    with capture_logs() as logs:
        assert await admits(service)
    assert [(line["event"], line["reason"]) for line in logs] == [("backlog not counted", "No database.")]
    assert not await admits(service)


async def test_a_count_that_hangs_times_out(env: ServiceHarness) -> None:
    env.script.before("open_count", lambda *_: asyncio.Event().wait())
    service = env.backlog(limit=1, count_timeout=COUNT_TIMEOUT)
    began = asyncio.get_running_loop().time()
    with capture_logs() as logs:
        assert await wait_for(admits(service), 10)
    assert asyncio.get_running_loop().time() - began >= COUNT_TIMEOUT
    assert [(line["event"], line["reason"]) for line in logs] == [("backlog not counted", "no answer in time")]


@pytest.fixture
async def database(postgres_database_url: str) -> AsyncIterator[Database]:
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT)
    yield database
    await database.close()


async def test_a_count_of_a_locked_table_times_out(database: Database) -> None:
    service = Backlog(database=database, limit=1)
    async with database.transaction() as repositories:
        await repositories.connection.execute(text("LOCK TABLE images IN ACCESS EXCLUSIVE MODE"))
        with capture_logs() as logs:
            assert await wait_for(admits(service), 10)
    assert [line["reason"] for line in logs] == ["no answer in time"]
    await database.probe()


async def test_a_count_over_a_black_holed_connection_times_out(postgres_database_url: str) -> None:
    async with Proxy.before(postgres_database_url) as proxy:
        database = Database(proxy.url(postgres_database_url), time_limit=LONG_TIMEOUT)
        await database.probe()
        proxy.switch(Mode.BLACK_HOLE)
        began = asyncio.get_running_loop().time()
        with capture_logs() as logs:
            assert await wait_for(admits(Backlog(database=database, limit=1)), 20)
        assert [line["reason"] for line in logs] == ["no answer in time"]
        assert asyncio.get_running_loop().time() - began < 5
        proxy.switch(Mode.PASS)
        await database.close()
