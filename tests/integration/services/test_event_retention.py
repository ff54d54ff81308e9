"""Old events are deleted, but none that is still to be sent."""

from collections.abc import Sequence

import pytest
from sqlalchemy import update

from harness.rows import execute, in_transaction, recorded
from harness.service_harness import ServiceHarness
from harness.waiting import eventually
from image_service.database.clock import in_seconds
from image_service.domain.event import START, Event, Position
from image_service.models import EventRow
from image_service.services.event_retention import EventRetention

KEPT_FOR = 3600.0


async def events_of(env: ServiceHarness) -> Sequence[Event]:
    return (await in_transaction(env.database, lambda r: r.events.after(START, limit=100))).events


async def passed_on(env: ServiceHarness, name: str, position: Position) -> None:
    lease = await in_transaction(env.database, lambda r: r.events.lease(name, seconds=60))
    assert lease is not None
    assert await in_transaction(env.database, lambda r: r.events.advance(name, lease.number, position, seconds=0))


@pytest.mark.parametrize("published", [False, True])
async def test_old_events_are_deleted_once_they_are_passed_on(env: ServiceHarness, *, published: bool) -> None:
    for _ in range(5):
        await recorded(env.database)
    await eventually(lambda: _are_settled(env, 5))
    found = await events_of(env)
    old = update(EventRow).where(EventRow.number.in_([event.position.number for event in found[:4]]))
    await execute(env.database, old.values(happened_at=in_seconds(-KEPT_FOR - 60)))
    retention = EventRetention(database=env.database, kept_for=KEPT_FOR, published=published, batch=2)
    assert await retention.run_once() == 0
    await passed_on(env, "webhooks", found[2].position)
    if published:
        assert await retention.run_once() == 0
        await passed_on(env, "exchange", found[4].position)
    assert await retention.run_once() == 3
    await passed_on(env, "webhooks", found[4].position)
    assert await retention.run_once() == 1
    assert await retention.run_once() == 0
    assert [event.id for event in await events_of(env)] == [found[4].id]


async def _are_settled(env: ServiceHarness, number: int) -> bool:
    return len(await events_of(env)) == number
