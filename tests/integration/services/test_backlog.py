"""Saying no in time: what the backlog admits, and that it never stands in anybody's way."""

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
from image_service.services import backlog
from image_service.services.backlog import Backlog


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a count take as long as it does on a busy machine."""
    monkeypatch.setattr(backlog, "_COUNT_LIMIT", LONG_TIMEOUT)


@pytest.fixture
def counting_always(unhurried: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001  (for what it does)
    """Have every upload counted afresh."""
    monkeypatch.setattr(backlog, "_REFRESH", 0.0)


async def admits(backlog: Backlog) -> bool:
    try:
        await backlog.admit()
    except BacklogFull:
        return False
    return True


@pytest.mark.usefixtures("counting_always")
async def test_uploads_are_admitted_below_the_limit_and_refused_at_it(env: ServiceHarness) -> None:
    service = env.backlog(limit=3)
    await env.done()
    await env.failed()
    for make in (ServiceHarness.new, ServiceHarness.queued, ServiceHarness.claimed):
        assert await admits(service)
        await make(env)
    assert not await admits(service)
    await env.new()
    assert not await admits(service)


@pytest.mark.usefixtures("counting_always")
async def test_uploads_are_admitted_again_when_something_has_been_done(env: ServiceHarness) -> None:
    service = env.backlog(limit=2)
    images = [await env.queued() for _ in range(2)]
    assert not await admits(service)
    await env.render(images[0])
    assert await admits(service)


@pytest.mark.usefixtures("counting_always")
async def test_images_that_are_rendered_again_count_as_well(env: ServiceHarness) -> None:
    image_id = await env.done()
    await env.reprocess(image_id)
    assert not await admits(env.backlog(limit=1))


async def test_it_counts_at_most_once_a_second(env: ServiceHarness, clock: "Clock") -> None:
    service = env.backlog(limit=1)
    for moment, counts in ((0.0, 1), (0.5, 1), (0.99, 1), (1.0, 2), (1.9, 2), (2.0, 3)):
        clock.seconds = moment
        assert await admits(service)
        assert env.script.tried["open_count"] == counts


async def test_a_full_backlog_is_told_for_a_second_without_counting(env: ServiceHarness, clock: "Clock") -> None:
    image_id = await env.queued()
    service = env.backlog(limit=1)
    assert not await admits(service)
    await env.render(image_id)
    clock.seconds = 0.9
    assert not await admits(service)
    assert env.script.tried["open_count"] == 1
    clock.seconds = 1.0
    assert await admits(service)


class Clock:
    """The event loop's time, as the backlog sees it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self) -> float:
        return 1000.0 + self.seconds


@pytest.fixture
def clock(unhurried: None, monkeypatch: pytest.MonkeyPatch) -> Clock:  # noqa: ARG001  (for what it does)
    clock = Clock()

    class Asyncio:
        timeout = staticmethod(asyncio.timeout)
        get_running_loop = staticmethod(lambda: clock)

    monkeypatch.setattr(backlog, "asyncio", Asyncio)
    return clock


async def test_many_uploads_at_once_are_counted_once(env: ServiceHarness) -> None:
    service = env.backlog(limit=10)
    assert await asyncio.gather(*(admits(service) for _ in range(50))) == [True] * 50
    assert env.script.tried["open_count"] == 1


async def test_uploads_that_come_during_a_count_do_not_wait_for_it(sqlite_stage: ServiceHarness) -> None:
    service = sqlite_stage.backlog(limit=10)
    counted = asyncio.Event()
    sqlite_stage.script.before("open_count", lambda *_: counted.wait())
    first = asyncio.create_task(admits(service))
    await eventually(lambda: sqlite_stage.script.tried["open_count"])
    assert await wait_for(admits(service), 10)
    assert not first.done()
    counted.set()
    assert await first


@pytest.mark.usefixtures("counting_always")
async def test_while_the_database_is_away_it_stands_in_nobodys_way(env: ServiceHarness) -> None:
    for _ in range(2):
        await env.new()
    service = env.backlog(limit=1)
    env.script.fail("open_count", [DatabaseUnavailable("No database.")])
    with capture_logs() as logs:
        assert await admits(service)
    assert [(line["event"], line["reason"]) for line in logs] == [("backlog not counted", "No database.")]
    assert not await admits(service)


async def test_a_count_that_hangs_is_not_waited_for(env: ServiceHarness) -> None:
    env.script.before("open_count", lambda *_: asyncio.Event().wait())
    service = env.backlog(limit=1)
    began = asyncio.get_running_loop().time()
    with capture_logs() as logs:
        assert await wait_for(admits(service), 10)
    assert asyncio.get_running_loop().time() - began >= backlog._COUNT_LIMIT
    assert [(line["event"], line["reason"]) for line in logs] == [("backlog not counted", "no answer in time")]


@pytest.fixture
async def database(postgres_database_url: str) -> AsyncIterator[Database]:
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT)
    yield database
    await database.close()


async def test_a_locked_table_is_not_waited_for(database: Database) -> None:
    service = Backlog(database=database, limit=1)
    async with database.transaction() as repositories:
        await repositories.connection.execute(text("LOCK TABLE images IN ACCESS EXCLUSIVE MODE"))
        with capture_logs() as logs:
            assert await wait_for(admits(service), 10)
    assert [line["reason"] for line in logs] == ["no answer in time"]
    await database.probe()


async def test_a_database_behind_a_black_hole_is_not_waited_for(postgres_database_url: str) -> None:
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
