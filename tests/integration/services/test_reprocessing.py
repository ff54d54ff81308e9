"""Rendering an image again on somebody's wish: the old thumbnails stay until the new ones are complete."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

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
from image_service.services import reprocessing
from tests.support.stage import GRACE, LANE, LEASE, UNCLAIMED_AFTER, UNQUEUED_AFTER, Stage

Make = Callable[[Stage], Awaitable[UUID]]
FINISHED: tuple[Make, ...] = (Stage.done, Stage.failed)


async def thumbnails(stage: Stage, image_id: UUID) -> tuple[Thumbnail, ...]:
    """What is recorded of an image, all of which can be read."""
    made = (await stage.image(image_id)).thumbnails
    for each in made:
        file = await stage.lookup().thumbnail(image_id, each.preset)
        content = b"".join([piece async for piece in stage.lookup().read(file)])
        assert len(content) == each.size_bytes
    return made


async def messages(stage: Stage) -> int:
    return sum((await stage.queue.depth()).values())


@pytest.mark.parametrize("make", FINISHED)
async def test_a_finished_image_is_recorded_as_new_and_then_published_and_then_marked(stage: Stage, make: Make) -> None:
    image_id = await make(stage)
    status = await stage.reprocessing().reprocess(image_id, request_id="r-1")
    assert status is Status.PROCESSING
    assert stage.script.done == ["get", "reprocess", "publish", "mark_queued"]
    assert stage.queue.published == [Delivery(image_id=image_id, lane=LANE, request_id="r-1")]
    row = await stage.row(image_id)
    assert row["status"] is Status.PROCESSING
    assert (row["due_at"] - row["updated_at"]).total_seconds() == pytest.approx(UNCLAIMED_AFTER, abs=1)


@pytest.mark.parametrize("make", FINISHED)
async def test_it_becomes_done_with_new_thumbnails(stage: Stage, make: Make) -> None:
    image_id = await make(stage)
    old = await thumbnails(stage, image_id)
    await stage.reprocessing().reprocess(image_id)
    (delivery,) = stage.queue.published
    await stage.processing().process(delivery)
    image = await stage.image(image_id)
    assert (image.status, image.error) == (Status.DONE, None)
    new = await thumbnails(stage, image_id)
    assert {each.preset for each in new} == {preset.name for preset in DEFAULT_RECIPE.presets}
    assert not {each.key for each in new} & {each.key for each in old}
    assert {each.key for each in old} == set(await stage.removals())


async def test_the_old_thumbnails_are_served_at_every_moment_until_the_new_ones_are(stage: Stage) -> None:
    image_id = await stage.done()
    old = await thumbnails(stage, image_id)
    served: list[tuple[Thumbnail, ...]] = []

    async def look(*_: object) -> None:
        served.append(await thumbnails(stage, image_id))

    for moment in ("reprocess", "publish", "mark_queued", "claim", "render", "adopt", "complete"):
        stage.script.before(moment, look)
    await stage.reprocessing().reprocess(image_id)
    await stage.processing().process(stage.queue.published[0])
    assert served == [old] * 7
    new = await thumbnails(stage, image_id)
    assert {each.preset for each in new} == {each.preset for each in old}
    assert not set(new) & set(old)


async def test_when_it_is_published_everybody_can_see_that_it_is_new(stage: Stage) -> None:
    image_id = await stage.done()
    seen: list[Status] = []

    async def look(_: object) -> None:
        seen.append(await stage.status(image_id))

    stage.script.before("publish", look)
    await stage.reprocessing().reprocess(image_id)
    assert seen == [Status.NEW]


async def test_while_the_queue_is_away_it_waits_as_new_for_the_reconciler(stage: Stage) -> None:
    image_id = await stage.done()
    stage.script.fail("publish", [QueueUnavailable])
    assert await stage.reprocessing().reprocess(image_id) is Status.NEW
    assert await stage.status(image_id) is Status.NEW
    assert await stage.reconciler().run_once() == 0
    await stage.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await stage.reconciler().run_once() == 1
    await stage.processing().process(stage.queue.published[0])
    assert await stage.status(image_id) is Status.DONE


async def test_a_queue_that_hangs_does_not_keep_the_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reprocessing, "_ANSWER_WITHIN", 0.3)
    image_id = await stage.done()
    stage.script.before("publish", lambda _: asyncio.Event().wait())
    async with asyncio.timeout(10):
        assert await stage.reprocessing().reprocess(image_id) is Status.NEW
    assert await stage.status(image_id) is Status.NEW


async def test_an_image_that_is_not_there_is_not_found(stage: Stage) -> None:
    gone = await stage.done()
    await stage.deletion().delete(gone)
    for image_id in (uuid4(), gone):
        with pytest.raises(ImageNotFound):
            await stage.reprocessing().reprocess(image_id)
    assert stage.queue.published == []


async def leased(stage: Stage) -> UUID:
    return (await stage.claimed()).image_id


@pytest.mark.parametrize("make", [Stage.new, Stage.queued, leased])
async def test_an_image_that_is_not_finished_is_left_alone(stage: Stage, make: Make) -> None:
    image_id = await make(stage)
    before = await stage.row(image_id)
    with pytest.raises(StillProcessing):
        await stage.reprocessing().reprocess(image_id)
    assert await stage.row(image_id) == before
    assert stage.queue.published == []


@pytest.mark.parametrize("make", FINISHED)
async def test_an_image_without_its_original_is_left_alone(stage: Stage, make: Make) -> None:
    image_id = await make(stage)
    await stage.ask(lambda r: r.images.remove_originals([image_id]))
    before = await stage.row(image_id)
    with pytest.raises(OriginalRemoved):
        await stage.reprocessing().reprocess(image_id)
    assert await stage.row(image_id) == before
    assert stage.queue.published == []


async def test_of_many_wishes_at_once_one_is_granted(stage: Stage) -> None:
    image_id = await stage.done()
    wishes = (stage.reprocessing().reprocess(image_id) for _ in range(5))
    outcome: list[Any] = await asyncio.gather(*wishes, return_exceptions=True)
    assert outcome.count(Status.PROCESSING) == 1
    assert [type(each) for each in outcome].count(StillProcessing) == 4
    assert await messages(stage) == 1


async def test_while_the_database_is_away_nothing_changes(stage: Stage) -> None:
    image_id = await stage.done()
    before = await stage.row(image_id)
    stage.script.fail("reprocess", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await stage.reprocessing().reprocess(image_id)
    assert await stage.row(image_id) == before
    assert stage.queue.published == []


async def test_when_the_reply_to_the_commit_is_lost_the_reconciler_queues_it(stage: Stage) -> None:
    image_id = await stage.done()
    stage.script.lose_replies("reprocess", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await stage.reprocessing().reprocess(image_id)
    assert stage.queue.published == []
    await stage.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await stage.reconciler().run_once() == 1


async def test_it_waits_with_its_like_even_if_it_was_last_rendered_in_bulk(stage: Stage) -> None:
    image_id = await stage.done()
    await stage.reprocess(image_id, lane=Lane.BACKFILL)
    await stage.render(image_id)
    await stage.reprocessing().reprocess(image_id)
    assert [delivery.lane for delivery in stage.queue.published] == [LANE]
    assert (await stage.row(image_id))["lane"] is LANE


async def test_attempts_are_counted_from_nothing(stage: Stage) -> None:
    image_id = await stage.queued()
    spent = stage.processing(max_decoder_failures=2, max_attempts=2)
    stage.script.fail("render", [DecoderCrashed, DecoderCrashed, DecoderCrashed])
    await spent.process(Delivery(image_id=image_id))
    await stage.time_passes(image_id, LEASE)
    await spent.process(Delivery(image_id=image_id))
    assert await stage.status(image_id) is Status.ERROR
    await stage.reprocessing().reprocess(image_id)
    await spent.process(Delivery(image_id=image_id))
    assert await stage.status(image_id) is Status.PROCESSING, "the decoder died once, and may twice"
    await stage.time_passes(image_id, LEASE)
    await spent.process(Delivery(image_id=image_id))
    assert await stage.status(image_id) is Status.DONE


async def test_where_it_fails_the_image_ends_in_error_and_keeps_the_old_thumbnails(stage: Stage) -> None:
    image_id = await stage.done()
    old = await thumbnails(stage, image_id)
    stage.script.fail("render", [CorruptImage("This is why.")])
    await stage.reprocessing().reprocess(image_id)
    await stage.processing().process(stage.queue.published[0])
    image = await stage.image(image_id)
    assert image.status is Status.ERROR
    assert image.error is not None
    assert image.error.code == "corrupt-image"
    assert await thumbnails(stage, image_id) == old
    for key in await stage.files():
        stage.grow_old(key, GRACE + 60)
    assert await stage.sweep() == 0
    assert await stage.deletion().run_once() == 0
    assert await thumbnails(stage, image_id) == old


async def test_a_worker_that_dies_over_it_costs_neither_the_old_thumbnails_nor_the_new(stage: Stage) -> None:
    image_id = await stage.done()
    old = await thumbnails(stage, image_id)
    await stage.reprocessing().reprocess(image_id)
    await stage.claim(image_id)
    await stage.time_passes(image_id, LEASE + 1)
    assert await thumbnails(stage, image_id) == old
    assert await stage.reconciler().run_once() == 1
    await stage.processing().process(stage.queue.published[-1])
    new = await thumbnails(stage, image_id)
    assert {each.key for each in old} == set(await stage.removals())
    assert await stage.files("thumbnails/") == {each.key for each in (*old, *new)}


async def test_a_worker_that_wakes_after_its_lease_takes_nothing_from_the_one_that_took_over(stage: Stage) -> None:
    image_id = await stage.done()
    old = await thumbnails(stage, image_id)
    await stage.reprocessing().reprocess(image_id)

    async def be_overtaken(*_: object) -> None:
        await stage.time_passes(image_id, LEASE + 1)
        await stage.render(image_id)

    stage.script.before("complete", be_overtaken)
    await stage.processing().process(stage.queue.published[0])
    new = await thumbnails(stage, image_id)
    assert await stage.files() == {original_key(image_id), *(each.key for each in (*old, *new))}
    assert set(await stage.removals()) == {each.key for each in old}


async def test_a_reply_that_is_lost_between_two_wishes_costs_no_file(stage: Stage) -> None:
    """The worker repeats its last commit when the image has begun anew already."""
    image_id = await stage.done()
    await stage.reprocess(image_id)
    tries: list[object] = []

    async def wish_again(*_: object) -> None:
        tries.append(image_id)
        if len(tries) == 2:
            await stage.ask(lambda r: r.images.reprocess([image_id], due_in=UNQUEUED_AFTER))
            assert await stage.ask(lambda r: r.images.mark_queued(image_id, due_in=UNCLAIMED_AFTER))

    stage.script.before("complete", wish_again)
    stage.script.lose_replies("complete", [DatabaseUnavailable])
    await stage.processing().process(Delivery(image_id=image_id))
    assert len(tries) == 2
    assert await stage.status(image_id) is Status.PROCESSING
    made = {each.key for each in await thumbnails(stage, image_id)}
    assert not made & set(await stage.removals())
    await stage.render(image_id)
    assert await stage.status(image_id) is Status.DONE
    assert set(await stage.removals()) >= made


async def test_files_that_were_replaced_are_not_swept_before_their_time(stage: Stage) -> None:
    image_id = await stage.done()
    old = await thumbnails(stage, image_id)
    await stage.reprocess(image_id)
    await stage.render(image_id)
    for key in await stage.files():
        stage.grow_old(key, GRACE + 60)
    assert await stage.sweep() == 0
    assert {each.key for each in old} <= await stage.files()
