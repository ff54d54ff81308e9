"""The sweeper: deletes old files without a row, and nothing else."""

from collections.abc import Callable, Iterable
from itertools import count
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, insert, update

from harness.fakes import TRAITS
from harness.service_harness import GRACE, SUPERSEDED_FOR, ServiceHarness
from image_service.domain.image import Claim, Result, Thumbnail
from image_service.domain.keys import original_key, thumbnail_key
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable, ForeignStorage, StorageUnavailable
from image_service.models import IdentityRow, ImageRow
from image_service.ports import Delivery

OLD = GRACE + 60
YOUNG = GRACE - 60


def own_thumbnail(image_id: UUID, attempt: int) -> str:
    return thumbnail_key(image_id, attempt, "100x100")


async def complete(env: ServiceHarness, claim: Claim) -> None:
    """Complete an attempt as another worker."""
    made = Thumbnail(
        output="100x100",
        key=own_thumbnail(claim.image_id, claim.attempt),
        content_type="image/jpeg",
        width=75,
        height=100,
        size_bytes=1,
        sha256="cd" * 32,
    )
    result = Result(width=480, height=640, thumbnails=(made,), traits=TRAITS, recipe=DEFAULT_RECIPE.fingerprint)
    assert await env.ask(lambda r: r.claims.complete(claim, result, superseded_for=SUPERSEDED_FOR))


async def put_thumbnail(env: ServiceHarness, image_id: UUID, attempt: int, age: float = OLD) -> str:
    key = own_thumbnail(image_id, attempt)
    await env.put(key, age=age)
    return key


@pytest.mark.parametrize("key", [original_key, lambda image_id: own_thumbnail(image_id, 1)])
async def test_an_old_file_without_a_row_is_deleted(env: ServiceHarness, key: Callable[[UUID], str]) -> None:
    old, young = key(uuid4()), key(uuid4())
    await env.put(old, age=OLD)
    await env.put(young, age=YOUNG)
    assert await env.sweep() == 1
    assert await env.files() == {young}


async def test_an_orphan_is_deleted_only_after_the_whole_grace(env: ServiceHarness) -> None:
    orphan, late = original_key(uuid4()), original_key(uuid4())
    await env.put(orphan, age=OLD)
    times = iter([0.0, GRACE - 1, GRACE, 2 * GRACE - 1])
    sweeper = env.sweeper(times.__next__)
    assert [await sweeper.run_once() for _ in range(2)] == [0, 0]
    await env.put(late, age=OLD)
    assert await sweeper.run_once() == 1
    assert await env.files() == {late}
    assert await sweeper.run_once() == 0


async def test_a_clock_jump_does_not_delete_the_file_of_an_upload(env: ServiceHarness) -> None:
    """The file seems old, but its row follows."""
    image_id = await env.new()
    row = await env.row(image_id)
    env.grow_old(original_key(image_id), OLD)
    await env.ask(lambda r: r.connection.execute(delete(ImageRow)))
    times = iter([0.0, GRACE, 2 * GRACE])
    sweeper = env.sweeper(times.__next__)
    assert await sweeper.run_once() == 0
    await env.ask(lambda r: r.connection.execute(insert(ImageRow).values(row)))
    assert await sweeper.run_once() == 0
    await env.ask(lambda r: r.connection.execute(delete(ImageRow)))
    assert await sweeper.run_once() == 0, "its grace begins when it is seen without a row"
    assert await env.files() == {original_key(image_id)}


async def test_an_old_scratch_directory_is_deleted(sqlite_env: ServiceHarness) -> None:
    async with sqlite_env.storage.scratch() as old, sqlite_env.storage.scratch() as young:
        for folder, age in ((old, OLD), (young, YOUNG)):
            (folder / "file").write_bytes(b"x")
            sqlite_env.grow_old(f"scratch/{folder.name}/file", age)
            sqlite_env.grow_old(f"scratch/{folder.name}", age)
        assert await sqlite_env.sweep() == 1
        assert sqlite_env.scratch() == [young]


async def test_recorded_originals_stay_in_every_state(env: ServiceHarness) -> None:
    new, done = await env.new(), await env.queued()
    held, failed = await env.claimed(), await env.claimed()
    await env.processing().process(Delivery(image_id=done))
    await env.fail(failed)
    images = [new, held.image_id, done, failed.image_id]
    assert {await env.status(image_id) for image_id in images} == set(Status)
    for name in await env.files():
        env.grow_old(name, OLD)
    before = await env.files()
    assert await env.sweep() == 0
    assert await env.files() == before
    assert {original_key(image_id) for image_id in images} <= before


async def test_only_the_files_of_the_successful_attempt_stay(env: ServiceHarness) -> None:
    claim = await env.claimed()
    await env.time_passes(claim.image_id, 3600)
    winner = await env.claim(claim.image_id)
    stale = await put_thumbnail(env, claim.image_id, claim.attempt)
    recorded = await put_thumbnail(env, claim.image_id, winner.attempt)
    await complete(env, winner)
    assert await env.sweep() == 1
    assert recorded in await env.files()
    assert stale not in await env.files()


async def test_old_files_of_the_current_attempt_stay_and_of_earlier_attempts_are_deleted(env: ServiceHarness) -> None:
    claim = await env.claimed()
    await env.time_passes(claim.image_id, 3600)
    current = await env.claim(claim.image_id)
    earlier = await put_thumbnail(env, claim.image_id, claim.attempt)
    fresh = await put_thumbnail(env, claim.image_id, current.attempt)
    assert await env.sweep() == 1
    assert await env.files("thumbnails/") == {fresh}
    assert earlier != fresh


async def test_thumbnails_of_a_failed_image_are_deleted(env: ServiceHarness) -> None:
    claim = await env.claimed()
    await put_thumbnail(env, claim.image_id, claim.attempt)
    await env.fail(claim)
    assert await env.sweep() == 1
    assert await env.files() == {original_key(claim.image_id)}


async def test_an_attempt_that_ends_during_the_sweep_keeps_its_files(env: ServiceHarness) -> None:
    claim = await env.claimed()
    key = await put_thumbnail(env, claim.image_id, claim.attempt)
    calls = count(1)

    async def complete_before_second(_: object) -> None:
        if next(calls) == 2:
            await complete(env, claim)

    for name in ("attempts_in_progress", "thumbnail_keys"):
        env.script.before(name, complete_before_second)
    assert await env.sweep() == 0
    assert await env.status(claim.image_id) is Status.DONE
    assert key in await env.files()


async def test_files_of_a_deleted_image_are_left_to_the_deletion(env: ServiceHarness) -> None:
    image_id = await env.done()
    before = await env.files()
    await env.ask(lambda r: r.images.remove([image_id]))
    for key in before:
        env.grow_old(key, OLD)
    assert await env.sweep() == 0
    assert await env.files() == before


@pytest.mark.parametrize("query", ["attempts_in_progress", "thumbnail_keys", "removals.pending"])
async def test_thumbnails_replaced_during_the_sweep_are_no_orphans(env: ServiceHarness, query: str) -> None:
    image_id = await env.done()
    await env.reprocess(image_id)
    for key in await env.files():
        env.grow_old(key, OLD)
    calls = count(1)

    async def replace(_: object) -> None:
        # Pending removals are queried for originals first.
        if next(calls) == (2 if query == "removals.pending" else 1):
            await env.render(image_id)

    env.script.before(query, replace)
    assert [keys async for keys in env.sweeper().orphans() if keys] == []
    assert await env.status(image_id) is Status.DONE
    assert len(await env.removals()) == 3


async def test_foreign_files_are_ignored(sqlite_env: ServiceHarness) -> None:
    image_id = uuid4()
    wrong_shard = "00" if image_id.hex[-2:] != "00" else "01"
    foreign = {
        "readme.txt",
        "backup/7f/file",
        "originals/readme.txt",
        f"originals/{image_id}",
        f"originals/{wrong_shard}/{image_id}",
        f"{original_key(image_id)}.bak",
        "thumbnails/readme.txt",
        f"thumbnails/{wrong_shard}/{image_id}.1.100x100",
        f"thumbnails/{image_id.hex[-2:]}/{image_id}.first.100x100",
        f"thumbnails/{image_id.hex[-2:]}/{image_id}.1",
    }
    for name in foreign:
        await sqlite_env.put(name, age=OLD)
    assert await sqlite_env.sweep() == 0
    assert await sqlite_env.files() == foreign


async def test_exactly_the_orphans_are_deleted_across_batches(env: ServiceHarness) -> None:
    recorded = {original_key(await env.new()) for _ in range(4)}
    for key in recorded:
        env.grow_old(key, OLD)
    for _ in range(7):
        await env.put(original_key(uuid4()), age=OLD)
        await put_thumbnail(env, uuid4(), 1)
    assert await env.sweep(batch=3) == 14
    assert await env.files() == recorded


@pytest.mark.parametrize("query", ["existing", "attempts_in_progress", "thumbnail_keys"])
async def test_without_the_database_nothing_is_swept(sqlite_env: ServiceHarness, query: str) -> None:
    image_id = await sqlite_env.new()
    sqlite_env.grow_old(original_key(image_id), OLD)
    await put_thumbnail(sqlite_env, image_id, 1)
    before = await sqlite_env.files()
    sqlite_env.script.fail(query, [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await sqlite_env.sweep()
    assert await sqlite_env.files() == before


async def test_the_storage_of_another_database_is_not_swept(env: ServiceHarness) -> None:
    orphan = original_key(uuid4())
    await env.put(orphan, age=OLD)
    await env.ask(lambda r: r.connection.execute(update(IdentityRow).values(id=uuid4())))
    assert await env.sweep() == 0
    with pytest.raises(ForeignStorage):
        _ = [keys async for keys in env.sweeper().orphans()]
    (env.folder / ".owner").unlink()
    assert await env.sweep() == 0, "nor is one that no API has used"
    assert await env.files() == {orphan}


async def test_an_empty_storage_has_nothing_to_sweep(sqlite_env: ServiceHarness) -> None:
    assert await sqlite_env.sweep() == 0
    assert await sqlite_env.files() == set()


async def test_an_orphan_that_cannot_be_deleted_does_not_keep_the_others(env: ServiceHarness) -> None:
    keys = [original_key(uuid4()) for _ in range(4)]
    for key in keys:
        await env.put(key, age=OLD)
    bad = keys[0]

    async def fail_for_one(keys: Iterable[str]) -> None:
        if bad in keys:
            raise StorageUnavailable

    env.script.before("delete", fail_for_one)
    sweeper = env.sweeper(count(0.0, GRACE).__next__)
    assert await sweeper.run_once() == 0
    with pytest.raises(StorageUnavailable):
        await sweeper.run_once()
    assert await sweeper.run_once() == 3
    assert await env.files() == {bad}
