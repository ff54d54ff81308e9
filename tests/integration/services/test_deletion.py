"""Deletion: leaves no files, whatever happens meanwhile, and deletes nothing else."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
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
from image_service.services.deletion import Deletion
from image_service.services.processing import Processing

STATES: dict[str, Callable[[ServiceHarness], Awaitable[UUID]]] = {
    "new": ServiceHarness.new,
    "queued": ServiceHarness.queued,
    "leased": ServiceHarness.leased,
    "done": ServiceHarness.done,
    "failed": ServiceHarness.failed,
    "renewed": ServiceHarness.renewed,
}


async def nothing_is_left(env: ServiceHarness) -> None:
    assert await env.count() == 0
    assert await env.files() == set()
    assert await env.removals() == {}
    assert env.scratch() == []


async def make_removals_due(env: ServiceHarness) -> None:
    """Make all removals due."""
    await env.ask(lambda r: r.connection.execute(update(RemovalRow).values(due_at=in_seconds(-1))))


@pytest.mark.parametrize("state", STATES)
async def test_an_image_is_deleted_with_its_files_in_every_state(env: ServiceHarness, state: str) -> None:
    image_id = await STATES[state](env)
    await env.deletion().delete(image_id)
    await nothing_is_left(env)
    with pytest.raises(ImageNotFound):
        await env.lookup().image(image_id)


async def test_other_images_stay(env: ServiceHarness) -> None:
    neighbour = await env.done()
    files, row = await env.files(), await env.row(neighbour)
    await env.deletion().delete(await env.done())
    assert await env.files() == files
    assert await env.row(neighbour) == row


async def test_deleting_an_unknown_image_raises_not_found(env: ServiceHarness) -> None:
    image_id = await env.done()
    await env.deletion().delete(image_id)
    for unknown in (image_id, uuid4()):
        with pytest.raises(ImageNotFound):
            await env.deletion().delete(unknown)
    await nothing_is_left(env)


async def test_concurrent_deletions_succeed_once(env: ServiceHarness) -> None:
    image_id = await env.done()
    outcome = await asyncio.gather(
        *(env.deletion().delete(image_id) for _ in range(5)),
        return_exceptions=True,
    )
    assert outcome.count(None) == 1
    assert [type(each) for each in outcome].count(ImageNotFound) == 4
    await nothing_is_left(env)


async def test_the_row_is_deleted_before_the_files(env: ServiceHarness) -> None:
    image_id = await env.done()
    seen: list[object] = []

    async def look(_: object) -> None:
        seen.append(await env.count())

    env.script.before("delete", look)
    await env.deletion().delete(image_id)
    assert env.script.done == ["remove", "delete", "removals.done"]
    assert seen == [0]


@pytest.mark.parametrize("failure", [("delete", StorageUnavailable), ("removals.done", DatabaseUnavailable)])
async def test_files_are_deleted_after_an_outage_of_the_storage_or_database(
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


async def test_without_the_database_nothing_is_deleted(env: ServiceHarness) -> None:
    image_id = await env.done()
    before = await env.files(), await env.row(image_id)
    env.script.fail("remove", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await env.deletion().delete(image_id)
    assert (await env.files(), await env.row(image_id)) == before
    await env.deletion().delete(image_id)
    await nothing_is_left(env)


async def test_files_are_deleted_although_the_reply_to_the_commit_was_lost(env: ServiceHarness) -> None:
    image_id = await env.done()
    env.script.lose_replies("remove", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await env.deletion().delete(image_id)
    with pytest.raises(ImageNotFound):
        await env.deletion().delete(image_id)
    assert await env.deletion().run_once() == 4
    await nothing_is_left(env)


async def test_the_next_run_completes_a_deletion_killed_after_the_files_were_deleted(env: ServiceHarness) -> None:
    image_id = await env.done()
    keys = await env.ask(lambda r: r.images.remove([image_id]))
    await env.storage.delete(keys)
    assert await env.deletion().run_once() == 4
    await nothing_is_left(env)


def process(processing: Processing, image_id: UUID) -> asyncio.Task[None]:
    return asyncio.create_task(processing.process(Delivery(image_id=image_id)))


@pytest.mark.parametrize("state", ["queued", "renewed"])
async def test_an_image_deleted_while_it_is_rendered_leaves_no_files(env: ServiceHarness, state: str) -> None:
    image_id = await STATES[state](env)
    env.renderer.gate.clear()
    task = process(env.processing(), image_id)
    await eventually(lambda: env.renderer.running)
    await env.deletion().delete(image_id)
    env.renderer.gate.set()
    await task
    assert env.script.tried["adopt"] == 1, "the worker does not notice before it has stored its files"
    await nothing_is_left(env)


async def test_a_worker_cancels_the_rendering_of_a_deleted_image(env: ServiceHarness) -> None:
    image_id = await env.queued()
    env.renderer.gate.clear()
    task = process(env.processing(heartbeat=0.02), image_id)
    await eventually(lambda: env.renderer.running)
    await env.deletion().delete(image_id)
    await wait_for(task, 10)
    assert env.renderer.cancelled == 1
    await nothing_is_left(env)


@pytest.mark.parametrize("moment", ["claim", "local_path", "render", "adopt", "complete"])
@pytest.mark.parametrize("state", ["queued", "renewed"])
async def test_an_image_deleted_at_any_step_of_its_attempt_leaves_no_files(
    env: ServiceHarness, state: str, moment: str
) -> None:
    image_id = await STATES[state](env)
    env.script.before(moment, lambda *_: env.deletion().delete(image_id))
    await env.processing().process(Delivery(image_id=image_id))
    await nothing_is_left(env)


async def test_files_of_a_worker_killed_after_the_deletion_are_swept(env: ServiceHarness) -> None:
    image_id = await env.queued()
    reached = asyncio.Event()

    async def hang(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    env.script.before("complete", hang)
    task = process(env.processing(), image_id)
    await reached.wait()
    await env.deletion().delete(image_id)
    task.cancel()
    await asyncio.wait({task})
    stored = await env.files()
    assert {thumbnail_key(image_id, 1, "100x100")} <= stored
    assert await env.sweep() == 0, "their attempt may still be recorded"
    for key in stored:
        env.grow_old(key, GRACE + 60)
    assert await env.sweep() == len(stored)
    await nothing_is_left(env)


async def test_a_message_for_a_deleted_image_is_acknowledged(env: ServiceHarness) -> None:
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


async def test_replaced_thumbnails_are_deleted_when_they_are_due(env: ServiceHarness) -> None:
    image_id = await env.renewed()
    old = await env.files("thumbnails/")
    await env.render(image_id)
    new = await env.files("thumbnails/") - old
    assert set(await env.removals()) == old
    assert await env.deletion().run_once() == 0
    assert await env.files("thumbnails/") == old | new
    await make_removals_due(env)
    assert await env.deletion().run_once() == 3
    assert await env.files("thumbnails/") == new
    assert await env.removals() == {}
    assert await env.status(image_id) is Status.DONE


async def test_after_an_outage_the_next_run_deletes_the_rest(env: ServiceHarness) -> None:
    images = [await env.done() for _ in range(3)]
    await env.ask(lambda r: r.images.remove(images))
    batches = count(1)

    async def fail_third_batch(_: object) -> None:
        if next(batches) == 3:
            raise StorageUnavailable

    env.script.before("delete", fail_third_batch)
    with pytest.raises(StorageUnavailable):
        await env.deletion(batch=3).run_once()
    assert len(await env.files()) == len(await env.removals()) == 6
    assert await env.deletion().run_once() == 6
    await nothing_is_left(env)


async def test_concurrent_runs_delete_all_due_files(env: ServiceHarness, database_url: str) -> None:
    images = [await env.done() for _ in range(4)]
    await env.ask(lambda r: r.images.remove(images))
    kept = await env.done()
    other = Database(database_url, time_limit=LONG_TIMEOUT)
    runs = env.deletion(batch=3), Deletion(database=other, storage=env.storage, batch=3)
    counts = await asyncio.gather(*(run.run_once() for run in runs))
    await other.close()
    assert sum(counts) >= 16
    assert await env.removals() == {}
    assert {original_key(kept)} | {each.key for each in (await env.image(kept)).thumbnails} == await env.files()


async def test_a_run_without_due_files_deletes_nothing(env: ServiceHarness) -> None:
    await env.done()
    before = await env.files()
    assert await env.deletion().run_once() == 0
    assert await env.files() == before


@pytest.mark.parametrize("failure", [StorageUnavailable, ValueError])
async def test_a_file_that_cannot_be_deleted_does_not_keep_the_others(
    env: ServiceHarness, failure: type[Exception]
) -> None:
    images = [await env.done() for _ in range(3)]
    await env.ask(lambda r: r.images.remove(images))
    bad = original_key(images[0])

    async def fail_for_one(keys: Iterable[str]) -> None:
        if bad in keys:
            raise failure

    env.script.before("delete", fail_for_one)
    deletion = env.deletion(batch=3)
    with pytest.raises(failure):
        await deletion.run_once()
    await deletion.run_once()
    assert await env.files() == {bad}
    assert set(await env.removals()) == {bad}
    assert await deletion.run_once() == 0


async def test_a_file_that_cannot_be_deleted_is_tried_again_with_growing_delays(env: ServiceHarness) -> None:
    image_id = await env.done()
    await env.ask(lambda r: r.images.remove([image_id]))

    async def fail(keys: Iterable[str]) -> None:
        if original_key(image_id) in keys:
            raise StorageUnavailable

    env.script.before("delete", fail)
    deletion = env.deletion()
    delays = []
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            await deletion.run_once()
        await deletion.run_once()
        delays.append((await env.removals())[original_key(image_id)])
        await make_removals_due(env)
    assert delays == pytest.approx([60, 120, 240], abs=30)
    env.script.before("delete", _pass)
    assert await deletion.run_once() == 1
    await nothing_is_left(env)


async def _pass(_: object) -> None:
    pass
