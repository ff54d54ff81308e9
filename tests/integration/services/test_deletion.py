"""Deleting images: whatever happens meanwhile or in between, nothing is left behind, and nothing else is touched."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from harness.fakes import LONG_TIMEOUT
from harness.service_harness import GRACE, ServiceHarness
from harness.waiting import eventually, wait_for
from image_service.database import Database
from image_service.database.clock import in_seconds
from image_service.domain.keys import original_key, thumbnail_key
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable, ImageNotFound, Outage, StorageUnavailable
from image_service.models import RemovalRow
from image_service.ports import Delivery
from image_service.services import deletion
from image_service.services.deletion import Deletion
from image_service.services.processing import Processing


async def leased(env: ServiceHarness) -> UUID:
    return (await env.claimed()).image_id


async def again(env: ServiceHarness) -> UUID:
    """An image that was DONE, and is to be rendered once more."""
    image_id = await env.done()
    await env.reprocess(image_id)
    return image_id


STATES: dict[str, Callable[[ServiceHarness], Awaitable[UUID]]] = {
    "new": ServiceHarness.new,
    "queued": ServiceHarness.queued,
    "leased": leased,
    "done": ServiceHarness.done,
    "failed": ServiceHarness.failed,
    "again": again,
}


async def nothing_is_left(env: ServiceHarness) -> None:
    assert await env.count() == 0
    assert await env.files() == set()
    assert await env.removals() == {}
    assert env.scratch() == []


async def time_comes(env: ServiceHarness) -> None:
    """Let every file that is to be removed have waited for long enough."""
    await env.ask(lambda r: r.connection.execute(update(RemovalRow).values(due_at=in_seconds(-1))))


@pytest.mark.parametrize("state", STATES)
async def test_an_image_is_deleted_with_its_files_in_every_state(env: ServiceHarness, state: str) -> None:
    image_id = await STATES[state](env)
    await env.deletion().delete(image_id)
    await nothing_is_left(env)
    with pytest.raises(ImageNotFound):
        await env.lookup().image(image_id)


async def test_its_neighbours_stay(env: ServiceHarness) -> None:
    neighbour = await env.done()
    files, row = await env.files(), await env.row(neighbour)
    await env.deletion().delete(await env.done())
    assert await env.files() == files
    assert await env.row(neighbour) == row


async def test_what_there_is_not_cannot_be_deleted(env: ServiceHarness) -> None:
    image_id = await env.done()
    await env.deletion().delete(image_id)
    for unknown in (image_id, uuid4()):
        with pytest.raises(ImageNotFound):
            await env.deletion().delete(unknown)
    await nothing_is_left(env)


async def test_of_many_who_delete_an_image_at_once_one_finds_it(env: ServiceHarness) -> None:
    image_id = await env.done()
    outcome = await asyncio.gather(
        *(env.deletion().delete(image_id) for _ in range(5)),
        return_exceptions=True,
    )
    assert outcome.count(None) == 1
    assert [type(each) for each in outcome].count(ImageNotFound) == 4
    await nothing_is_left(env)


async def test_the_row_goes_before_the_files(env: ServiceHarness) -> None:
    image_id = await env.done()
    seen: list[object] = []

    async def look(_: object) -> None:
        seen.append(await env.count())

    env.script.before("delete", look)
    await env.deletion().delete(image_id)
    assert env.script.done == ["remove", "delete", "removals.done"]
    assert seen == [0]


@pytest.mark.parametrize("failure", [("delete", StorageUnavailable), ("removals.done", DatabaseUnavailable)])
async def test_an_image_is_deleted_even_when_its_files_have_to_wait_for_the_end_of_an_outage(
    env: ServiceHarness, failure: tuple[str, type[Outage]]
) -> None:
    name, outage = failure
    image_id = await env.done()
    env.script.fail(name, [outage, outage])
    await env.deletion().delete(image_id)
    assert await env.count() == 0
    assert original_key(image_id) in await env.removals()
    with pytest.raises(outage):
        await env.deletion().run_once()
    assert await env.deletion().run_once() == 4
    await nothing_is_left(env)


async def test_while_the_database_is_away_nothing_is_deleted(env: ServiceHarness) -> None:
    image_id = await env.done()
    before = await env.files(), await env.row(image_id)
    env.script.fail("remove", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await env.deletion().delete(image_id)
    assert (await env.files(), await env.row(image_id)) == before
    await env.deletion().delete(image_id)
    await nothing_is_left(env)


async def test_when_the_reply_to_the_commit_is_lost_the_files_go_all_the_same(env: ServiceHarness) -> None:
    image_id = await env.done()
    env.script.lose_replies("remove", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await env.deletion().delete(image_id)
    with pytest.raises(ImageNotFound):
        await env.deletion().delete(image_id)
    assert await env.deletion().run_once() == 4
    await nothing_is_left(env)


async def test_what_was_killed_after_it_had_removed_the_files_is_finished_by_the_next_run(env: ServiceHarness) -> None:
    image_id = await env.done()
    keys = await env.ask(lambda r: r.images.remove([image_id]))
    await env.storage.delete(keys)
    assert await env.deletion().run_once() == 4
    await nothing_is_left(env)


def process(processing: Processing, image_id: UUID) -> asyncio.Task[None]:
    return asyncio.create_task(processing.process(Delivery(image_id=image_id)))


@pytest.mark.parametrize("state", ["queued", "again"])
async def test_an_image_that_is_deleted_while_it_is_rendered_leaves_nothing_behind(
    env: ServiceHarness, state: str
) -> None:
    image_id = await STATES[state](env)
    env.renderer.gate.clear()
    task = process(env.processing(), image_id)
    await eventually(lambda: env.renderer.running)
    await env.deletion().delete(image_id)
    env.renderer.gate.set()
    await task
    assert env.script.tried["adopt"] == 1, "the worker was too far to be stopped"
    await nothing_is_left(env)


async def test_a_worker_ends_a_rendering_whose_image_is_deleted(env: ServiceHarness) -> None:
    image_id = await env.queued()
    env.renderer.gate.clear()
    task = process(env.processing(heartbeat=0.02), image_id)
    await eventually(lambda: env.renderer.running)
    await env.deletion().delete(image_id)
    await wait_for(task, 10)
    assert env.renderer.cancelled == 1
    await nothing_is_left(env)


@pytest.mark.parametrize("moment", ["claim", "local_path", "render", "adopt", "complete"])
@pytest.mark.parametrize("state", ["queued", "again"])
async def test_at_whatever_moment_an_image_is_deleted_its_worker_leaves_nothing_behind(
    env: ServiceHarness, state: str, moment: str
) -> None:
    image_id = await STATES[state](env)
    env.script.before(moment, lambda *_: env.deletion().delete(image_id))
    await env.processing().process(Delivery(image_id=image_id))
    await nothing_is_left(env)


async def test_what_a_worker_is_killed_at_whose_image_was_deleted_is_swept(env: ServiceHarness) -> None:
    image_id = await env.queued()
    reached = asyncio.Event()

    async def die(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    env.script.before("complete", die)
    task = process(env.processing(), image_id)
    await reached.wait()
    await env.deletion().delete(image_id)
    task.cancel()
    await asyncio.wait({task})
    stored = await env.files()
    assert {thumbnail_key(image_id, 1, "100x100")} <= stored
    assert await env.sweep() == 0, "they may be somebody's who is about to record them"
    for key in stored:
        env.grow_old(key, GRACE + 60)
    assert await env.sweep() == len(stored)
    await nothing_is_left(env)


async def test_a_message_for_a_deleted_image_is_done_with(env: ServiceHarness) -> None:
    image_id = await env.queued()
    await env.deletion().delete(image_id)
    await env.processing().process(Delivery(image_id=image_id))
    assert env.script.tried["render"] == 0
    await nothing_is_left(env)


async def test_a_deleted_image_is_not_queued(env: ServiceHarness) -> None:
    image_id = await env.new()
    await env.time_passes(image_id, 3600)
    env.script.before("reserve_for_publish", lambda *_: env.deletion().delete(image_id))
    assert await env.reconciler().run_once() == 0
    assert env.queue.published == []
    await nothing_is_left(env)


async def test_thumbnails_that_were_replaced_go_when_their_time_has_come_and_not_before(env: ServiceHarness) -> None:
    image_id = await again(env)
    old = await env.files("thumbnails/")
    await env.render(image_id)
    new = await env.files("thumbnails/") - old
    assert set(await env.removals()) == old
    assert await env.deletion().run_once() == 0
    assert await env.files("thumbnails/") == old | new
    await time_comes(env)
    assert await env.deletion().run_once() == 3
    assert await env.files("thumbnails/") == new
    assert await env.removals() == {}
    assert await env.status(image_id) is Status.DONE


async def test_an_outage_in_the_middle_leaves_the_rest_to_the_next_run(
    env: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "_BATCH", 3)
    images = [await env.done() for _ in range(3)]
    await env.ask(lambda r: r.images.remove(images))
    batches = count(1)

    async def break_down(_: object) -> None:
        if next(batches) == 3:
            raise StorageUnavailable

    env.script.before("delete", break_down)
    with pytest.raises(StorageUnavailable):
        await env.deletion().run_once()
    assert len(await env.files()) == len(await env.removals()) == 6
    assert await env.deletion().run_once() == 6
    await nothing_is_left(env)


async def test_two_runs_at_once_do_each_other_no_harm(
    env: ServiceHarness, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "_BATCH", 3)
    images = [await env.done() for _ in range(4)]
    await env.ask(lambda r: r.images.remove(images))
    kept = await env.done()
    other = Database(database_url, time_limit=LONG_TIMEOUT)
    counts = await asyncio.gather(env.deletion().run_once(), Deletion(database=other, storage=env.storage).run_once())
    await other.close()
    assert sum(counts) >= 16
    assert await env.removals() == {}
    assert {original_key(kept)} | {each.key for each in (await env.image(kept)).thumbnails} == await env.files()


async def test_nothing_to_remove_is_fine(env: ServiceHarness) -> None:
    await env.done()
    before = await env.files()
    assert await env.deletion().run_once() == 0
    assert await env.files() == before
