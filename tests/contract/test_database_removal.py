"""Removal of images, originals and files, on SQLite and PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from harness.rows import (
    CLAIM_CHANGES,
    FINISHED,
    SUPERSEDED_FOR,
    UNFINISHED,
    RecordImage,
    claimed,
    close_to,
    complete,
    concurrently,
    done,
    due_now,
    due_when_superseded,
    finished,
    image,
    in_transaction,
    mark_queued,
    queued,
    removals,
    remove,
    remove_originals,
    rendered,
    reprocess,
    row,
    status_of,
    thumbnail,
    try_claim,
)
from harness.waiting import eventually
from image_service.database import Database
from image_service.domain.keys import original_key
from image_service.domain.status import Status
from image_service.models import ThumbnailRow


async def is_gone(database: Database, image_id: UUID) -> bool:
    """Whether nothing is recorded about an image."""
    thumbnails = select(ThumbnailRow).where(ThumbnailRow.image_id == image_id)
    async with database.transaction() as repositories:
        left = (await repositories.connection.execute(thumbnails)).all()
        return not left and await repositories.images.get(image_id) is None


@pytest.mark.parametrize("record", UNFINISHED + FINISHED)
async def test_image_is_removed_in_every_state_and_its_files_are_due_at_once(
    database: Database, record: RecordImage
) -> None:
    image_id, neighbour = await record(database), await record(database)
    before = await row(database, neighbour)
    keys = {original_key(image_id)} | {each.key for each in (await image(database, image_id)).thumbnails}
    assert await remove(database, image_id) == keys
    assert await is_gone(database, image_id)
    removed = await removals(database)
    assert set(removed) == keys
    assert all(map(due_now, removed.values()))
    assert await row(database, neighbour) == before
    assert await remove(database, image_id) == set()
    assert set(await removals(database)) == keys


async def test_many_images_are_removed_and_unknown_ones_ignored(database: Database) -> None:
    images = [await record(database) for record in UNFINISHED + FINISHED]
    keys = await remove(database, *images, uuid4())
    assert len(keys) == len(images) + 1, "one of them has a thumbnail"
    for image_id in images:
        assert await is_gone(database, image_id)
    assert await remove(database) == set()


async def test_removal_can_be_limited_to_finished_images(database: Database) -> None:
    reprocessed = await done(database)
    await reprocess(database, reprocessed)
    unfinished = [await record(database) for record in UNFINISHED] + [reprocessed]
    removed = [await record(database) for record in FINISHED]
    before = [await row(database, image_id) for image_id in unfinished]
    keys = await remove(database, *unfinished, *removed, only_finished=True)
    assert {original_key(image_id) for image_id in removed} <= keys
    assert [await row(database, image_id) for image_id in unfinished] == before
    for image_id in removed:
        assert await is_gone(database, image_id)


@pytest.mark.parametrize("change", CLAIM_CHANGES)
async def test_removal_ends_a_claim(database: Database, change: str) -> None:
    claim = await claimed(database, await queued(database))
    keys = await remove(database, claim.image_id)
    assert not await in_transaction(database, lambda r: CLAIM_CHANGES[change](r, claim))
    assert await is_gone(database, claim.image_id)
    assert set(await removals(database)) == keys


async def test_removed_image_is_not_claimed_queued_or_reprocessed(database: Database) -> None:
    image_id = await done(database)
    await remove(database, image_id)
    assert await try_claim(database, image_id) is None
    assert not await mark_queued(database, image_id)
    assert await reprocess(database, image_id) == set()
    assert await remove_originals(database, image_id) == set()


async def test_replaced_thumbnails_keep_their_due_time_when_the_image_is_removed(database: Database) -> None:
    first = await finished(database, Status.DONE)
    await reprocess(database, first.image_id)
    second = await claimed(database, first.image_id)
    await complete(database, second)
    assert await remove(database, first.image_id) == {original_key(first.image_id), thumbnail(second).key}
    removed = await removals(database)
    assert due_when_superseded(removed.pop(thumbnail(first).key))
    assert set(removed) == {original_key(first.image_id), thumbnail(second).key}
    assert all(map(due_now, removed.values()))


async def test_failed_removal_changes_nothing(database: Database) -> None:
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


async def test_one_of_concurrent_removals_finds_the_image(database: Database) -> None:
    image_id = await done(database)
    outcome = await concurrently(database, *[lambda r: r.images.remove([image_id])] * 6)
    assert sorted(map(len, outcome)) == [0] * 5 + [2]
    assert len(await removals(database)) == 2


async def test_removal_concurrent_with_completion_leaves_no_rows_and_no_unrecorded_files(
    database: Database,
) -> None:
    for _ in range(4):
        claim = await claimed(database, await queued(database))
        completed, keys = await both(
            database,
            lambda r, c=claim: r.claims.complete(c, rendered(thumbnail(c)), superseded_for=SUPERSEDED_FOR),
            lambda r, c=claim: r.images.remove([c.image_id]),
        )
        assert await is_gone(database, claim.image_id)
        expected = {original_key(claim.image_id)} | ({thumbnail(claim).key} if completed else set())
        assert set(keys) == expected
        assert expected <= set(await removals(database))


async def both(database: Database, *queries: Callable[..., Awaitable[Any]]) -> list[Any]:
    """Run two queries of different result types concurrently."""
    return await concurrently(database, *queries)


async def waits_for_a_lock(database: Database) -> bool:
    """Whether a transaction waits for a row that another has changed."""
    statement = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')")
    async with database.transaction() as repositories:
        return bool((await repositories.connection.execute(statement)).scalar())


async def test_removal_waits_for_an_uncommitted_completion(postgresql: Database) -> None:
    claim = await claimed(postgresql, await queued(postgresql))
    async with postgresql.transaction() as repositories:
        result = rendered(thumbnail(claim))
        assert await repositories.claims.complete(claim, result, superseded_for=SUPERSEDED_FOR)
        removing = asyncio.create_task(remove(postgresql, claim.image_id))
        await eventually(lambda: waits_for_a_lock(postgresql))
    assert await removing == {original_key(claim.image_id), thumbnail(claim).key}
    assert await is_gone(postgresql, claim.image_id)


async def test_completion_waits_for_an_uncommitted_removal_and_has_lost_its_claim(postgresql: Database) -> None:
    claim = await claimed(postgresql, await queued(postgresql))
    async with postgresql.transaction() as repositories:
        assert await repositories.images.remove([claim.image_id]) == [original_key(claim.image_id)]
        completing = asyncio.create_task(complete(postgresql, claim))
        await eventually(lambda: waits_for_a_lock(postgresql))
    assert not await completing
    assert await is_gone(postgresql, claim.image_id)
    assert set(await removals(postgresql)) == {original_key(claim.image_id)}


async def test_removal_of_finished_images_waits_for_an_uncommitted_reprocess(postgresql: Database) -> None:
    image_id = await done(postgresql)
    async with postgresql.transaction() as repositories:
        assert await repositories.images.reprocess([image_id], due_in=60)
        removing = asyncio.create_task(remove(postgresql, image_id, only_finished=True))
        await eventually(lambda: waits_for_a_lock(postgresql))
    assert await removing == set()
    assert await status_of(postgresql, image_id) is Status.NEW
    assert await removals(postgresql) == {}


@pytest.mark.parametrize("record", FINISHED)
async def test_removing_an_original_keeps_the_image_and_its_thumbnails(database: Database, record: RecordImage) -> None:
    image_id, neighbour = await record(database), await record(database)
    before, other = await row(database, image_id), await row(database, neighbour)
    assert await remove_originals(database, image_id, uuid4()) == {original_key(image_id)}
    after = await row(database, image_id)
    assert close_to(after["original_removed_at"], after["updated_at"])
    changed = {"original_removed_at", "updated_at"}
    assert {key: after[key] for key in after.keys() - changed} == {key: before[key] for key in before.keys() - changed}
    assert (await image(database, image_id)).original_removed_at == after["original_removed_at"]
    removed = await removals(database)
    assert set(removed) == {original_key(image_id)}
    assert all(map(due_now, removed.values()))
    assert await row(database, neighbour) == other
    assert await remove_originals(database, image_id) == set()
    assert await row(database, image_id) == after


@pytest.mark.parametrize("record", UNFINISHED)
async def test_original_of_an_unfinished_image_is_not_removed(database: Database, record: RecordImage) -> None:
    image_id = await record(database)
    before = await row(database, image_id)
    assert await remove_originals(database, image_id) == set()
    assert await row(database, image_id) == before
    assert await removals(database) == {}


async def test_concurrent_reprocess_and_removal_of_the_original_exclude_each_other(database: Database) -> None:
    for _ in range(4):
        image_id = await done(database)
        reprocessed, removed = await both(
            database,
            lambda r, i=image_id: r.images.reprocess([i], due_in=60),
            lambda r, i=image_id: r.images.remove_originals([i]),
        )
        assert (reprocessed, removed) in [({image_id}, []), (set(), [original_key(image_id)])]


async def test_due_removals_are_returned_longest_due_first_up_to_the_limit(database: Database) -> None:
    for key, due_in in (("b", -20.0), ("a", -30.0), ("d", 60.0), ("c", -10.0)):
        await in_transaction(database, lambda r, k=key, d=due_in: r.removals.add([k], due_in=d))  # type: ignore[misc]
    assert await in_transaction(database, lambda r: r.removals.due(limit=10)) == ["a", "b", "c"]
    assert await in_transaction(database, lambda r: r.removals.due(limit=2)) == ["a", "b"]
    assert await in_transaction(database, lambda r: r.removals.pending(["a", "d", "e"])) == {"a", "d"}
    await in_transaction(database, lambda r: r.removals.done(["a", "c", "e"]))
    assert await in_transaction(database, lambda r: r.removals.due(limit=10)) == ["b"]
    assert set(await removals(database)) == {"b", "d"}


async def test_file_recorded_twice_for_removal_keeps_its_first_due_time(database: Database) -> None:
    await in_transaction(database, lambda r: r.removals.add(["a"], due_in=60))
    await in_transaction(database, lambda r: r.removals.add(["b", "a"], due_in=-1))
    assert await in_transaction(database, lambda r: r.removals.due(limit=10)) == ["b"]
    assert set(await removals(database)) == {"a", "b"}


async def test_removals_accept_empty_lists(database: Database) -> None:
    await in_transaction(database, lambda r: r.removals.add([], due_in=0))
    await in_transaction(database, lambda r: r.removals.done([]))
    assert await in_transaction(database, lambda r: r.removals.pending([])) == set()
    assert await in_transaction(database, lambda r: r.removals.due(limit=10)) == []
