"""The log of events: what each change records, its order, leases on passing it on, and purging, on both databases."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from harness.rows import (
    ERROR,
    SUPERSEDED_FOR,
    add,
    claimed,
    complete,
    done,
    execute,
    failed,
    image,
    in_transaction,
    recorded,
    remove,
    rendered,
    reprocess,
    thumbnail,
    upload,
)
from image_service.database import Database, Repositories
from image_service.database.clock import in_seconds
from image_service.domain.event import START, Event, EventType, Position, position_of
from image_service.domain.image import LateResult
from image_service.domain.lane import Lane
from image_service.models import EventRow, PositionRow


async def events(database: Database, after: Position = START, **conditions: object) -> list[Event]:
    """The settled events of the database; on PostgreSQL, other databases' transactions can delay them."""
    async with asyncio.timeout(60):
        while True:
            page = await in_transaction(database, lambda r: r.events.after(after, limit=1000, **conditions))  # type: ignore[arg-type]
            if not page.unsettled:
                return list(page.events)
            await asyncio.sleep(0.01)


async def of_image(database: Database, image_id: UUID) -> list[EventType]:
    return [event.type for event in await events(database, image_id=image_id)]


async def done_again(database: Database) -> UUID:
    image_id = await done(database)
    assert await reprocess(database, image_id)
    await complete(database, await claimed(database, image_id))
    return image_id


async def with_late_output(database: Database) -> UUID:
    image_id = await done(database)
    await in_transaction(database, lambda r: r.outputs.mark_outputs_due([image_id]))
    claim = await in_transaction(database, lambda r: r.outputs.claim_outputs(image_id, lease=60))
    assert claim is not None
    result = LateResult(recipe="r", left_out={}, made=(thumbnail(claim, "hero", 400),))
    assert await in_transaction(
        database, lambda r: r.outputs.complete_outputs(claim, result, superseded_for=SUPERSEDED_FOR)
    )
    return image_id


async def in_one_statement(database: Database) -> UUID:
    claim = await claimed(database, await recorded(database))
    async with database.statement() as repositories:
        assert await repositories.claims.complete(claim, rendered(thumbnail(claim), thumbnail(claim, "hero", 400)))
    return claim.image_id


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (recorded, [EventType.ACCEPTED]),
        (done, [EventType.ACCEPTED, EventType.DONE]),
        (in_one_statement, [EventType.ACCEPTED, EventType.DONE]),
        (failed, [EventType.ACCEPTED, EventType.FAILED]),
        (done_again, [EventType.ACCEPTED, EventType.DONE, EventType.REPROCESSING, EventType.DONE]),
        (with_late_output, [EventType.ACCEPTED, EventType.DONE, EventType.OUTPUT]),
    ],
)
async def test_changes_record_their_events_with_the_image_as_it_is_then(
    database: Database, record: Callable[[Database], Awaitable[UUID]], expected: list[EventType]
) -> None:
    image_id = await record(database)
    found = await events(database, image_id=image_id)
    assert [event.type for event in found] == expected
    assert found[-1].image == await image(database, image_id)
    assert len({event.id for event in found}) == len(found)


async def test_event_shows_the_image_as_it_was_although_it_has_changed(database: Database) -> None:
    original = upload(metadata='{"user": 7}', webhook_id=uuid4(), recipe_name="avatar")
    await add(database, original)
    accepted = await image(database, original.id)
    claim = await claimed(database, original.id)
    assert await in_transaction(database, lambda r: r.claims.fail(claim, ERROR))
    ended = await image(database, original.id)
    await remove(database, original.id)
    found = await events(database, image_id=original.id)
    assert [event.type for event in found] == [EventType.ACCEPTED, EventType.FAILED, EventType.DELETED]
    assert [event.image for event in found[:2]] == [accepted, ended]
    assert {(event.metadata, event.webhook_id) for event in found} == {(original.metadata, original.webhook_id)}


async def test_repeated_calls_and_lost_claims_record_nothing(database: Database) -> None:
    original = upload()
    await add(database, original)
    await add(database, original)
    lost = await claimed(database, original.id, lease=-1)
    await complete(database, await claimed(database, original.id))
    assert not await complete(database, lost)
    assert not await in_transaction(database, lambda r: r.claims.fail(lost, ERROR))
    async with database.statement() as repositories:
        assert not await repositories.claims.fail(lost, ERROR)
        assert not await repositories.images.existing([uuid4()])
    assert await of_image(database, original.id) == [EventType.ACCEPTED, EventType.DONE]


async def test_nothing_is_recorded_by_a_transaction_that_is_rolled_back(database: Database) -> None:
    original = upload()

    async def fails(repositories: Repositories) -> None:
        await repositories.images.add(original, lane=Lane.NORMAL, due_in=60)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await in_transaction(database, fails)
    assert await events(database) == []


async def test_ids_name_positions_of_this_database_only(database: Database) -> None:
    await done(database)
    identity = await in_transaction(database, lambda r: r.catalogue.identity())
    found = await events(database)
    assert [position_of(event.id, identity) for event in found] == [event.position for event in found]
    assert position_of(found[0].id, uuid4()) is None
    assert position_of("evt_x", identity) is None
    assert await in_transaction(database, lambda r: r.events.is_possible(found[-1].position))
    assert not await in_transaction(database, lambda r: r.events.is_possible(Position(2**62, 1)))


async def test_event_of_a_slow_transaction_is_not_overtaken(postgresql: Database) -> None:
    """Its number is the smaller one, and it becomes visible last: a reader that had gone on would miss it."""
    slow, fast = upload(), upload()
    async with postgresql.transaction() as repositories:
        await repositories.images.add(slow, lane=Lane.NORMAL, due_in=60)
        await add(postgresql, fast)
        page = await in_transaction(postgresql, lambda r: r.events.after(START, limit=10))
        head = await in_transaction(postgresql, lambda r: r.events.head())
    assert page.unsettled
    assert page.events == []
    assert [event.image_id for event in await events(postgresql, head)] == [slow.id, fast.id]


async def test_events_of_an_image_are_in_order_whichever_transaction_began_first(postgresql: Database) -> None:
    async with postgresql.transaction() as slow:
        await slow.images.add(upload(), lane=Lane.NORMAL, due_in=60)  # gives it its number
        image_id = await done(postgresql)
        assert await slow.images.reprocess([image_id], due_in=60)
    await remove(postgresql, image_id)
    expected = [EventType.ACCEPTED, EventType.DONE, EventType.REPROCESSING, EventType.DELETED]
    assert await of_image(postgresql, image_id) == expected


async def test_pages_follow_each_other_without_gap_or_repeat(database: Database) -> None:
    for _ in range(5):
        await done(database)
    everything = await events(database)
    assert await in_transaction(database, lambda r: r.events.head()) == everything[-1].position
    position = START
    paged: list[Event] = []
    while page := (await in_transaction(database, lambda r: r.events.after(position, limit=3))).events:  # noqa: B023
        paged += page
        position = page[-1].position
    assert [event.id for event in paged] == [event.id for event in everything]
    only = await events(database, types=[EventType.DONE])
    assert [event.type for event in only] == [EventType.DONE] * 5
    numbers = [event.position.number for event in only]
    assert list(await in_transaction(database, lambda r: r.events.by_number(numbers))) == numbers


async def test_lease_is_exclusive_and_fenced(database: Database) -> None:
    first = await in_transaction(database, lambda r: r.events.lease("webhooks", seconds=60))
    assert first is not None
    assert first.position == START
    assert await in_transaction(database, lambda r: r.events.lease("webhooks", seconds=60)) is None
    assert await in_transaction(
        database, lambda r: r.events.advance("webhooks", first.number, Position(3, 4), seconds=-1)
    )
    second = await in_transaction(database, lambda r: r.events.lease("webhooks", seconds=60))
    assert second is not None
    assert second.position == Position(3, 4)
    assert not await in_transaction(
        database, lambda r: r.events.advance("webhooks", first.number, Position(9, 9), seconds=60)
    )
    assert await in_transaction(
        database, lambda r: r.events.advance("webhooks", second.number, Position(5, 6), seconds=0)
    )
    assert await in_transaction(database, lambda r: r.events.position("webhooks")) == Position(5, 6)
    assert await in_transaction(database, lambda r: r.events.lease("webhooks", seconds=60)) is not None


async def test_purge_deletes_old_events_and_says_how_far(database: Database) -> None:
    old, new = await done(database), await done(database)
    before = await events(database)
    await execute(database, update(EventRow).where(EventRow.image_id == old).values(happened_at=in_seconds(-3600)))

    async def purge(kept_after: Position | None = None, limit: int = 100) -> int:
        return await in_transaction(
            database, lambda r: r.events.purge(older_than=1800, kept_after=kept_after, limit=limit)
        )

    assert await purge(START) == 0
    assert await purge(limit=1) == 1
    assert await in_transaction(database, lambda r: r.events.position("purged")) == before[0].position
    assert await purge() == 1
    assert await purge() == 0
    assert [event.image_id for event in await events(database)] == [new, new]
    assert await in_transaction(database, lambda r: r.events.head()) == before[-1].position


async def test_events_restored_from_another_server_come_before_all_others(database: Database) -> None:
    """There the transactions had larger numbers than here."""
    old = await done(database)
    await execute(database, update(EventRow).values(transaction_id=EventRow.number + 2**40))
    await execute(database, update(PositionRow).values(transaction_id=2**40 + 2, number=2))
    new = await done(database)
    assert await in_transaction(database, lambda r: r.events.take_over_restored()) == 2
    found = await events(database)
    assert [(event.image_id, event.type) for event in found] == [
        (image_id, kind) for image_id in (old, new) for kind in (EventType.ACCEPTED, EventType.DONE)
    ]
    assert await in_transaction(database, lambda r: r.events.position("webhooks")) == START
    assert await in_transaction(database, lambda r: r.events.head()) == found[-1].position
    assert await in_transaction(database, lambda r: r.events.take_over_restored()) == 0
    assert await events(database) == found
