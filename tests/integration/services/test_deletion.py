"""Deleting images: whatever happens meanwhile or in between, nothing is left behind, and nothing else is touched."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

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
from tests.support.fakes import PATIENT
from tests.support.stage import GRACE, Stage
from tests.support.waiting import eventually


async def leased(stage: Stage) -> UUID:
    return (await stage.claimed()).image_id


async def again(stage: Stage) -> UUID:
    """An image that was DONE, and is to be rendered once more."""
    image_id = await stage.done()
    await stage.reprocess(image_id)
    return image_id


STATES: dict[str, Callable[[Stage], Awaitable[UUID]]] = {
    "new": Stage.new,
    "queued": Stage.queued,
    "leased": leased,
    "done": Stage.done,
    "failed": Stage.failed,
    "again": again,
}


async def nothing_is_left(stage: Stage) -> None:
    assert await stage.count() == 0
    assert await stage.files() == set()
    assert await stage.removals() == {}
    assert stage.scratch() == []


async def time_comes(stage: Stage) -> None:
    """Let every file that is to be removed have waited for long enough."""
    await stage.ask(lambda r: r.images._connection.execute(update(RemovalRow).values(due_at=in_seconds(-1))))


@pytest.mark.parametrize("state", STATES)
async def test_an_image_is_deleted_with_its_files_in_every_state(stage: Stage, state: str) -> None:
    image_id = await STATES[state](stage)
    await stage.deletion().delete(image_id)
    await nothing_is_left(stage)
    with pytest.raises(ImageNotFound):
        await stage.lookup().image(image_id)


async def test_its_neighbours_stay(stage: Stage) -> None:
    neighbour = await stage.done()
    files, row = await stage.files(), await stage.row(neighbour)
    await stage.deletion().delete(await stage.done())
    assert await stage.files() == files
    assert await stage.row(neighbour) == row


async def test_what_there_is_not_cannot_be_deleted(stage: Stage) -> None:
    image_id = await stage.done()
    await stage.deletion().delete(image_id)
    for unknown in (image_id, uuid4()):
        with pytest.raises(ImageNotFound):
            await stage.deletion().delete(unknown)
    await nothing_is_left(stage)


async def test_of_many_who_delete_an_image_at_once_one_finds_it(stage: Stage) -> None:
    image_id = await stage.done()
    outcome = await asyncio.gather(
        *(stage.deletion().delete(image_id) for _ in range(5)),
        return_exceptions=True,
    )
    assert outcome.count(None) == 1
    assert [type(each) for each in outcome].count(ImageNotFound) == 4
    await nothing_is_left(stage)


async def test_the_row_goes_before_the_files(stage: Stage) -> None:
    image_id = await stage.done()
    seen: list[object] = []

    async def look(_: object) -> None:
        seen.append(await stage.count())

    stage.script.before("delete", look)
    await stage.deletion().delete(image_id)
    assert stage.script.done == ["remove", "delete", "removals.done"]
    assert seen == [0]


@pytest.mark.parametrize("failure", [("delete", StorageUnavailable), ("removals.done", DatabaseUnavailable)])
async def test_an_image_is_deleted_even_when_its_files_have_to_wait_for_the_end_of_an_outage(
    stage: Stage, failure: tuple[str, type[Outage]]
) -> None:
    name, outage = failure
    image_id = await stage.done()
    stage.script.fail(name, [outage, outage])
    await stage.deletion().delete(image_id)
    assert await stage.count() == 0
    assert original_key(image_id) in await stage.removals()
    with pytest.raises(outage):
        await stage.deletion().run_once()
    assert await stage.deletion().run_once() == 4
    await nothing_is_left(stage)


async def test_while_the_database_is_away_nothing_is_deleted(stage: Stage) -> None:
    image_id = await stage.done()
    before = await stage.files(), await stage.row(image_id)
    stage.script.fail("remove", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await stage.deletion().delete(image_id)
    assert (await stage.files(), await stage.row(image_id)) == before
    await stage.deletion().delete(image_id)
    await nothing_is_left(stage)


async def test_when_the_reply_to_the_commit_is_lost_the_files_go_all_the_same(stage: Stage) -> None:
    image_id = await stage.done()
    stage.script.lose_replies("remove", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await stage.deletion().delete(image_id)
    with pytest.raises(ImageNotFound):
        await stage.deletion().delete(image_id)
    assert await stage.deletion().run_once() == 4
    await nothing_is_left(stage)


async def test_what_was_killed_after_it_had_removed_the_files_is_finished_by_the_next_run(stage: Stage) -> None:
    image_id = await stage.done()
    keys = await stage.ask(lambda r: r.images.remove([image_id]))
    await stage.storage.delete(keys)
    assert await stage.deletion().run_once() == 4
    await nothing_is_left(stage)


def process(processing: Processing, image_id: UUID) -> asyncio.Task[None]:
    return asyncio.create_task(processing.process(Delivery(image_id=image_id)))


@pytest.mark.parametrize("state", ["queued", "again"])
async def test_an_image_that_is_deleted_while_it_is_rendered_leaves_nothing_behind(stage: Stage, state: str) -> None:
    image_id = await STATES[state](stage)
    stage.renderer.gate.clear()
    task = process(stage.processing(), image_id)
    await eventually(lambda: stage.renderer.running)
    await stage.deletion().delete(image_id)
    stage.renderer.gate.set()
    await task
    assert stage.script.tried["adopt"] == 1, "the worker was too far to be stopped"
    await nothing_is_left(stage)


async def test_a_worker_ends_a_rendering_whose_image_is_deleted(stage: Stage) -> None:
    image_id = await stage.queued()
    stage.renderer.gate.clear()
    task = process(stage.processing(heartbeat=0.02), image_id)
    await eventually(lambda: stage.renderer.running)
    await stage.deletion().delete(image_id)
    await asyncio.wait_for(task, 10)
    assert stage.renderer.cancelled == 1
    await nothing_is_left(stage)


@pytest.mark.parametrize("moment", ["claim", "local_path", "render", "adopt", "complete"])
@pytest.mark.parametrize("state", ["queued", "again"])
async def test_at_whatever_moment_an_image_is_deleted_its_worker_leaves_nothing_behind(
    stage: Stage, state: str, moment: str
) -> None:
    image_id = await STATES[state](stage)
    stage.script.before(moment, lambda *_: stage.deletion().delete(image_id))
    await stage.processing().process(Delivery(image_id=image_id))
    await nothing_is_left(stage)


async def test_what_a_worker_is_killed_at_whose_image_was_deleted_is_swept(stage: Stage) -> None:
    image_id = await stage.queued()
    reached = asyncio.Event()

    async def die(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    stage.script.before("complete", die)
    task = process(stage.processing(), image_id)
    await reached.wait()
    await stage.deletion().delete(image_id)
    task.cancel()
    await asyncio.wait({task})
    stored = await stage.files()
    assert {thumbnail_key(image_id, 1, "100x100")} <= stored
    assert await stage.sweep() == 0, "they may be somebody's who is about to record them"
    for key in stored:
        stage.grow_old(key, GRACE + 60)
    assert await stage.sweep() == len(stored)
    await nothing_is_left(stage)


async def test_a_message_for_a_deleted_image_is_done_with(stage: Stage) -> None:
    image_id = await stage.queued()
    await stage.deletion().delete(image_id)
    await stage.processing().process(Delivery(image_id=image_id))
    assert stage.script.tried["render"] == 0
    await nothing_is_left(stage)


async def test_a_deleted_image_is_not_queued(stage: Stage) -> None:
    image_id = await stage.new()
    await stage.time_passes(image_id, 3600)
    stage.script.before("take_for_publishing", lambda *_: stage.deletion().delete(image_id))
    assert await stage.reconciler().run_once() == 0
    assert stage.queue.published == []
    await nothing_is_left(stage)


async def test_thumbnails_that_were_replaced_go_when_their_time_has_come_and_not_before(stage: Stage) -> None:
    image_id = await again(stage)
    old = await stage.files("thumbnails/")
    await stage.render(image_id)
    new = await stage.files("thumbnails/") - old
    assert set(await stage.removals()) == old
    assert await stage.deletion().run_once() == 0
    assert await stage.files("thumbnails/") == old | new
    await time_comes(stage)
    assert await stage.deletion().run_once() == 3
    assert await stage.files("thumbnails/") == new
    assert await stage.removals() == {}
    assert await stage.status(image_id) is Status.DONE


async def test_an_outage_in_the_middle_leaves_the_rest_to_the_next_run(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "_BATCH", 3)
    images = [await stage.done() for _ in range(3)]
    await stage.ask(lambda r: r.images.remove(images))
    batches = count(1)

    async def break_down(_: object) -> None:
        if next(batches) == 3:
            raise StorageUnavailable

    stage.script.before("delete", break_down)
    with pytest.raises(StorageUnavailable):
        await stage.deletion().run_once()
    assert len(await stage.files()) == len(await stage.removals()) == 6
    assert await stage.deletion().run_once() == 6
    await nothing_is_left(stage)


async def test_two_runs_at_once_do_each_other_no_harm(
    stage: Stage, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "_BATCH", 3)
    images = [await stage.done() for _ in range(4)]
    await stage.ask(lambda r: r.images.remove(images))
    kept = await stage.done()
    other = Database(database_url, time_limit=PATIENT)
    counts = await asyncio.gather(
        stage.deletion().run_once(), Deletion(database=other, storage=stage.storage).run_once()
    )
    await other.close()
    assert sum(counts) >= 16
    assert await stage.removals() == {}
    assert {original_key(kept)} | {each.key for each in (await stage.image(kept)).thumbnails} == await stage.files()


async def test_nothing_to_remove_is_fine(stage: Stage) -> None:
    await stage.done()
    before = await stage.files()
    assert await stage.deletion().run_once() == 0
    assert await stage.files() == before
