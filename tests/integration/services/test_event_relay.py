"""The relay on both databases: what it publishes, in which order, and that one process at a time does."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from harness.counted import counted
from harness.fakes import LONG_TIMEOUT
from harness.rows import done, execute, failed, in_transaction, recorded
from harness.waiting import eventually
from image_service.database import Database
from image_service.database.clock import in_seconds
from image_service.domain.event import START, Event, Position
from image_service.errors import QueueUnavailable
from image_service.models import PositionRow
from image_service.observability.metrics import Metrics
from image_service.ports import EncodedEvent
from image_service.queue.signal import LocalSignal
from image_service.services.event_relay import POSITION, EventRelay, RelayTiming

NEVER = 3600.0


@dataclass
class Exchange:
    """Takes events, while it is available."""

    published: list[EncodedEvent] = field(default_factory=list)
    available: bool = True
    open: bool = False

    @property
    def topics(self) -> list[str]:
        return [event.topic for event in self.published]

    async def start(self) -> None:
        self.open = True

    async def close(self) -> None:
        self.open = False

    async def publish(self, events: Sequence[EncodedEvent]) -> None:
        if not self.available:
            raise QueueUnavailable
        self.published += events


@dataclass
class Clock:
    time: float = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, time_limit=LONG_TIMEOUT)
    yield database
    await database.close()


def encode(event: Event) -> EncodedEvent:
    return EncodedEvent(
        id=event.id, topic=event.type.value, subject=str(event.image_id), content_type="application/json", body=b"{}"
    )


def relay(
    database: Database,
    exchange: Exchange,
    *,
    encode: Callable[[Event], EncodedEvent] = encode,
    metrics: Metrics | None = None,
    signal: LocalSignal | None = None,
    **timing: object,
) -> EventRelay:
    return EventRelay(
        database=database,
        exchange=exchange,
        encode=encode,
        signal=signal or LocalSignal(),
        observer=metrics or Metrics(),
        timing=RelayTiming(**timing),  # type: ignore[arg-type]  # fields of RelayTiming
    )


@asynccontextmanager
async def running(relay: EventRelay) -> AsyncIterator[None]:
    task = asyncio.create_task(relay.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def publish(relay: EventRelay, exchange: Exchange, number: int) -> None:
    """Run the relay until so many events are published; other databases' transactions can delay them."""

    async def published() -> bool:
        await relay.run_once()
        return len(exchange.published) >= number

    await eventually(published, timeout=60)


async def loses_its_lease(relay: EventRelay) -> None:
    with capture_logs() as log:

        async def lost() -> bool:
            await relay.run_once()
            return any("this worker was too slow" in entry["event"] for entry in log)

        await eventually(lost, timeout=60)


async def end_lease(database: Database) -> None:
    await execute(database, update(PositionRow).where(PositionRow.name == POSITION).values(lease_until=in_seconds(-1)))


async def set_position(database: Database, name: str, position: Position) -> None:
    values = {"transaction_id": position.transaction, "number": position.number}
    await execute(database, update(PositionRow).where(PositionRow.name == name).values(values))


async def position(database: Database) -> Position:
    return await in_transaction(database, lambda r: r.events.position(POSITION))


async def test_publishes_every_event_once_in_order_and_as_soon_as_it_is_signalled(database: Database) -> None:
    exchange, signal, metrics = Exchange(), LocalSignal(), Metrics()
    await done(database)
    async with running(relay(database, exchange, signal=signal, metrics=metrics, poll=NEVER)):
        await eventually(lambda: len(exchange.published) == 2, timeout=60)
        await failed(database)

        def signalled() -> bool:
            signal.notify()
            return len(exchange.published) == 4

        await eventually(signalled, timeout=60)
    assert exchange.topics == ["image.accepted", "image.done", "image.accepted", "image.failed"]
    assert not exchange.open
    assert counted(metrics, "exchange_events_total") == 4
    await publish(relay(database, exchange), exchange, 4)
    assert len(exchange.published) == 4


async def test_events_that_the_broker_did_not_take_are_published_later(database: Database) -> None:
    exchange, metrics = Exchange(available=False), Metrics()
    await done(database)
    with capture_logs() as log:
        async with running(relay(database, exchange, metrics=metrics, poll=0.01, longest_pause=0.05)):
            await eventually(
                lambda: any(entry["event"] == "events not published; they will be" for entry in log), timeout=60
            )
            assert (counted(metrics, "exchange_lag_seconds") or 0) > 0
            assert await position(database) == START
            exchange.available = True
            await eventually(lambda: len(exchange.published) == 2, timeout=60)
            await eventually(lambda: counted(metrics, "exchange_lag_seconds") == 0)
    assert exchange.topics == ["image.accepted", "image.done"]


async def test_another_process_goes_on_as_soon_as_the_lease_is_given_up(database: Database) -> None:
    exchange, other = Exchange(), Exchange()
    await recorded(database)
    async with running(relay(database, exchange)):
        await eventually(lambda: len(exchange.published) == 1, timeout=60)
        second = relay(database, other)
        await recorded(database)
        await second.run_once()
        await eventually(lambda: len(exchange.published) == 2, timeout=60)
        assert not other.published
    await recorded(database)
    await publish(second, other, 1)
    assert len(exchange.published) == 2


async def test_process_that_ended_before_it_recorded_what_it_published_is_replaced(database: Database) -> None:
    exchange = Exchange()
    first = relay(database, exchange)
    await done(database)
    await publish(first, exchange, 2)
    await set_position(database, POSITION, START)
    await end_lease(database)
    await publish(relay(database, exchange), exchange, 4)
    assert exchange.published[:2] == exchange.published[2:], "repeated, in the same order"


async def test_process_that_was_paused_beyond_its_lease_publishes_nothing(database: Database) -> None:
    clock, exchange, other = Clock(), Exchange(), Exchange()
    paused = relay(database, exchange, clock=clock)
    await recorded(database)
    await publish(paused, exchange, 1)
    await end_lease(database)
    await recorded(database)
    await publish(relay(database, other), other, 1)
    clock.time += 60
    await recorded(database)
    await loses_its_lease(paused)
    assert len(exchange.published) == 1


async def test_process_that_was_paused_after_it_read_the_events_publishes_nothing(database: Database) -> None:
    clock, exchange, other = Clock(), Exchange(), Exchange()

    def pause_and_encode(event: Event) -> EncodedEvent:
        clock.time += 60
        return encode(event)

    paused = relay(database, exchange, encode=pause_and_encode, clock=clock)
    await paused.run_once()
    await end_lease(database)
    await recorded(database)
    await publish(relay(database, other), other, 1)
    await loses_its_lease(paused)
    assert not exchange.published


async def test_lease_is_extended_while_there_is_nothing_to_publish(database: Database) -> None:
    clock, exchange = Clock(), Exchange()
    holder = relay(database, exchange, clock=clock)
    await holder.run_once()
    await execute(database, update(PositionRow).where(PositionRow.name == POSITION).values(lease_until=in_seconds(60)))
    clock.time += 11
    await holder.run_once()
    await recorded(database)
    await publish(holder, exchange, 1)


async def test_restored_database_is_published_from_the_oldest_event(database: Database) -> None:
    """Its transactions may have smaller numbers than the position that was restored with it."""
    exchange = Exchange()
    await recorded(database)
    await set_position(database, POSITION, Position(2**40, 1))
    with capture_logs() as log:
        await publish(relay(database, exchange), exchange, 1)
    assert [entry["event"] for entry in log if entry["log_level"] == "warning"] == [
        "the database was restored; events that it still has are published again"
    ]
    assert await position(database) < Position(2**40, 1)


async def test_events_that_were_purged_while_nothing_was_published_are_reported(database: Database) -> None:
    exchange = Exchange()
    await recorded(database)
    await publish(relay(database, exchange), exchange, 1)
    await end_lease(database)
    transaction, number = await position(database)
    await set_position(database, "purged", Position(transaction, number + 1))
    with capture_logs() as log:
        await relay(database, exchange).run_once()
    assert "events were purged that had not been published" in log[-1]["event"]
