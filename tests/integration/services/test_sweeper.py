"""The sweeper: files that no row names go once they are old, and nothing else ever does."""

from collections.abc import Callable
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
from image_service.errors import DatabaseUnavailable, ForeignStorage
from image_service.models import IdentityRow, ImageRow
from image_service.ports import Delivery

OLD = GRACE + 60
YOUNG = GRACE - 60


def own_thumbnail(image_id: UUID, attempt: int) -> str:
    return thumbnail_key(image_id, attempt, "100x100")


async def complete(env: ServiceHarness, claim: Claim) -> None:
    """What another worker does at the end of its attempt."""
    made = Thumbnail(
        preset="100x100",
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
async def test_a_file_without_a_row_goes_once_it_is_old(env: ServiceHarness, key: Callable[[UUID], str]) -> None:
    old, young = key(uuid4()), key(uuid4())
    await env.put(old, age=OLD)
    await env.put(young, age=YOUNG)
    assert await env.sweep() == 1
    assert await env.files() == {young}


async def test_a_file_is_an_orphan_once_it_was_seen_as_one_for_the_whole_grace(env: ServiceHarness) -> None:
    orphan, late = original_key(uuid4()), original_key(uuid4())
    await env.put(orphan, age=OLD)
    times = iter([0.0, GRACE - 1, GRACE, 2 * GRACE - 1])
    sweeper = env.sweeper(times.__next__)
    assert [await sweeper.run_once() for _ in range(2)] == [0, 0]
    await env.put(late, age=OLD)
    assert await sweeper.run_once() == 1
    assert await env.files() == {late}
    assert await sweeper.run_once() == 0


async def test_a_clock_that_is_put_forward_costs_no_upload_its_file(env: ServiceHarness) -> None:
    """Whatever makes a file look old: it is on its way to a row, and gets there."""
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
    assert await sweeper.run_once() == 0, "it counts anew from when it lost its row"
    assert await env.files() == {original_key(image_id)}


async def test_a_scratch_folder_goes_once_it_is_old(sqlite_env: ServiceHarness) -> None:
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


async def test_of_an_image_that_is_done_only_the_files_of_the_attempt_that_won_stay(env: ServiceHarness) -> None:
    claim = await env.claimed()
    await env.time_passes(claim.image_id, 3600)
    winner = await env.claim(claim.image_id)
    stale = await put_thumbnail(env, claim.image_id, claim.attempt)
    recorded = await put_thumbnail(env, claim.image_id, winner.attempt)
    await complete(env, winner)
    assert await env.sweep() == 1
    assert recorded in await env.files()
    assert stale not in await env.files()


async def test_the_files_of_an_attempt_in_progress_stay_however_old_and_those_before_it_go(env: ServiceHarness) -> None:
    claim = await env.claimed()
    await env.time_passes(claim.image_id, 3600)
    current = await env.claim(claim.image_id)
    earlier = await put_thumbnail(env, claim.image_id, claim.attempt)
    fresh = await put_thumbnail(env, claim.image_id, current.attempt)
    assert await env.sweep() == 1
    assert await env.files("thumbnails/") == {fresh}
    assert earlier != fresh


async def test_thumbnails_of_an_image_that_failed_go(env: ServiceHarness) -> None:
    claim = await env.claimed()
    await put_thumbnail(env, claim.image_id, claim.attempt)
    await env.fail(claim)
    assert await env.sweep() == 1
    assert await env.files() == {original_key(claim.image_id)}


async def test_an_attempt_that_ends_while_the_sweeper_asks_keeps_its_files(env: ServiceHarness) -> None:
    claim = await env.claimed()
    key = await put_thumbnail(env, claim.image_id, claim.attempt)
    questions = count(1)

    async def complete_before_the_second(_: object) -> None:
        if next(questions) == 2:
            await complete(env, claim)

    for name in ("attempts_in_progress", "thumbnail_keys"):
        env.script.before(name, complete_before_the_second)
    assert await env.sweep() == 0
    assert await env.status(claim.image_id) is Status.DONE
    assert key in await env.files()


async def test_the_files_of_a_deleted_image_are_left_to_those_who_remove_them(env: ServiceHarness) -> None:
    image_id = await env.done()
    before = await env.files()
    await env.ask(lambda r: r.images.remove([image_id]))
    for key in before:
        env.grow_old(key, OLD)
    assert await env.sweep() == 0
    assert await env.files() == before


@pytest.mark.parametrize("question", ["attempts_in_progress", "thumbnail_keys", "removals.pending"])
async def test_thumbnails_that_are_replaced_while_the_sweeper_asks_are_nobodys_orphans(
    env: ServiceHarness, question: str
) -> None:
    image_id = await env.done()
    await env.reprocess(image_id)
    for key in await env.files():
        env.grow_old(key, OLD)
    questions = count(1)

    async def replace(_: object) -> None:
        # Whether a file is about to be removed is asked of originals first.
        if next(questions) == (2 if question == "removals.pending" else 1):
            await env.render(image_id)

    env.script.before(question, replace)
    assert [keys async for keys in env.sweeper().orphans() if keys] == []
    assert await env.status(image_id) is Status.DONE
    assert len(await env.removals()) == 3


async def test_files_that_are_not_ours_are_left_alone(sqlite_env: ServiceHarness) -> None:
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


async def test_however_many_they_are_exactly_the_orphans_go(env: ServiceHarness) -> None:
    recorded = {original_key(await env.new()) for _ in range(4)}
    for key in recorded:
        env.grow_old(key, OLD)
    for _ in range(7):
        await env.put(original_key(uuid4()), age=OLD)
        await put_thumbnail(env, uuid4(), 1)
    assert await env.sweep(batch=3) == 14
    assert await env.files() == recorded


@pytest.mark.parametrize("question", ["existing", "attempts_in_progress", "thumbnail_keys"])
async def test_while_the_database_is_away_nothing_is_removed_that_it_was_not_asked_about(
    sqlite_env: ServiceHarness, question: str
) -> None:
    image_id = await sqlite_env.new()
    sqlite_env.grow_old(original_key(image_id), OLD)
    await put_thumbnail(sqlite_env, image_id, 1)
    before = await sqlite_env.files()
    sqlite_env.script.fail(question, [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await sqlite_env.sweep()
    assert await sqlite_env.files() == before


async def test_a_database_that_does_not_know_the_files_removes_none_of_them(env: ServiceHarness) -> None:
    orphan = original_key(uuid4())
    await env.put(orphan, age=OLD)
    assert await env.sweeper().run_once() == 0, "from now on they belong together"
    await env.ask(lambda r: r.connection.execute(update(IdentityRow).values(id=uuid4())))
    assert await env.sweep() == 0
    with pytest.raises(ForeignStorage):
        _ = [keys async for keys in env.sweeper().orphans()]
    assert await env.files() == {orphan}


async def test_an_empty_storage_has_nothing_to_sweep(sqlite_env: ServiceHarness) -> None:
    assert await sqlite_env.sweep() == 0
    assert await sqlite_env.files() == set()
