"""The backfill: makes outputs again that were made with another recipe, of a limited number of images at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from uuid import UUID

import pytest

from harness.service_harness import OUTDATED, ServiceHarness
from image_service.domain.lane import Lane
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.domain.status import Status
from image_service.errors import CorruptImage, DatabaseUnavailable
from image_service.services.backfill import Progress

NOTHING_LEFT = Progress(marked=0, waiting=0)


async def outdated(env: ServiceHarness, images: int = 1) -> list[UUID]:
    """Returns images made with an earlier recipe, oldest first."""
    return sorted([await env.done(OUTDATED) for _ in range(images)])


async def recipes(env: ServiceHarness, images: list[UUID]) -> set[str]:
    return {(await env.row(image_id))["recipe"] for image_id in images}


async def waiting(env: ServiceHarness) -> int:
    return await env.ask(lambda r: r.outputs.outputs_waiting(limit=1000))


async def work(env: ServiceHarness, images: int = 1000) -> list[UUID]:
    """Make the outputs of the next images that are due."""
    due = await env.ask(lambda r: r.outputs.outputs_due(limit=images))
    for image in due:
        await env.render(image.id, Lane.BACKFILL)
    return [image.id for image in due]


async def test_the_oldest_outdated_images_are_queued_in_the_backfill_lane(env: ServiceHarness) -> None:
    images = await outdated(env, 3)
    assert await env.backfill().step(window=2) == Progress(marked=2, waiting=2)
    assert [await env.status(image_id) for image_id in images] == [Status.DONE] * 3
    assert await env.reconciler().run_once() == 2
    assert [(each.image_id, each.lane) for each in env.queue.published] == [
        (image_id, Lane.BACKFILL) for image_id in sorted(images[:2], key=published(env).index)
    ]


def published(env: ServiceHarness) -> list[UUID]:
    return [delivery.image_id for delivery in env.queue.published]


@pytest.mark.parametrize("batch", [2, 100])
async def test_at_most_the_window_waits_in_the_lane(env: ServiceHarness, batch: int) -> None:
    images = await outdated(env, 8)
    backfill = env.backfill(batch=batch)
    assert await backfill.step(window=3) == Progress(marked=3, waiting=3)
    assert await backfill.step(window=3) == Progress(marked=0, waiting=3)
    assert len(await work(env, 2)) == 2
    assert await backfill.step(window=3) == Progress(marked=2, waiting=3)
    assert await waiting(env) == 3
    assert await backfill.step(window=5) == Progress(marked=2, waiting=5)
    assert len(await work(env)) == 5
    assert await backfill.step(window=5) == Progress(marked=1, waiting=1)
    assert await recipes(env, images[:-1]) == {DEFAULT_RECIPE.fingerprint}
    assert await backfill.step(window=5) == Progress(marked=0, waiting=1)
    await work(env)
    assert await backfill.step(window=5) == NOTHING_LEFT


@pytest.mark.parametrize("scan", [1, 2, 1000])
async def test_all_outdated_images_are_found_in_scans_of_any_size(env: ServiceHarness, scan: int) -> None:
    images = []
    for _ in range(3):
        images += await outdated(env)
        for _ in range(3):
            await env.done()
    backfill = env.backfill(scan=scan)
    steps = count(1)
    while await backfill.step(window=2) != NOTHING_LEFT:
        assert next(steps) < 10
        assert await waiting(env) <= 2
        await work(env)
    assert await recipes(env, images) == {DEFAULT_RECIPE.fingerprint}


async def failed(env: ServiceHarness) -> UUID:
    """Returns an outdated image whose last reprocessing failed."""
    (image_id,) = await outdated(env)
    await env.reprocess(image_id)
    await env.fail(await env.claim(image_id))
    return image_id


async def without_original(env: ServiceHarness) -> UUID:
    (image_id,) = await outdated(env)
    await env.ask(lambda r: r.images.remove_originals([image_id]))
    return image_id


async def requested(env: ServiceHarness) -> UUID:
    """Returns an outdated image that is being reprocessed on request."""
    (image_id,) = await outdated(env)
    await env.reprocess(image_id)
    return image_id


@pytest.mark.parametrize(
    "make",
    [
        ServiceHarness.new,
        ServiceHarness.queued,
        ServiceHarness.leased,
        ServiceHarness.done,
        ServiceHarness.failed,
        failed,
        without_original,
        requested,
    ],
)
async def test_other_images_are_not_changed(
    env: ServiceHarness, make: Callable[[ServiceHarness], Awaitable[UUID]]
) -> None:
    image_id = await make(env)
    before = await env.row(image_id)
    (other,) = await outdated(env)
    backfill = env.backfill()
    assert await backfill.step(window=10) == Progress(marked=1, waiting=1)
    await env.render(other, Lane.BACKFILL)
    assert await backfill.step(window=10) == NOTHING_LEFT
    assert await env.row(image_id) == before


async def test_images_without_a_recorded_recipe_are_outdated(env: ServiceHarness) -> None:
    image_id = await env.done()
    await env.change(image_id, recipe=None)
    assert await env.backfill().step(window=10) == Progress(marked=1, waiting=1)
    assert await work(env) == [image_id]
    assert await recipes(env, [image_id]) == {DEFAULT_RECIPE.fingerprint}


async def test_images_uploaded_during_a_backfill_are_not_changed(env: ServiceHarness) -> None:
    await outdated(env, 2)
    backfill = env.backfill()
    await backfill.step(window=1)
    uploaded, done = await env.new(), await env.done()
    before = [await env.row(image_id) for image_id in (uploaded, done)]
    steps = count(1)
    while await backfill.step(window=1) != NOTHING_LEFT:
        assert next(steps) < 10
        await work(env)
    assert [await env.row(image_id) for image_id in (uploaded, done)] == before


async def test_old_thumbnails_stay_until_the_new_ones_are_rendered(env: ServiceHarness) -> None:
    (image_id,) = await outdated(env)
    old = (await env.image(image_id)).thumbnails
    await env.backfill().step(window=10)
    assert (await env.image(image_id)).thumbnails == old
    await work(env)
    assert {each.key for each in old} == set(await env.removals())


async def test_an_image_that_fails_stays_as_it_is_and_is_not_tried_again(env: ServiceHarness) -> None:
    (image_id,) = await outdated(env)
    old = (await env.image(image_id)).thumbnails
    backfill = env.backfill()
    await backfill.step(window=10)
    await env.reconciler().run_once()
    env.script.fail("render", [CorruptImage])
    await env.processing().process(env.queue.published[0])
    image = await env.image(image_id)
    assert (image.status, image.thumbnails) == (Status.DONE, old)
    assert await backfill.step(window=10) == NOTHING_LEFT
    assert await env.backfill().step(window=10) == NOTHING_LEFT


async def test_an_interrupted_backfill_is_continued_by_the_next(env: ServiceHarness) -> None:
    images = await outdated(env, 5)
    assert await env.backfill().step(window=2) == Progress(marked=2, waiting=2)
    assert await env.backfill().step(window=2) == Progress(marked=0, waiting=2)
    done = await work(env)
    assert await env.backfill().step(window=2) == Progress(marked=2, waiting=2)
    done += await work(env)
    assert await env.backfill().step(window=2) == Progress(marked=1, waiting=1)
    done += await work(env)
    assert await env.backfill().step(window=2) == NOTHING_LEFT
    assert sorted(done) == images, "none was processed twice"


@pytest.mark.parametrize("effect", ["outputs_waiting", "outdated", "mark_outputs_due"])
async def test_a_backfill_continues_after_an_outage(env: ServiceHarness, effect: str) -> None:
    images = await outdated(env, 3)
    backfill = env.backfill()
    env.script.fail(effect, [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await backfill.step(window=10)
    assert await waiting(env) == 0
    assert await backfill.step(window=10) == Progress(marked=3, waiting=3)
    assert sorted(await work(env)) == images


async def test_a_backfill_continues_after_a_lost_reply_to_a_commit(env: ServiceHarness) -> None:
    images = await outdated(env, 5)
    backfill = env.backfill(batch=2)
    env.script.lose_replies("mark_outputs_due", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await backfill.step(window=4)
    assert await waiting(env) == 2
    assert await backfill.step(window=4) == Progress(marked=2, waiting=4)
    assert sorted(await work(env)) == images[:4]
    assert await backfill.step(window=4) == Progress(marked=1, waiting=1)


async def test_an_image_deleted_before_it_is_marked_does_not_count(env: ServiceHarness) -> None:
    images = await outdated(env, 3)

    async def delete(_: object) -> None:
        await env.ask(lambda r: r.images.remove([images[0]]))

    env.script.before("mark_outputs_due", delete)
    assert await env.backfill().step(window=10) == Progress(marked=2, waiting=2)
    assert await env.count() == 2


async def test_concurrent_backfills_reprocess_each_image_once(env: ServiceHarness) -> None:
    images = await outdated(env, 6)
    both = await asyncio.gather(*(env.backfill(batch=2).step(window=100) for _ in range(2)))
    assert sum(progress.marked for progress in both) == 6
    assert sorted(await work(env)) == images
    assert await env.backfill().step(window=100) == NOTHING_LEFT


async def test_without_images_a_backfill_is_complete_at_once(env: ServiceHarness) -> None:
    assert await env.backfill().step(window=10) == NOTHING_LEFT
