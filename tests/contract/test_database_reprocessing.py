"""Reprocessing of finished images, on SQLite and PostgreSQL."""

from uuid import uuid4

import pytest
from sqlalchemy.exc import IntegrityError

from harness.rows import (
    CLAIM_CHANGES,
    ERROR,
    FINISHED,
    RECIPE,
    UNFINISHED,
    RecordImage,
    claimed,
    close_to,
    complete,
    concurrently,
    done,
    due,
    due_when_superseded,
    failed,
    finished,
    ids,
    image,
    in_transaction,
    leased,
    mark_queued,
    recorded,
    release,
    removals,
    remove_originals,
    reprocess,
    row,
    shift,
    status_of,
    thumbnail,
)
from image_service.database import Database
from image_service.domain.lane import Lane
from image_service.domain.status import TERMINAL, Status


@pytest.mark.parametrize("record", FINISHED)
async def test_finished_image_can_be_reprocessed(database: Database, record: RecordImage) -> None:
    image_id = await record(database)
    before = await row(database, image_id)
    assert await reprocess(database, image_id, due_in=-1) == {image_id}
    after = await row(database, image_id)
    assert (after["status"], after["error_code"], after["error_detail"]) == (Status.NEW, None, None)
    assert (after["queued_at"], after["lease_until"]) == (None, None)
    assert ids(await due(database)) == [image_id]
    assert after["updated_at"] > before["updated_at"]
    for kept in ("created_at", "finished_at", "sha256", "thumbnails", "recipe", "placeholder", "lane"):
        assert after[kept] == before[kept]


@pytest.mark.parametrize("record", FINISHED)
async def test_reprocessed_image_is_due_at_the_given_time(database: Database, record: RecordImage) -> None:
    image_id = await record(database)
    await reprocess(database, image_id, due_in=60)
    assert await due(database) == []
    assert await mark_queued(database, image_id)


@pytest.mark.parametrize("record", UNFINISHED)
async def test_unfinished_image_is_not_reprocessed(database: Database, record: RecordImage) -> None:
    image_id = await record(database)
    before = await row(database, image_id)
    assert await reprocess(database, image_id) == set()
    assert await row(database, image_id) == before


@pytest.mark.parametrize("record", FINISHED)
async def test_image_without_its_original_is_not_reprocessed(database: Database, record: RecordImage) -> None:
    image_id = await record(database)
    assert await remove_originals(database, image_id)
    before = await row(database, image_id)
    assert await reprocess(database, image_id) == set()
    assert await row(database, image_id) == before


async def test_reprocess_returns_the_images_that_qualify(database: Database) -> None:
    one, other = await done(database), await failed(database)
    disqualified = [await recorded(database), await leased(database), uuid4()]
    left_alone = await done(database)
    assert await reprocess(database, one, other, *disqualified) == {one, other}
    assert await status_of(database, left_alone) is Status.DONE
    assert await reprocess(database) == set()


async def test_reprocessed_image_gets_the_given_lane_or_keeps_its_own(database: Database) -> None:
    image_id = await done(database)
    for given, expected in ((None, Lane.NORMAL), (Lane.BACKFILL, Lane.BACKFILL), (None, Lane.BACKFILL)):
        assert await reprocess(database, image_id, due_in=-1, lane=given)
        (seen,) = await due(database)
        assert seen.lane is expected
        await complete(database, await claimed(database, image_id))


async def test_reprocessing_resets_charged_attempts_but_not_the_attempt_number(database: Database) -> None:
    image_id = await recorded(database)
    for _ in range(3):
        await release(database, await claimed(database, image_id), charge=True, decoder_failed=True)
    last = await claimed(database, image_id)
    await in_transaction(database, lambda r: r.claims.fail(last, ERROR))
    await reprocess(database, image_id)
    claim = await claimed(database, image_id)
    assert (claim.attempts_charged, claim.decoder_failures) == (1, 0)
    assert claim.attempt > last.attempt
    assert (last.reprocessing, claim.reprocessing) == (False, True)


async def test_reprocessing_resets_the_number_of_publishes(database: Database) -> None:
    image_id = await recorded(database, due_in=-1)
    (seen,) = await due(database)
    assert await in_transaction(database, lambda r: r.scheduling.reserve_for_publish(seen, due_in=-1))
    await complete(database, await claimed(database, image_id))
    await reprocess(database, image_id, due_in=-1)
    (seen,) = await due(database)
    assert seen.publishes == 0


async def test_concurrent_reprocess_accepts_one(database: Database) -> None:
    image_id = await done(database)
    outcome = await concurrently(database, *[lambda r: r.images.reprocess([image_id], due_in=60)] * 6)
    assert sorted(outcome, key=len) == [set()] * 5 + [{image_id}]


@pytest.mark.parametrize("change", CLAIM_CHANGES)
@pytest.mark.parametrize("end", TERMINAL)
async def test_claim_from_before_reprocessing_changes_nothing(database: Database, change: str, end: Status) -> None:
    """As when the reply to the COMMIT that finished the image was lost, and the worker retries."""
    stale = await finished(database, end)
    await reprocess(database, stale.image_id)
    for step in (None, mark_queued, claimed):
        if step is not None:
            await step(database, stale.image_id)
        before = await row(database, stale.image_id)
        assert not await in_transaction(database, lambda r: CLAIM_CHANGES[change](r, stale))
        assert await row(database, stale.image_id) == before
    assert await removals(database) == {}


async def test_old_thumbnails_are_replaced_on_completion_and_removed_later(
    database: Database,
) -> None:
    first = await claimed(database, await recorded(database))
    old = [thumbnail(first, "100x100"), thumbnail(first, "300x300", 300)]
    await complete(database, first, *old)
    await reprocess(database, first.image_id)
    assert (await image(database, first.image_id)).thumbnails == tuple(old)
    second = await claimed(database, first.image_id)
    assert (await image(database, first.image_id)).thumbnails == tuple(old)
    assert await removals(database) == {}
    new = [thumbnail(second, "100x100"), thumbnail(second, "1200x1200", 1200)]
    assert await complete(database, second, *new)
    assert (await image(database, first.image_id)).thumbnails == tuple(new)
    removed = await removals(database)
    assert set(removed) == {each.key for each in old}
    assert all(map(due_when_superseded, removed.values()))
    assert await in_transaction(database, lambda r: r.removals.due(limit=10)) == []


async def test_old_thumbnails_stay_when_the_transaction_fails(database: Database) -> None:
    first = await finished(database, Status.DONE)
    await reprocess(database, first.image_id)
    second = await claimed(database, first.image_id)
    before = await row(database, first.image_id)
    with pytest.raises(IntegrityError):
        await complete(database, second, thumbnail(second), thumbnail(second))
    assert await row(database, first.image_id) == before
    assert (await image(database, first.image_id)).thumbnails == (thumbnail(first),)
    assert await removals(database) == {}


async def test_old_thumbnails_stay_when_the_claim_is_lost(database: Database) -> None:
    first = await finished(database, Status.DONE)
    await reprocess(database, first.image_id)
    stale = await claimed(database, first.image_id, lease=-1)
    newest = await claimed(database, first.image_id)
    before = await row(database, first.image_id)
    assert not await complete(database, stale)
    assert await row(database, first.image_id) == before
    assert (await image(database, first.image_id)).thumbnails == (thumbnail(first),)
    assert await removals(database) == {}
    assert await complete(database, newest)
    assert set(await removals(database)) == {thumbnail(first).key}


async def test_completing_twice_does_not_remove_the_new_thumbnails(database: Database) -> None:
    first = await finished(database, Status.DONE)
    await reprocess(database, first.image_id)
    second = await claimed(database, first.image_id)
    assert await complete(database, second)
    assert not await complete(database, second), "the reply to the first COMMIT may have been lost"
    assert set(await removals(database)) == {thumbnail(first).key}
    assert (await image(database, first.image_id)).thumbnails == (thumbnail(second),)


async def test_old_thumbnails_stay_when_reprocessing_fails(database: Database) -> None:
    first = await finished(database, Status.DONE)
    await reprocess(database, first.image_id)
    second = await claimed(database, first.image_id)
    assert await in_transaction(database, lambda r: r.claims.fail(second, ERROR))
    after = await image(database, first.image_id)
    assert (after.status, after.error, after.thumbnails) == (Status.ERROR, ERROR, (thumbnail(first),))
    assert await removals(database) == {}
    await reprocess(database, first.image_id)
    third = await claimed(database, first.image_id)
    assert await complete(database, third)
    assert (await image(database, first.image_id)).thumbnails == (thumbnail(third),)
    assert set(await removals(database)) == {thumbnail(first).key}


async def test_completed_image_has_its_recipe(database: Database) -> None:
    claim = await claimed(database, await recorded(database))
    assert (await row(database, claim.image_id))["recipe"] is None
    await complete(database, claim)
    assert (await row(database, claim.image_id))["recipe"] == RECIPE


async def test_finished_at_changes_with_each_completion(database: Database) -> None:
    image_id = await done(database)
    await shift(database, image_id, finished_at=-3600)
    before = (await image(database, image_id)).finished_at
    await reprocess(database, image_id)
    assert (await image(database, image_id)).finished_at == before
    await complete(database, await claimed(database, image_id))
    after = await image(database, image_id)
    assert close_to(after.finished_at, after.updated_at)
