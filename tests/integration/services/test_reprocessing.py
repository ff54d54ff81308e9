"""Reprocessing: the old thumbnails stay until the new ones are complete."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from harness.pace import slowness
from harness.service_harness import GRACE, LANE, LEASE, UNCLAIMED_AFTER, UNQUEUED_AFTER, ServiceHarness
from image_service.domain.image import Thumbnail
from image_service.domain.keys import original_key
from image_service.domain.lane import Lane
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.domain.status import Status
from image_service.errors import (
    CorruptImage,
    DatabaseUnavailable,
    DecoderCrashed,
    ImageNotFound,
    OriginalRemoved,
    QueueUnavailable,
    StillProcessing,
)
from image_service.ports import Delivery
from image_service.services.reprocessing import RequeueResult

Make = Callable[[ServiceHarness], Awaitable[UUID]]
FINISHED: tuple[Make, ...] = (ServiceHarness.done, ServiceHarness.failed)


async def thumbnails(env: ServiceHarness, image_id: UUID) -> tuple[Thumbnail, ...]:
    """Returns the recorded thumbnails of an image, after reading each."""
    made = (await env.image(image_id)).thumbnails
    for each in made:
        (file,) = (await env.lookup().thumbnails(image_id, each.output)).files
        content = b"".join([piece async for piece in env.lookup().read(file)])
        assert len(content) == each.size_bytes
    return made


async def messages(env: ServiceHarness) -> int:
    return sum((await env.queue.depth()).values())


@pytest.mark.parametrize("make", FINISHED)
async def test_a_finished_image_becomes_new_is_published_and_marked_in_this_order(
    env: ServiceHarness, make: Make
) -> None:
    image_id = await make(env)
    status = await env.reprocessing().reprocess(image_id, request_id="r-1")
    assert status is Status.PROCESSING
    assert env.script.done == ["get", "reprocess", "publish", "mark_queued"]
    assert env.queue.published == [Delivery(image_id=image_id, lane=LANE, request_id="r-1")]
    row = await env.row(image_id)
    assert row["status"] is Status.PROCESSING
    assert (row["due_at"] - row["updated_at"]).total_seconds() == pytest.approx(UNCLAIMED_AFTER, abs=1)


@pytest.mark.parametrize("make", FINISHED)
async def test_a_reprocessed_image_becomes_done_with_new_thumbnails(env: ServiceHarness, make: Make) -> None:
    image_id = await make(env)
    old = await thumbnails(env, image_id)
    await env.reprocessing().reprocess(image_id)
    (delivery,) = env.queue.published
    await env.processing().process(delivery)
    image = await env.image(image_id)
    assert (image.status, image.error) == (Status.DONE, None)
    new = await thumbnails(env, image_id)
    assert {each.output for each in new} == {preset.name for preset in DEFAULT_RECIPE.presets}
    assert not {each.key for each in new} & {each.key for each in old}
    assert {each.key for each in old} == set(await env.removals())


async def test_old_thumbnails_are_served_until_the_new_ones_are(env: ServiceHarness) -> None:
    image_id = await env.done()
    old = await thumbnails(env, image_id)
    served: list[tuple[Thumbnail, ...]] = []

    async def look(*_: object) -> None:
        served.append(await thumbnails(env, image_id))

    for moment in ("reprocess", "publish", "mark_queued", "claim", "render", "adopt", "complete"):
        env.script.before(moment, look)
    await env.reprocessing().reprocess(image_id)
    await env.processing().process(env.queue.published[0])
    assert served == [old] * 7
    new = await thumbnails(env, image_id)
    assert {each.output for each in new} == {each.output for each in old}
    assert not set(new) & set(old)


async def test_the_image_is_new_before_publishing(env: ServiceHarness) -> None:
    image_id = await env.done()
    seen: list[Status] = []

    async def look(_: object) -> None:
        seen.append(await env.status(image_id))

    env.script.before("publish", look)
    await env.reprocessing().reprocess(image_id)
    assert seen == [Status.NEW]


async def test_without_the_queue_the_image_stays_new_for_the_reconciler(env: ServiceHarness) -> None:
    image_id = await env.done()
    env.script.fail("publish", [QueueUnavailable])
    assert await env.reprocessing().reprocess(image_id) is Status.NEW
    assert await env.status(image_id) is Status.NEW
    assert await env.reconciler().run_once() == 0
    await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await env.reconciler().run_once() == 1
    await env.processing().process(env.queue.published[0])
    assert await env.status(image_id) is Status.DONE


async def test_a_queue_that_hangs_does_not_delay_the_answer(env: ServiceHarness) -> None:
    image_id = await env.done()
    env.script.before("publish", lambda _: asyncio.Event().wait())
    async with asyncio.timeout(60):
        assert await env.reprocessing(answer_within=slowness()).reprocess(image_id) is Status.NEW
    assert await env.status(image_id) is Status.NEW


async def test_an_unknown_or_deleted_image_is_not_found(env: ServiceHarness) -> None:
    gone = await env.done()
    await env.deletion().delete(gone)
    for image_id in (uuid4(), gone):
        with pytest.raises(ImageNotFound):
            await env.reprocessing().reprocess(image_id)
    assert env.queue.published == []


@pytest.mark.parametrize("make", [ServiceHarness.new, ServiceHarness.queued, ServiceHarness.leased])
async def test_an_unfinished_image_is_not_changed(env: ServiceHarness, make: Make) -> None:
    image_id = await make(env)
    before = await env.row(image_id)
    with pytest.raises(StillProcessing):
        await env.reprocessing().reprocess(image_id)
    assert await env.row(image_id) == before
    assert env.queue.published == []


@pytest.mark.parametrize("make", FINISHED)
async def test_an_image_without_its_original_is_not_changed(env: ServiceHarness, make: Make) -> None:
    image_id = await make(env)
    await env.ask(lambda r: r.images.remove_originals([image_id]))
    before = await env.row(image_id)
    with pytest.raises(OriginalRemoved):
        await env.reprocessing().reprocess(image_id)
    assert await env.row(image_id) == before
    assert env.queue.published == []


async def test_concurrent_reprocess_accepts_one(env: ServiceHarness) -> None:
    image_id = await env.done()
    requests = (env.reprocessing().reprocess(image_id) for _ in range(5))
    outcome: list[Any] = await asyncio.gather(*requests, return_exceptions=True)
    assert outcome.count(Status.PROCESSING) == 1
    assert [type(each) for each in outcome].count(StillProcessing) == 4
    assert await messages(env) == 1


async def test_without_the_database_nothing_is_changed(env: ServiceHarness) -> None:
    image_id = await env.done()
    before = await env.row(image_id)
    env.script.fail("reprocess", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await env.reprocessing().reprocess(image_id)
    assert await env.row(image_id) == before
    assert env.queue.published == []


async def test_after_a_lost_reply_to_the_commit_the_reconciler_queues_the_image(env: ServiceHarness) -> None:
    image_id = await env.done()
    env.script.lose_replies("reprocess", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await env.reprocessing().reprocess(image_id)
    assert env.queue.published == []
    await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await env.reconciler().run_once() == 1


async def test_an_image_last_backfilled_is_reprocessed_in_its_own_lane(env: ServiceHarness) -> None:
    image_id = await env.done()
    await env.reprocess(image_id, lane=Lane.BACKFILL)
    await env.render(image_id)
    await env.reprocessing().reprocess(image_id)
    assert [delivery.lane for delivery in env.queue.published] == [LANE]
    assert (await env.row(image_id))["lane"] is LANE


async def test_reprocessing_resets_the_attempts(env: ServiceHarness) -> None:
    image_id = await env.queued()
    spent = env.processing(max_decoder_failures=2, max_attempts=2)
    env.script.fail("render", [DecoderCrashed, DecoderCrashed, DecoderCrashed])
    await spent.process(Delivery(image_id=image_id))
    await env.time_passes(image_id, LEASE)
    await spent.process(Delivery(image_id=image_id))
    assert await env.status(image_id) is Status.ERROR
    await env.reprocessing().reprocess(image_id)
    await spent.process(Delivery(image_id=image_id))
    assert await env.status(image_id) is Status.PROCESSING, "decoder failures are counted from zero"
    await env.time_passes(image_id, LEASE)
    await spent.process(Delivery(image_id=image_id))
    assert await env.status(image_id) is Status.DONE


async def test_a_failed_reprocessing_keeps_the_old_thumbnails(env: ServiceHarness) -> None:
    image_id = await env.done()
    old = await thumbnails(env, image_id)
    env.script.fail("render", [CorruptImage("This is why.")])
    await env.reprocessing().reprocess(image_id)
    await env.processing().process(env.queue.published[0])
    image = await env.image(image_id)
    assert image.status is Status.ERROR
    assert image.error is not None
    assert image.error.code == "corrupt-image"
    assert await thumbnails(env, image_id) == old
    for key in await env.files():
        env.grow_old(key, GRACE + 60)
    assert await env.sweep() == 0
    assert await env.deletion().run_once() == 0
    assert await thumbnails(env, image_id) == old


async def test_a_lost_worker_loses_neither_old_nor_new_thumbnails(env: ServiceHarness) -> None:
    image_id = await env.done()
    old = await thumbnails(env, image_id)
    await env.reprocessing().reprocess(image_id)
    await env.claim(image_id)
    await env.time_passes(image_id, LEASE + 1)
    assert await thumbnails(env, image_id) == old
    assert await env.reconciler().run_once() == 1
    await env.processing().process(env.queue.published[-1])
    new = await thumbnails(env, image_id)
    assert {each.key for each in old} == set(await env.removals())
    assert await env.files("thumbnails/") == {each.key for each in (*old, *new)}


async def test_a_worker_resumed_after_its_lease_deletes_nothing_of_the_next_attempt(
    env: ServiceHarness,
) -> None:
    image_id = await env.done()
    old = await thumbnails(env, image_id)
    await env.reprocessing().reprocess(image_id)

    async def finish_as_another_worker(*_: object) -> None:
        await env.time_passes(image_id, LEASE + 1)
        await env.render(image_id)

    env.script.before("complete", finish_as_another_worker)
    await env.processing().process(env.queue.published[0])
    new = await thumbnails(env, image_id)
    assert await env.files() == {original_key(image_id), *(each.key for each in (*old, *new))}
    assert set(await env.removals()) == {each.key for each in old}


async def test_a_lost_reply_between_two_reprocessings_loses_no_file(env: ServiceHarness) -> None:
    """The worker repeats its last commit after the image was reprocessed again."""
    image_id = await env.done()
    await env.reprocess(image_id)
    tries: list[object] = []

    async def reprocess_again(*_: object) -> None:
        tries.append(image_id)
        if len(tries) == 2:
            await env.ask(lambda r: r.images.reprocess([image_id], due_in=UNQUEUED_AFTER))
            assert await env.ask(lambda r: r.scheduling.mark_queued(image_id, due_in=UNCLAIMED_AFTER))

    env.script.before("complete", reprocess_again)
    env.script.lose_replies("complete", [DatabaseUnavailable])
    await env.processing().process(Delivery(image_id=image_id))
    assert len(tries) == 2
    assert await env.status(image_id) is Status.PROCESSING
    made = {each.key for each in await thumbnails(env, image_id)}
    assert not made & set(await env.removals())
    await env.render(image_id)
    assert await env.status(image_id) is Status.DONE
    assert set(await env.removals()) >= made


async def test_replaced_files_are_not_swept_before_they_are_due(env: ServiceHarness) -> None:
    image_id = await env.done()
    old = await thumbnails(env, image_id)
    await env.reprocess(image_id)
    await env.render(image_id)
    for key in await env.files():
        env.grow_old(key, GRACE + 60)
    assert await env.sweep() == 0
    assert {each.key for each in old} <= await env.files()


async def without_original(env: ServiceHarness) -> UUID:
    image_id = await env.done()
    await env.ask(lambda r: r.images.remove_originals([image_id]))
    return image_id


REQUEUED: dict[RequeueResult, tuple[Make, ...]] = {
    RequeueResult.REPROCESSING: FINISHED,
    RequeueResult.MADE_DUE: (ServiceHarness.new, ServiceHarness.queued, ServiceHarness.renewed),
}
UNCHANGED: dict[RequeueResult, Make] = {
    RequeueResult.BUSY: ServiceHarness.leased,
    RequeueResult.ORIGINAL_REMOVED: without_original,
}


@pytest.mark.parametrize(("result", "make"), [(result, make) for result, makes in REQUEUED.items() for make in makes])
async def test_a_requeued_image_is_queued_by_the_next_run_of_the_reconciler(
    env: ServiceHarness, result: RequeueResult, make: Make
) -> None:
    image_id = await make(env)
    assert await env.reprocessing().requeue(image_id) is result
    assert env.queue.published == []
    assert await env.reconciler().run_once() == 1
    assert [delivery.image_id for delivery in env.queue.published] == [image_id]


@pytest.mark.parametrize("result", UNCHANGED)
async def test_requeue_does_not_change_an_image_that_cannot_be_queued(
    env: ServiceHarness, result: RequeueResult
) -> None:
    image_id = await UNCHANGED[result](env)
    before = await env.row(image_id)
    assert await env.reprocessing().requeue(image_id) is result
    assert await env.row(image_id) == before


async def test_requeue_of_an_unknown_image_finds_nothing(env: ServiceHarness) -> None:
    assert await env.reprocessing().requeue(uuid4()) is RequeueResult.NOT_FOUND
