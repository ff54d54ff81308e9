"""The feed and the log of events on both databases: nothing is missing, nothing comes twice, the order is kept."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from harness.fakes import LONG_TIMEOUT
from harness.proxy import Mode, Proxy
from harness.rows import add, done, execute, in_transaction, recorded, remove, upload
from harness.waiting import eventually, wait_for
from image_service.database import Database
from image_service.database.clock import in_seconds
from image_service.domain.event import ENDS, START, Event, EventType, event_id
from image_service.domain.lane import Lane
from image_service.errors import DatabaseUnavailable
from image_service.models import EventRow
from image_service.observability.metrics import Metrics
from image_service.queue.signal import LocalSignal
from image_service.services.event_feed import EventFeed, Subscription, SubscriptionOverflow
from image_service.services.event_log import EventLog

POLL = 0.05


def feed_of(database: Database, signal: LocalSignal | None = None, poll: float = POLL) -> EventFeed:
    return EventFeed(database=database, signal=signal or LocalSignal(), poll=poll)


async def taken(subscription: Subscription, number: int) -> list[Event]:
    """The next events of a subscription."""

    async def take() -> list[Event]:
        return [event for _ in range(number) if (event := await subscription.next(None)) is not None]

    return await wait_for(take())


async def settled(log: EventLog, number: int) -> Sequence[Event]:
    """All events, once they are settled: transactions of other databases can delay that."""

    async def find() -> Sequence[Event]:
        page = await log.page(START, limit=100)
        return page if len(page) == number else ()

    return await eventually(find)


def types_of(events: Sequence[Event]) -> list[tuple[EventType, UUID | None]]:
    return [(event.type, event.image_id) for event in events]


async def test_subscribers_get_the_events_of_their_choice_from_then_on(database: Database) -> None:
    await done(database)
    await settled(EventLog(database=database), 2)
    feed = feed_of(database)
    async with AsyncExitStack() as stack:
        every = await stack.enter_async_context(feed.subscribe())
        first, second = upload(), upload()
        one = await stack.enter_async_context(feed.subscribe(image_id=second.id))
        ends = await stack.enter_async_context(feed.subscribe(types=ENDS))
        for each in (first, second):
            await add(database, each)
            await remove(database, each.id)
        both = [(kind, each.id) for each in (first, second) for kind in (EventType.ACCEPTED, EventType.DELETED)]
        assert types_of(await taken(every, 4)) == both
        assert types_of(await taken(one, 2)) == both[2:]
        assert types_of(await taken(ends, 2)) == [both[1], both[3]]
        assert await every.next(0) is None
    await feed.close()


async def test_log_and_subscription_together_have_every_event_once(database: Database) -> None:
    """While images are added, one subscriber after the other begins with the log and goes on with the feed."""
    feed, log = feed_of(database), EventLog(database=database)
    total = 60

    async def record(number: int) -> None:
        for _ in range(number):
            await recorded(database)

    async def follow() -> list[str]:
        async with feed.subscribe() as subscription:
            found: list[Event] = []
            after = START
            while page := await log.page(after, limit=7, until=subscription.position):
                found += page
                after = page[-1].position
            found += await taken(subscription, total - len(found))
            return [event.id for event in found]

    async def followers() -> list[list[str]]:
        tasks = []
        for _ in range(8):
            tasks.append(asyncio.create_task(follow()))
            await asyncio.sleep(0.01)
        return await asyncio.gather(*tasks)

    *_, found = await asyncio.gather(*(record(total // 4) for _ in range(4)), followers())
    expected = [event.id for event in await log.page(START, limit=1000)]
    assert len(set(expected)) == total
    assert found == [expected] * 8
    await feed.close()


async def test_event_of_a_slow_transaction_is_waited_for(postgresql: Database) -> None:
    slow, fast = upload(), upload()
    feed = feed_of(postgresql)
    async with feed.subscribe() as subscription:
        async with postgresql.transaction() as repositories:
            await repositories.images.add(slow, lane=Lane.NORMAL, due_in=60)
            await add(postgresql, fast)
            assert await subscription.next(4 * POLL) is None
        assert [event.image_id for event in await taken(subscription, 2)] == [slow.id, fast.id]
    await feed.close()


async def test_signal_makes_it_read_at_once(database: Database) -> None:
    signal = LocalSignal()
    feed = feed_of(database, signal, poll=3600)
    async with feed.subscribe() as subscription:
        image_id = await recorded(database)
        signal.notify()
        assert [event.image_id for event in await taken(subscription, 1)] == [image_id]
    await feed.close()


async def test_subscriber_that_is_too_slow_loses_its_events_and_delays_no_other(database: Database) -> None:
    feed = feed_of(database)
    async with feed.subscribe(buffer=2) as slow, feed.subscribe() as other:
        for _ in range(3):
            await recorded(database)
        assert len(await taken(other, 3)) == 3
        assert slow.overflowed
        with pytest.raises(SubscriptionOverflow):
            await slow.next(0)
    await feed.close()


async def test_it_reads_only_while_there_are_subscribers(database: Database) -> None:
    metrics = Metrics()
    feed = EventFeed(database=database, signal=LocalSignal(), observer=metrics, poll=POLL)

    def read() -> float:
        return metrics.registry.get_sample_value("image_service_events_read_total") or 0

    async with feed.subscribe() as subscription:
        await recorded(database)
        await taken(subscription, 1)
        assert read() == 1
        assert metrics.registry.get_sample_value("image_service_event_lag_seconds_count") == 1
    await eventually(lambda: feed._reader is None)
    await recorded(database)
    await settled(EventLog(database=database), 2)
    async with feed.subscribe() as subscription:
        image_id = await recorded(database)
        assert [event.image_id for event in await taken(subscription, 1)] == [image_id]
    assert read() == 2
    await feed.close()


async def test_outage_delays_events_and_loses_none(postgresql: Database, postgres_database_url: str) -> None:
    async with Proxy.before(postgres_database_url) as proxy:
        database = Database(proxy.url(postgres_database_url), time_limit=LONG_TIMEOUT)
        signal = LocalSignal()
        feed = feed_of(database, signal)
        with capture_logs() as logs:
            async with feed.subscribe() as subscription:
                first = await recorded(postgresql)
                assert [event.image_id for event in await taken(subscription, 1)] == [first]
                proxy.switch(Mode.RESET)
                second = await recorded(postgresql)
                await eventually(lambda: any(line["event"] == "event feed interrupted" for line in logs))
                signal.notify()
                assert await subscription.next(4 * POLL) is None
                proxy.switch(Mode.PASS)
                third = await recorded(postgresql)
                assert [event.image_id for event in await taken(subscription, 2)] == [second, third]
        assert [line["event"] for line in logs if "feed" in line["event"]] == [
            "event feed interrupted",
            "event feed resumed",
        ]
        proxy.switch(Mode.RESET)
        await feed.close()
        with pytest.raises(DatabaseUnavailable):
            async with feed_of(database).subscribe():
                pass
        await database.close()


async def purge_all(database: Database) -> None:
    await execute(database, update(EventRow).values(happened_at=in_seconds(-3600)))

    async def purge() -> int:
        return await in_transaction(database, lambda r: r.events.purge(older_than=1800, kept_after=None, limit=100))

    assert await eventually(purge)


async def test_resuming_needs_an_event_after_which_none_is_missing(database: Database) -> None:
    log = EventLog(database=database)
    identity = await in_transaction(database, lambda r: r.catalogue.identity())
    assert await log.resume(None) == START
    assert await log.resume(event_id(identity, START)) == START
    await recorded(database)
    await recorded(database)

    first, second = await settled(log, 2)
    assert await log.resume(first.id) == first.position
    assert await log.resume(second.id) == second.position
    assert await log.resume(event_id(uuid4(), first.position)) is None
    for impossible in ((0, 0), (0, 2**63 - 1), (2**63 - 1, 1), (second.position.transaction, 2**63 - 1)):
        if impossible != START:
            assert await log.resume(event_id(identity, type(START)(*impossible))) is None
    for malformed in ("", "7", "evt_x", f"{first.id}0" * 9, f"evt_{identity.hex[-8:]}_{'9' * 19}_1"):
        assert await log.resume(malformed) is None
    await purge_all(database)
    assert await log.resume(first.id) is None
    assert await log.resume(second.id) == second.position
    assert await log.resume(None) == second.position
