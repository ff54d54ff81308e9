"""Queueing of unfinished images and the queries of the reconciler, on SQLite and PostgreSQL."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import update

from harness.rows import (
    claimed,
    complete,
    concurrently,
    done,
    due,
    execute,
    failed,
    finished,
    ids,
    in_transaction,
    leased,
    mark_queued,
    queued,
    recorded,
    release,
    reserve,
    row,
    shift,
    status_of,
    unclaimed,
)
from image_service.database import Database
from image_service.domain.image import Claim
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.models import ImageRow


async def test_mark_queued_changes_new_images_only(database: Database) -> None:
    image_id = await recorded(database)
    assert await mark_queued(database, image_id)
    assert await status_of(database, image_id) is Status.PROCESSING
    before = await row(database, image_id)
    assert before["queued_at"] is not None
    assert not await mark_queued(database, image_id)
    assert await row(database, image_id) == before


async def test_mark_queued_does_not_change_a_claimed_image(database: Database) -> None:
    image_id = await recorded(database)
    await claimed(database, image_id)
    before = await row(database, image_id)
    assert not await mark_queued(database, image_id)
    assert await row(database, image_id) == before


@pytest.mark.parametrize("end", [Status.DONE, Status.ERROR])
async def test_mark_queued_does_not_change_a_finished_image(database: Database, end: Status) -> None:
    claim = await finished(database, end)
    before = await row(database, claim.image_id)
    assert not await mark_queued(database, claim.image_id)
    assert await row(database, claim.image_id) == before
    assert before["status"] is end


async def test_mark_queued_does_not_undo_a_concurrent_claim(database: Database) -> None:
    images = [await recorded(database) for _ in range(4)]
    for image_id in images:
        outcome = await concurrently(
            database,
            lambda r, i=image_id: r.scheduling.mark_queued(i, due_in=60),  # type: ignore[misc]
            lambda r, i=image_id: r.claims.claim(i, lease=60),  # type: ignore[misc]
        )
        assert isinstance(outcome[1], Claim)
        after = await row(database, image_id)
        assert after["status"] is Status.PROCESSING
        assert after["attempt"] == 1
        assert after["lease_until"] is not None


async def test_due_returns_the_longest_due_first_up_to_the_limit(database: Database) -> None:
    second, first, third = [await recorded(database, due_in) for due_in in (-20, -30, -10)]
    await recorded(database, due_in=60)
    assert ids(await due(database)) == [first, second, third]
    assert ids(await due(database, limit=2)) == [first, second]
    seen = (await due(database, limit=1))[0]
    assert (seen.status, seen.publishes) == (Status.NEW, 0)
    assert seen.due_at.utcoffset() == timedelta(0)


async def test_leased_image_is_due_when_its_lease_ends(database: Database) -> None:
    held = await claimed(database, await recorded(database, due_in=-1), lease=60)
    left = await claimed(database, await recorded(database, due_in=60), lease=-1)
    assert ids(await due(database)) == [left.image_id]
    assert held.image_id != left.image_id


async def test_queued_image_is_due_at_the_given_time(database: Database) -> None:
    overdue = await queued(database, due_in=-1)
    await queued(database, due_in=60)
    (seen,) = await due(database)
    assert (seen.id, seen.status) == (overdue, Status.PROCESSING)


@pytest.mark.parametrize("end", [Status.DONE, Status.ERROR])
async def test_finished_image_is_never_due(database: Database, end: Status) -> None:
    await finished(database, end)
    assert await due(database) == []
    assert await unclaimed(database) == []


async def test_unclaimed_returns_queued_images_without_a_claim_oldest_first(database: Database) -> None:
    await recorded(database)
    await claimed(database, await queued(database))
    await claimed(database, await recorded(database), lease=-1)
    young, old = await queued(database), await queued(database)
    await shift(database, young, queued_at=-100)
    await shift(database, old, queued_at=-200)
    assert ids(await unclaimed(database, queued_before=-1)) == [old, young]
    assert ids(await unclaimed(database, queued_before=50)) == [old, young]
    assert ids(await unclaimed(database, queued_before=50, limit=1)) == [old]
    assert ids(await unclaimed(database, queued_before=150)) == [old]
    assert ids(await unclaimed(database, queued_before=250)) == []


async def test_one_of_two_reconcilers_reserves_an_image(database: Database) -> None:
    image_id = await recorded(database, due_in=-1)
    (one,), (other,) = await due(database), await due(database)
    assert await reserve(database, one)
    before = await row(database, image_id)
    assert before["publishes"] == 1
    assert not await reserve(database, other)
    assert await row(database, image_id) == before
    assert await due(database) == []


async def test_one_of_concurrent_reconcilers_reserves_an_image(database: Database) -> None:
    image_id = await queued(database, due_in=-1)
    (seen,) = await due(database)
    outcome = await concurrently(database, *[lambda r: r.scheduling.reserve_for_publish(seen, due_in=60)] * 8)
    assert sorted(outcome) == [False] * 7 + [True]
    assert (await row(database, image_id))["publishes"] == 1


async def test_reserved_image_keeps_its_state_and_counts_publishes(database: Database) -> None:
    image_id = await recorded(database, due_in=-1)
    for publishes in range(3):
        (seen,) = await due(database)
        assert (seen.id, seen.status, seen.publishes) == (image_id, Status.NEW, publishes)
        assert await reserve(database, seen, due_in=-1)
    assert await mark_queued(database, image_id)


async def test_reserving_clears_an_expired_lease(database: Database) -> None:
    claim = await claimed(database, await recorded(database), lease=-1)
    assert await unclaimed(database) == []
    (seen,) = await due(database)
    assert await reserve(database, seen)
    assert ids(await unclaimed(database)) == [claim.image_id]
    after = await row(database, claim.image_id)
    assert (after["lease_until"], after["attempt"]) == (None, 1)
    assert (await claimed(database, claim.image_id)).attempt == 2


async def test_image_changed_since_it_was_read_is_not_reserved(database: Database) -> None:
    images = [await recorded(database, due_in=-1) for _ in range(5)]
    seen = {image.id: image for image in await due(database)}
    await mark_queued(database, images[0])
    await claimed(database, images[1])
    await complete(database, await claimed(database, images[2]))
    await shift(database, images[3], due_at=-2)
    await execute(database, update(ImageRow).where(ImageRow.id == images[4]).values(status=Status.PROCESSING))
    for image_id in images:
        before = await row(database, image_id)
        assert not await reserve(database, seen[image_id])
        assert await row(database, image_id) == before


async def test_resume_all_ends_leases_and_makes_unfinished_images_due(database: Database) -> None:
    new, waiting = await recorded(database), await queued(database)
    held = await claimed(database, await queued(database))
    resting = await claimed(database, await recorded(database))
    await release(database, resting, rest=60, charge=True)
    ended = [await finished(database, end) for end in (Status.DONE, Status.ERROR)]
    before = [await row(database, claim.image_id) for claim in ended]
    assert await in_transaction(database, lambda r: r.scheduling.resume_all()) == 4
    assert set(ids(await due(database))) == {new, waiting, held.image_id, resting.image_id}
    assert [await row(database, claim.image_id) for claim in ended] == before
    assert await status_of(database, new) is Status.NEW
    assert (await claimed(database, held.image_id)).attempt == 2
    assert (await claimed(database, resting.image_id)).attempt == 2


async def test_resume_all_on_an_empty_database(database: Database) -> None:
    assert await in_transaction(database, lambda r: r.scheduling.resume_all()) == 0


async def test_make_due_skips_leased_and_finished_images(database: Database) -> None:
    expected = {await recorded(database), await queued(database)}
    lost = await claimed(database, await queued(database), lease=-1)
    held, resting = await leased(database), await claimed(database, await recorded(database))
    await release(database, resting, rest=60, charge=True)
    left = [held, resting.image_id, await done(database), await failed(database)]
    before = [await row(database, image_id) for image_id in left]
    asked = [*expected, lost.image_id, *left, uuid4()]
    assert await in_transaction(database, lambda r: r.scheduling.make_due(asked)) == {*expected, lost.image_id}
    assert set(ids(await due(database))) == {*expected, lost.image_id}
    assert [await row(database, image_id) for image_id in left] == before


async def test_unclaimed_is_limited_to_one_lane(database: Database) -> None:
    images = {lane: await queued(database, lane=lane) for lane in Lane}
    for lane, image_id in images.items():
        (seen,) = await unclaimed(database, lane=lane)
        assert (seen.id, seen.lane) == (image_id, lane)
    await claimed(database, images[Lane.EXPRESS])
    assert await unclaimed(database, lane=Lane.EXPRESS) == []


async def test_due_image_has_its_lane(database: Database) -> None:
    images = {await recorded(database, due_in=-1, lane=lane): lane for lane in Lane}
    assert {seen.id: seen.lane for seen in await due(database)} == images
