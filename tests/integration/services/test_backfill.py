"""The back-fill: every outdated image is rendered again, so many at a time, and nothing else is."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from uuid import UUID

import pytest

from image_service.domain.lane import Lane
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.domain.status import Status
from image_service.errors import CorruptImage, DatabaseUnavailable
from image_service.services import reprocessing
from image_service.services.reprocessing import Progress
from tests.support.stage import OUTDATED, Stage

NOTHING_LEFT = Progress(marked=0, waiting=0)


async def outdated(stage: Stage, images: int = 1) -> list[UUID]:
    """Images that are DONE under a recipe that is no longer in use, from the oldest on."""
    return sorted([await stage.done(OUTDATED) for _ in range(images)])


async def recipes(stage: Stage, images: list[UUID]) -> set[str]:
    return {(await stage.row(image_id))["recipe"] for image_id in images}


async def waiting(stage: Stage) -> int:
    return await stage.ask(lambda r: r.catalogue.open_count(limit=1000, lane=Lane.BACKFILL))


async def work(stage: Stage, images: int = 1000) -> list[UUID]:
    """What workers do with the next images that are due."""
    due = await stage.ask(lambda r: r.images.due(limit=images))
    for image in due:
        await stage.render(image.id)
    return [image.id for image in due]


async def test_the_oldest_outdated_images_begin_anew_in_a_lane_of_their_own(stage: Stage) -> None:
    images = await outdated(stage, 3)
    assert await stage.backfill().step(window=2) == Progress(marked=2, waiting=2)
    assert [await stage.status(image_id) for image_id in images] == [Status.NEW, Status.NEW, Status.DONE]
    assert await stage.reconciler().run_once() == 2
    assert [(each.image_id, each.lane) for each in stage.queue.published] == [
        (image_id, Lane.BACKFILL) for image_id in sorted(images[:2], key=published(stage).index)
    ]


def published(stage: Stage) -> list[UUID]:
    return [delivery.image_id for delivery in stage.queue.published]


@pytest.mark.parametrize("batch", [2, 100])
async def test_never_more_than_the_window_wait(stage: Stage, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reprocessing, "_BATCH", batch)
    images = await outdated(stage, 8)
    backfill = stage.backfill()
    assert await backfill.step(window=3) == Progress(marked=3, waiting=3)
    assert await backfill.step(window=3) == Progress(marked=0, waiting=3)
    assert len(await work(stage, 2)) == 2
    assert await backfill.step(window=3) == Progress(marked=2, waiting=3)
    assert await waiting(stage) == 3
    assert await backfill.step(window=5) == Progress(marked=2, waiting=5)
    assert len(await work(stage)) == 5
    assert await backfill.step(window=5) == Progress(marked=1, waiting=1)
    assert await recipes(stage, images[:-1]) == {DEFAULT_RECIPE.fingerprint}
    assert await backfill.step(window=5) == Progress(marked=0, waiting=1)
    await work(stage)
    assert await backfill.step(window=5) == NOTHING_LEFT


@pytest.mark.parametrize("look_at", [1, 2, 1000])
async def test_all_outdated_images_are_found_however_far_apart(
    stage: Stage, look_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reprocessing, "_LOOK_AT", look_at)
    images = []
    for _ in range(3):
        images += await outdated(stage)
        for _ in range(3):
            await stage.done()
    backfill = stage.backfill()
    steps = count(1)
    while await backfill.step(window=2) != NOTHING_LEFT:
        assert next(steps) < 10
        assert await waiting(stage) <= 2
        await work(stage)
    assert await recipes(stage, images) == {DEFAULT_RECIPE.fingerprint}


async def failed(stage: Stage) -> UUID:
    """An image that was DONE under an older recipe, and ended in ERROR when it was last rendered."""
    (image_id,) = await outdated(stage)
    await stage.reprocess(image_id)
    await stage.fail(await stage.claim(image_id))
    return image_id


async def without_original(stage: Stage) -> UUID:
    (image_id,) = await outdated(stage)
    await stage.ask(lambda r: r.images.remove_originals([image_id]))
    return image_id


async def again(stage: Stage) -> UUID:
    """An outdated image that somebody has asked for."""
    (image_id,) = await outdated(stage)
    await stage.reprocess(image_id)
    return image_id


async def leased(stage: Stage) -> UUID:
    return (await stage.claimed()).image_id


@pytest.mark.parametrize(
    "make", [Stage.new, Stage.queued, leased, Stage.done, Stage.failed, failed, without_original, again]
)
async def test_nothing_else_is_touched(stage: Stage, make: Callable[[Stage], Awaitable[UUID]]) -> None:
    image_id = await make(stage)
    before = await stage.row(image_id)
    (other,) = await outdated(stage)
    backfill = stage.backfill()
    assert await backfill.step(window=10) == Progress(marked=1, waiting=1)
    await stage.render(other)
    assert await backfill.step(window=10) == NOTHING_LEFT
    assert await stage.row(image_id) == before


async def test_images_that_were_made_before_recipes_were_recorded_are_outdated(stage: Stage) -> None:
    image_id = await stage.done()
    await stage.change(image_id, recipe=None)
    assert await stage.backfill().step(window=10) == Progress(marked=1, waiting=1)
    assert await stage.status(image_id) is Status.NEW


async def test_images_that_are_uploaded_meanwhile_are_not_touched(stage: Stage) -> None:
    await outdated(stage, 2)
    backfill = stage.backfill()
    await backfill.step(window=1)
    uploaded, done = await stage.new(), await stage.done()
    before = [await stage.row(image_id) for image_id in (uploaded, done)]
    steps = count(1)
    while await backfill.step(window=1) != NOTHING_LEFT:
        assert next(steps) < 10
        for image in await stage.ask(lambda r: r.images.due(limit=10)):
            await stage.render(image.id)
    assert [await stage.row(image_id) for image_id in (uploaded, done)] == before


async def test_the_old_thumbnails_stay_until_each_image_is_rendered(stage: Stage) -> None:
    (image_id,) = await outdated(stage)
    old = (await stage.image(image_id)).thumbnails
    await stage.backfill().step(window=10)
    assert (await stage.image(image_id)).thumbnails == old
    await work(stage)
    assert {each.key for each in old} == set(await stage.removals())


async def test_one_that_fails_is_not_tried_for_ever(stage: Stage) -> None:
    (image_id,) = await outdated(stage)
    backfill = stage.backfill()
    await backfill.step(window=10)
    await stage.reconciler().run_once()
    stage.script.fail("render", [CorruptImage])
    await stage.processing().process(stage.queue.published[0])
    assert await stage.status(image_id) is Status.ERROR
    assert await backfill.step(window=10) == NOTHING_LEFT
    assert await stage.backfill().step(window=10) == NOTHING_LEFT


async def test_one_that_is_interrupted_is_taken_up_by_the_next(stage: Stage) -> None:
    images = await outdated(stage, 5)
    assert await stage.backfill().step(window=2) == Progress(marked=2, waiting=2)
    assert await stage.backfill().step(window=2) == Progress(marked=0, waiting=2)
    done = await work(stage)
    assert await stage.backfill().step(window=2) == Progress(marked=2, waiting=2)
    done += await work(stage)
    assert await stage.backfill().step(window=2) == Progress(marked=1, waiting=1)
    done += await work(stage)
    assert await stage.backfill().step(window=2) == NOTHING_LEFT
    assert sorted(done) == images, "none was rendered twice"


@pytest.mark.parametrize("effect", ["open_count", "outdated", "reprocess"])
async def test_it_goes_on_after_an_outage(stage: Stage, effect: str) -> None:
    images = await outdated(stage, 3)
    backfill = stage.backfill()
    stage.script.fail(effect, [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await backfill.step(window=10)
    assert await waiting(stage) == 0
    assert await backfill.step(window=10) == Progress(marked=3, waiting=3)
    assert sorted(await work(stage)) == images


async def test_it_goes_on_after_the_reply_to_a_commit_was_lost(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reprocessing, "_BATCH", 2)
    images = await outdated(stage, 5)
    backfill = stage.backfill()
    stage.script.lose_replies("reprocess", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await backfill.step(window=4)
    assert await waiting(stage) == 2
    assert await backfill.step(window=4) == Progress(marked=2, waiting=4)
    assert sorted(await work(stage)) == images[:4]
    assert await backfill.step(window=4) == Progress(marked=1, waiting=1)


async def test_an_image_that_is_gone_before_it_begins_anew_does_not_count(stage: Stage) -> None:
    images = await outdated(stage, 3)

    async def delete(_: object) -> None:
        await stage.ask(lambda r: r.images.remove([images[0]]))

    stage.script.before("reprocess", delete)
    assert await stage.backfill().step(window=10) == Progress(marked=2, waiting=2)
    assert await stage.count() == 2


async def test_two_at_once_have_each_image_rendered_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reprocessing, "_BATCH", 2)
    images = await outdated(stage, 6)
    both = await asyncio.gather(*(stage.backfill().step(window=100) for _ in range(2)))
    assert sum(progress.marked for progress in both) == 6
    assert sorted(await work(stage)) == images
    assert await stage.backfill().step(window=100) == NOTHING_LEFT


async def test_without_images_it_is_over_at_once(stage: Stage) -> None:
    assert await stage.backfill().step(window=10) == NOTHING_LEFT
