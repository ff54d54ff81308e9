"""What the database owes those who want an image once more, or no longer: every query, and who wins a race."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from harness.fakes import LONG_TIMEOUT
from harness.rows import (
    ERROR,
    RECIPE,
    SUPERSEDED_FOR,
    at_once,
    claimed,
    close,
    complete,
    due,
    finished,
    ids,
    made,
    mark_queued,
    queued,
    recorded,
    release,
    removals,
    remove,
    remove_originals,
    reprocess,
    row,
    run,
    shift,
    status_of,
    thumbnail,
    try_claim,
    unclaimed,
)
from harness.waiting import eventually
from image_service.database import Database, Repositories
from image_service.domain.image import Claim, Image
from image_service.domain.keys import original_key
from image_service.domain.lane import Lane
from image_service.domain.status import TERMINAL, Status
from image_service.models import ThumbnailRow


async def leased(database: Database) -> UUID:
    return (await claimed(database, await queued(database))).image_id


async def done(database: Database) -> UUID:
    return (await finished(database, Status.DONE)).image_id


async def failed(database: Database) -> UUID:
    return (await finished(database, Status.ERROR)).image_id


Make = Callable[[Database], Awaitable[UUID]]
UNFINISHED = (recorded, queued, leased)
FINISHED = (done, failed)


async def image(database: Database, image_id: UUID) -> Image:
    found = await run(database, lambda r: r.images.get(image_id))
    assert found is not None
    return found


async def there_is_no(database: Database, image_id: UUID) -> bool:
    """Whether nothing is recorded about an image."""
    thumbnails = select(ThumbnailRow).where(ThumbnailRow.image_id == image_id)
    async with database.transaction() as repositories:
        left = (await repositories.connection.execute(thumbnails)).all()
        return not left and await repositories.images.get(image_id) is None


def soon(seconds: float) -> bool:
    return -60 < seconds <= 0


def later(seconds: float) -> bool:
    return SUPERSEDED_FOR - 60 < seconds <= SUPERSEDED_FOR


@pytest.mark.parametrize("make", FINISHED)
async def test_a_finished_image_begins_anew(database: Database, make: Make) -> None:
    image_id = await make(database)
    before = await row(database, image_id)
    assert await reprocess(database, image_id, due_in=-1) == {image_id}
    after = await row(database, image_id)
    assert (after["status"], after["error_code"], after["error_detail"]) == (Status.NEW, None, None)
    assert (after["queued_at"], after["lease_until"]) == (None, None)
    assert ids(await due(database)) == [image_id]
    assert after["updated_at"] > before["updated_at"]
    for kept in ("created_at", "finished_at", "sha256", "thumbnails", "recipe", "placeholder", "lane"):
        assert after[kept] == before[kept]


@pytest.mark.parametrize("make", FINISHED)
async def test_what_begins_anew_is_due_when_it_was_asked_to_be(database: Database, make: Make) -> None:
    image_id = await make(database)
    await reprocess(database, image_id, due_in=60)
    assert await due(database) == []
    assert await mark_queued(database, image_id)


@pytest.mark.parametrize("make", UNFINISHED)
async def test_an_unfinished_image_does_not_begin_anew(database: Database, make: Make) -> None:
    image_id = await make(database)
    before = await row(database, image_id)
    assert await reprocess(database, image_id) == set()
    assert await row(database, image_id) == before


@pytest.mark.parametrize("make", FINISHED)
async def test_an_image_without_its_original_does_not_begin_anew(database: Database, make: Make) -> None:
    image_id = await make(database)
    assert await remove_originals(database, image_id)
    before = await row(database, image_id)
    assert await reprocess(database, image_id) == set()
    assert await row(database, image_id) == before


async def test_of_many_images_those_begin_anew_that_can(database: Database) -> None:
    one, other = await done(database), await failed(database)
    unsuited = [await recorded(database), await leased(database), uuid4()]
    left_alone = await done(database)
    assert await reprocess(database, one, other, *unsuited) == {one, other}
    assert await status_of(database, left_alone) is Status.DONE
    assert await reprocess(database) == set()


async def test_only_those_in_one_state_begin_anew_where_that_is_asked_for(database: Database) -> None:
    one, other = await done(database), await failed(database)
    assert await reprocess(database, one, other, only=Status.DONE) == {one}
    assert await status_of(database, other) is Status.ERROR
    assert await reprocess(database, other, only=Status.DONE) == set()
    assert await reprocess(database, other, only=Status.ERROR) == {other}


async def test_what_begins_anew_waits_where_it_is_told_to_or_where_it_did_before(database: Database) -> None:
    image_id = await done(database)
    for told, expected in ((None, Lane.NORMAL), (Lane.BACKFILL, Lane.BACKFILL), (None, Lane.BACKFILL)):
        assert await reprocess(database, image_id, due_in=-1, lane=told)
        (seen,) = await due(database)
        assert seen.lane is expected
        await complete(database, await claimed(database, image_id))


async def test_attempts_are_counted_from_nothing_again_and_the_fence_goes_on(database: Database) -> None:
    image_id = await recorded(database)
    for _ in range(3):
        await release(database, await claimed(database, image_id), charge=True, decoder_failed=True)
    last = await claimed(database, image_id)
    await run(database, lambda r: r.claims.fail(last, ERROR))
    await reprocess(database, image_id)
    claim = await claimed(database, image_id)
    assert (claim.attempts_charged, claim.decoder_failures) == (1, 0)
    assert claim.attempt > last.attempt
    assert (last.reprocessing, claim.reprocessing) == (False, True)


async def test_the_reconcilers_delays_begin_anew_too(database: Database) -> None:
    image_id = await recorded(database, due_in=-1)
    (seen,) = await due(database)
    assert await run(database, lambda r: r.scheduling.reserve_for_publish(seen, due_in=-1))
    await complete(database, await claimed(database, image_id))
    await reprocess(database, image_id, due_in=-1)
    (seen,) = await due(database)
    assert seen.publishes == 0


async def test_of_many_wishes_at_once_one_is_granted(database: Database) -> None:
    image_id = await done(database)
    outcome = await at_once(database, *[lambda r: r.images.reprocess([image_id], due_in=60)] * 6)
    assert sorted(outcome, key=len) == [set()] * 5 + [{image_id}]


CHANGES: dict[str, Callable[[Repositories, Claim], Awaitable[bool]]] = {
    "extend": lambda r, claim: r.claims.extend(claim, lease=60),
    "complete": lambda r, claim: r.claims.complete(claim, made(thumbnail(claim)), superseded_for=SUPERSEDED_FOR),
    "fail": lambda r, claim: r.claims.fail(claim, ERROR),
    "release": lambda r, claim: r.claims.release(claim, rest=-1, due_in=-1, charge=True),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("end", TERMINAL)
async def test_a_claim_from_an_earlier_life_changes_nothing(database: Database, change: str, end: Status) -> None:
    """As when the reply to the COMMIT that ended it was lost, and the worker tries again."""
    stale = await finished(database, end)
    await reprocess(database, stale.image_id)
    for step in (None, mark_queued, claimed):
        if step is not None:
            await step(database, stale.image_id)
        before = await row(database, stale.image_id)
        assert not await run(database, lambda r: CHANGES[change](r, stale))
        assert await row(database, stale.image_id) == before
    assert await removals(database) == {}


async def test_old_thumbnails_stay_until_the_new_ones_are_there_and_are_removed_some_time_after(
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
    assert all(map(later, removed.values()))
    assert await run(database, lambda r: r.removals.due(limit=10)) == []


async def test_old_thumbnails_are_not_given_away_by_a_transaction_that_fails(database: Database) -> None:
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


async def test_completing_again_does_not_give_the_new_thumbnails_away(database: Database) -> None:
    first = await finished(database, Status.DONE)
    await reprocess(database, first.image_id)
    second = await claimed(database, first.image_id)
    assert await complete(database, second)
    assert not await complete(database, second), "as when the reply to the first COMMIT was lost"
    assert set(await removals(database)) == {thumbnail(first).key}
    assert (await image(database, first.image_id)).thumbnails == (thumbnail(second),)


async def test_old_thumbnails_stay_where_the_new_rendering_fails(database: Database) -> None:
    first = await finished(database, Status.DONE)
    await reprocess(database, first.image_id)
    second = await claimed(database, first.image_id)
    assert await run(database, lambda r: r.claims.fail(second, ERROR))
    after = await image(database, first.image_id)
    assert (after.status, after.error, after.thumbnails) == (Status.ERROR, ERROR, (thumbnail(first),))
    assert await removals(database) == {}
    await reprocess(database, first.image_id)
    third = await claimed(database, first.image_id)
    assert await complete(database, third)
    assert (await image(database, first.image_id)).thumbnails == (thumbnail(third),)
    assert set(await removals(database)) == {thumbnail(first).key}


async def test_a_rendering_is_recorded_with_its_recipe(database: Database) -> None:
    claim = await claimed(database, await recorded(database))
    assert (await row(database, claim.image_id))["recipe"] is None
    await complete(database, claim)
    assert (await row(database, claim.image_id))["recipe"] == RECIPE


async def test_when_it_was_finished_changes_with_each_end(database: Database) -> None:
    image_id = await done(database)
    await shift(database, image_id, finished_at=-3600)
    before = (await image(database, image_id)).finished_at
    await reprocess(database, image_id)
    assert (await image(database, image_id)).finished_at == before
    await complete(database, await claimed(database, image_id))
    after = await image(database, image_id)
    assert close(after.finished_at, after.updated_at)


@pytest.mark.parametrize("make", UNFINISHED + FINISHED)
async def test_an_image_is_removed_in_every_state_and_its_files_are_to_be_removed_at_once(
    database: Database, make: Make
) -> None:
    image_id, neighbour = await make(database), await make(database)
    before = await row(database, neighbour)
    keys = {original_key(image_id)} | {each.key for each in (await image(database, image_id)).thumbnails}
    assert await remove(database, image_id) == keys
    assert await there_is_no(database, image_id)
    removed = await removals(database)
    assert set(removed) == keys
    assert all(map(soon, removed.values()))
    assert await row(database, neighbour) == before
    assert await remove(database, image_id) == set()
    assert set(await removals(database)) == keys


async def test_many_images_are_removed_and_those_that_there_are_not_are_left_out(database: Database) -> None:
    images = [await make(database) for make in UNFINISHED + FINISHED]
    keys = await remove(database, *images, uuid4())
    assert len(keys) == len(images) + 1, "one of them has a thumbnail"
    for image_id in images:
        assert await there_is_no(database, image_id)
    assert await remove(database) == set()


async def test_those_that_are_being_processed_are_spared_where_that_is_asked_for(database: Database) -> None:
    again = await done(database)
    await reprocess(database, again)
    spared = [await make(database) for make in UNFINISHED] + [again]
    removed = [await make(database) for make in FINISHED]
    before = [await row(database, image_id) for image_id in spared]
    keys = await remove(database, *spared, *removed, only_finished=True)
    assert {original_key(image_id) for image_id in removed} <= keys
    assert [await row(database, image_id) for image_id in spared] == before
    for image_id in removed:
        assert await there_is_no(database, image_id)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_worker_whose_image_was_removed_has_lost_its_claim(database: Database, change: str) -> None:
    claim = await claimed(database, await queued(database))
    keys = await remove(database, claim.image_id)
    assert not await run(database, lambda r: CHANGES[change](r, claim))
    assert await there_is_no(database, claim.image_id)
    assert set(await removals(database)) == keys


async def test_a_removed_image_is_not_claimed_nor_queued_nor_processed_again(database: Database) -> None:
    image_id = await done(database)
    await remove(database, image_id)
    assert await try_claim(database, image_id) is None
    assert not await mark_queued(database, image_id)
    assert await reprocess(database, image_id) == set()
    assert await remove_originals(database, image_id) == set()


async def test_thumbnails_that_were_replaced_keep_their_time_when_the_image_is_removed(database: Database) -> None:
    first = await finished(database, Status.DONE)
    await reprocess(database, first.image_id)
    second = await claimed(database, first.image_id)
    await complete(database, second)
    assert await remove(database, first.image_id) == {original_key(first.image_id), thumbnail(second).key}
    removed = await removals(database)
    assert later(removed.pop(thumbnail(first).key))
    assert set(removed) == {original_key(first.image_id), thumbnail(second).key}
    assert all(map(soon, removed.values()))


async def test_a_removal_that_fails_removes_nothing(database: Database) -> None:
    image_id = await done(database)
    before = await row(database, image_id)

    async def remove_and_fail() -> None:
        async with database.transaction() as repositories:
            assert await repositories.images.remove([image_id])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await remove_and_fail()
    assert await row(database, image_id) == before
    assert await removals(database) == {}


async def test_of_many_removals_at_once_one_finds_the_image(database: Database) -> None:
    image_id = await done(database)
    outcome = await at_once(database, *[lambda r: r.images.remove([image_id])] * 6)
    assert sorted(map(len, outcome)) == [0] * 5 + [2]
    assert len(await removals(database)) == 2


async def test_whoever_is_first_an_image_that_is_removed_while_it_becomes_done_leaves_nothing_behind(
    database: Database,
) -> None:
    for _ in range(4):
        claim = await claimed(database, await queued(database))
        completed, keys = await both(
            database,
            lambda r, c=claim: r.claims.complete(c, made(thumbnail(c)), superseded_for=SUPERSEDED_FOR),
            lambda r, c=claim: r.images.remove([c.image_id]),
        )
        assert await there_is_no(database, claim.image_id)
        expected = {original_key(claim.image_id)} | ({thumbnail(claim).key} if completed else set())
        assert set(keys) == expected
        assert expected <= set(await removals(database))


async def both(database: Database, *queries: Callable[..., Awaitable[Any]]) -> list[Any]:
    """What two different queries say that are made at once."""
    return await at_once(database, *queries)


async def waits_for_a_lock(database: Database) -> bool:
    """Whether somebody waits for a row that somebody else has changed."""
    statement = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')")
    async with database.transaction() as repositories:
        return bool((await repositories.connection.execute(statement)).scalar())


@pytest.fixture
async def postgresql(postgres_database_url: str) -> Any:  # noqa: ANN401  (a generator's)
    database = Database(postgres_database_url, time_limit=LONG_TIMEOUT)
    yield database
    await database.close()


async def test_a_removal_waits_for_thumbnails_that_are_just_being_recorded(postgresql: Database) -> None:
    claim = await claimed(postgresql, await queued(postgresql))
    async with postgresql.transaction() as repositories:
        result = made(thumbnail(claim))
        assert await repositories.claims.complete(claim, result, superseded_for=SUPERSEDED_FOR)
        removing = asyncio.create_task(remove(postgresql, claim.image_id))
        await eventually(lambda: waits_for_a_lock(postgresql))
    assert await removing == {original_key(claim.image_id), thumbnail(claim).key}
    assert await there_is_no(postgresql, claim.image_id)


async def test_who_completes_an_image_that_is_just_being_removed_has_lost_its_claim(postgresql: Database) -> None:
    claim = await claimed(postgresql, await queued(postgresql))
    async with postgresql.transaction() as repositories:
        assert await repositories.images.remove([claim.image_id]) == [original_key(claim.image_id)]
        completing = asyncio.create_task(complete(postgresql, claim))
        await eventually(lambda: waits_for_a_lock(postgresql))
    assert not await completing
    assert await there_is_no(postgresql, claim.image_id)
    assert set(await removals(postgresql)) == {original_key(claim.image_id)}


async def test_a_removal_of_finished_images_spares_one_that_is_just_being_made_new(postgresql: Database) -> None:
    image_id = await done(postgresql)
    async with postgresql.transaction() as repositories:
        assert await repositories.images.reprocess([image_id], due_in=60)
        removing = asyncio.create_task(remove(postgresql, image_id, only_finished=True))
        await eventually(lambda: waits_for_a_lock(postgresql))
    assert await removing == set()
    assert await status_of(postgresql, image_id) is Status.NEW
    assert await removals(postgresql) == {}


@pytest.mark.parametrize("make", FINISHED)
async def test_an_original_is_removed_and_the_rest_stays(database: Database, make: Make) -> None:
    image_id, neighbour = await make(database), await make(database)
    before, other = await row(database, image_id), await row(database, neighbour)
    assert await remove_originals(database, image_id, uuid4()) == {original_key(image_id)}
    after = await row(database, image_id)
    assert close(after["original_removed_at"], after["updated_at"])
    changed = {"original_removed_at", "updated_at"}
    assert {key: after[key] for key in after.keys() - changed} == {key: before[key] for key in before.keys() - changed}
    assert (await image(database, image_id)).original_removed_at == after["original_removed_at"]
    removed = await removals(database)
    assert set(removed) == {original_key(image_id)}
    assert all(map(soon, removed.values()))
    assert await row(database, neighbour) == other
    assert await remove_originals(database, image_id) == set()
    assert await row(database, image_id) == after


@pytest.mark.parametrize("make", UNFINISHED)
async def test_the_original_of_an_unfinished_image_is_not_removed(database: Database, make: Make) -> None:
    image_id = await make(database)
    before = await row(database, image_id)
    assert await remove_originals(database, image_id) == set()
    assert await row(database, image_id) == before
    assert await removals(database) == {}


async def test_an_image_is_made_new_or_loses_its_original_and_never_both(database: Database) -> None:
    for _ in range(4):
        image_id = await done(database)
        again, removed = await both(
            database,
            lambda r, i=image_id: r.images.reprocess([i], due_in=60),
            lambda r, i=image_id: r.images.remove_originals([i]),
        )
        assert (again, removed) in [({image_id}, []), (set(), [original_key(image_id)])]


async def test_files_are_removed_longest_waiting_first_and_not_too_many(database: Database) -> None:
    for key, due_in in (("b", -20.0), ("a", -30.0), ("d", 60.0), ("c", -10.0)):
        await run(database, lambda r, k=key, d=due_in: r.removals.add([k], due_in=d))  # type: ignore[misc]
    assert await run(database, lambda r: r.removals.due(limit=10)) == ["a", "b", "c"]
    assert await run(database, lambda r: r.removals.due(limit=2)) == ["a", "b"]
    assert await run(database, lambda r: r.removals.pending(["a", "d", "e"])) == {"a", "d"}
    await run(database, lambda r: r.removals.done(["a", "c", "e"]))
    assert await run(database, lambda r: r.removals.due(limit=10)) == ["b"]
    assert set(await removals(database)) == {"b", "d"}


async def test_a_file_keeps_the_time_that_it_was_given_first(database: Database) -> None:
    await run(database, lambda r: r.removals.add(["a"], due_in=60))
    await run(database, lambda r: r.removals.add(["b", "a"], due_in=-1))
    assert await run(database, lambda r: r.removals.due(limit=10)) == ["b"]
    assert set(await removals(database)) == {"a", "b"}


async def test_no_files_to_be_removed_is_fine(database: Database) -> None:
    await run(database, lambda r: r.removals.add([], due_in=0))
    await run(database, lambda r: r.removals.done([]))
    assert await run(database, lambda r: r.removals.pending([])) == set()
    assert await run(database, lambda r: r.removals.due(limit=10)) == []


async def test_who_is_in_a_hurry_makes_unfinished_images_due_unless_a_worker_holds_them(database: Database) -> None:
    hurried = {await recorded(database), await queued(database)}
    lost = await claimed(database, await queued(database), lease=-1)
    held, resting = await leased(database), await claimed(database, await recorded(database))
    await release(database, resting, rest=60, charge=True)
    left = [held, resting.image_id, await done(database), await failed(database)]
    before = [await row(database, image_id) for image_id in left]
    asked = [*hurried, lost.image_id, *left, uuid4()]
    assert await run(database, lambda r: r.scheduling.make_due(asked)) == {*hurried, lost.image_id}
    assert set(ids(await due(database))) == {*hurried, lost.image_id}
    assert [await row(database, image_id) for image_id in left] == before


async def test_unclaimed_images_are_told_lane_by_lane(database: Database) -> None:
    images = {lane: await queued(database, lane=lane) for lane in Lane}
    for lane, image_id in images.items():
        (seen,) = await unclaimed(database, lane=lane)
        assert (seen.id, seen.lane) == (image_id, lane)
    await claimed(database, images[Lane.EXPRESS])
    assert await unclaimed(database, lane=Lane.EXPRESS) == []


async def test_a_due_image_says_where_it_waits(database: Database) -> None:
    images = {await recorded(database, due_in=-1, lane=lane): lane for lane in Lane}
    assert {seen.id: seen.lane for seen in await due(database)} == images
