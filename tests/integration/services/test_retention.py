"""Retention: deletes what is old enough, and never an unfinished image."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from harness.service_harness import ServiceHarness
from image_service.domain.keys import original_key
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable, OriginalRemoved

DAY = 86_400.0
OLD = DAY + 60
YOUNG = DAY - 60

Make = Callable[[ServiceHarness], Awaitable[UUID]]
KEEP: dict[str, dict[str, Any]] = {"images": {"images_for": DAY}, "originals": {"originals_for": DAY}}


async def renewed_leased(env: ServiceHarness) -> UUID:
    return (await env.claim(await env.renewed())).image_id


async def aged(env: ServiceHarness, make: Make, age: float = OLD) -> UUID:
    image_id = await make(env)
    await env.time_passes(image_id, age)
    return image_id


async def files_of(env: ServiceHarness, *images: UUID) -> set[str]:
    found = {key for key in await env.files() if any(str(image_id) in key for image_id in images)}
    assert found
    return found


@pytest.mark.parametrize("make", [ServiceHarness.done, ServiceHarness.failed])
async def test_an_old_image_is_deleted_with_all_its_files(env: ServiceHarness, make: Make) -> None:
    old, young = await aged(env, make), await aged(env, make, YOUNG)
    expected = await files_of(env, old)
    assert await env.retention(images_for=DAY).run_once() == len(expected)
    assert await env.count() == 1
    assert set(await env.removals()) == expected
    await env.deletion().run_once()
    assert await env.files() == await files_of(env, young)


@pytest.mark.parametrize("make", [ServiceHarness.done, ServiceHarness.failed])
async def test_an_old_original_is_deleted_and_the_rest_stays(env: ServiceHarness, make: Make) -> None:
    old, young = await aged(env, make), await aged(env, make, YOUNG)
    before = await env.image(old)
    assert await env.retention(originals_for=DAY).run_once() == 1
    assert set(await env.removals()) == {original_key(old)}
    await env.deletion().run_once()
    assert original_key(old) not in await env.files()
    assert original_key(young) in await env.files()
    after = await env.image(old)
    assert (after.status, after.error, after.thumbnails) == (before.status, before.error, before.thumbnails)
    assert {each.key for each in after.thumbnails} <= await env.files()
    assert after.original_removed_at is not None
    with pytest.raises(OriginalRemoved):
        await env.lookup().original(old)
    assert await env.retention(originals_for=DAY).run_once() == 0


async def test_an_old_image_without_its_original_is_deleted(env: ServiceHarness) -> None:
    image_id = await aged(env, ServiceHarness.done)
    service = env.retention(originals_for=DAY, images_for=2 * DAY)
    assert await service.run_once() == 1
    await env.time_passes(image_id, DAY)
    assert await service.run_once() == 4
    await env.deletion().run_once()
    assert await env.count() == 0
    assert await env.files() == set()


async def test_without_retention_nothing_is_deleted(env: ServiceHarness) -> None:
    image_id = await aged(env, ServiceHarness.done, 1000 * DAY)
    before = await env.row(image_id)
    assert await env.retention().run_once() == 0
    assert await env.row(image_id) == before


@pytest.mark.parametrize("keep", KEEP)
@pytest.mark.parametrize(
    "make", [ServiceHarness.new, ServiceHarness.queued, ServiceHarness.leased, ServiceHarness.renewed, renewed_leased]
)
async def test_unfinished_images_are_never_deleted(env: ServiceHarness, keep: str, make: Make) -> None:
    image_id = await aged(env, make, 1000 * DAY)
    before, files = await env.row(image_id), await env.files()
    assert await env.retention(**KEEP[keep]).run_once() == 0
    assert await env.row(image_id) == before
    assert await env.files() == files
    assert await env.removals() == {}


@pytest.mark.parametrize("keep", KEEP)
async def test_reprocessing_restarts_the_retention_period(env: ServiceHarness, keep: str) -> None:
    image_id = await aged(env, ServiceHarness.renewed)
    await env.render(image_id)
    assert await env.retention(**KEEP[keep]).run_once() == 0
    assert await env.status(image_id) is Status.DONE


@pytest.mark.parametrize(("keep", "call"), [("images", "remove"), ("originals", "remove_originals")])
async def test_an_image_reprocessed_during_the_run_is_not_deleted(env: ServiceHarness, keep: str, call: str) -> None:
    spared, gone = await aged(env, ServiceHarness.done), await aged(env, ServiceHarness.done)
    expected = len(await files_of(env, gone)) if keep == "images" else 1

    async def reprocess(images: list[UUID]) -> None:
        if spared in images:
            await env.reprocess(spared)

    env.script.before(call, reprocess)
    assert await env.retention(**KEEP[keep]).run_once() == expected
    assert await env.status(spared) is Status.NEW
    await env.deletion().run_once()
    await env.render(spared)
    assert await env.status(spared) is Status.DONE


@pytest.mark.parametrize(("keep", "call"), [("images", "remove"), ("originals", "remove_originals")])
async def test_an_image_deleted_during_the_run_is_ignored(env: ServiceHarness, keep: str, call: str) -> None:
    image_id = await aged(env, ServiceHarness.done)

    removed: list[str] = []

    async def delete(_: object) -> None:
        removed.extend(await env.ask(lambda r: r.images.remove([image_id])))

    env.script.before(call, delete)
    assert await env.retention(**KEEP[keep]).run_once() == 0
    assert await env.count() == 0
    assert sorted(await env.removals()) == sorted(removed)


@pytest.mark.parametrize("keep", KEEP)
async def test_exactly_the_old_images_are_deleted_across_batches(env: ServiceHarness, keep: str) -> None:
    old = [await aged(env, ServiceHarness.failed) for _ in range(5)]
    for _ in range(3):
        await aged(env, ServiceHarness.failed, YOUNG)
    assert await env.retention(**KEEP[keep], batch=2).run_once() == 5
    assert set(await env.removals()) == {original_key(image_id) for image_id in old}


@pytest.mark.parametrize("keep", KEEP)
async def test_concurrent_runs_delete_each_file_once(env: ServiceHarness, keep: str) -> None:
    for _ in range(4):
        await aged(env, ServiceHarness.failed)
    counts = await asyncio.gather(*(env.retention(**KEEP[keep]).run_once() for _ in range(2)))
    assert sum(counts) == 4
    assert len(await env.removals()) == 4


@pytest.mark.parametrize(("keep", "call"), [("images", "remove"), ("originals", "remove_originals")])
async def test_without_the_database_nothing_is_deleted(env: ServiceHarness, keep: str, call: str) -> None:
    image_id = await aged(env, ServiceHarness.done)
    before = await env.row(image_id)
    env.script.fail(call, [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await env.retention(**KEEP[keep]).run_once()
    assert await env.row(image_id) == before
    assert await env.removals() == {}
    assert await env.retention(**KEEP[keep]).run_once() > 0
