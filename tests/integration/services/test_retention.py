"""Retention: what is old enough goes, and nothing that is unfinished is ever touched."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from image_service.domain.keys import original_key
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable, OriginalRemoved
from image_service.services import retention
from tests.support.stage import Stage

DAY = 86_400.0
OLD = DAY + 60
YOUNG = DAY - 60

Make = Callable[[Stage], Awaitable[UUID]]
KEEP: dict[str, dict[str, Any]] = {"images": {"images_for": DAY}, "originals": {"originals_for": DAY}}


async def leased(stage: Stage) -> UUID:
    return (await stage.claimed()).image_id


async def again(stage: Stage) -> UUID:
    """An image that was DONE, and is to be rendered once more."""
    image_id = await stage.done()
    await stage.reprocess(image_id)
    return image_id


async def again_leased(stage: Stage) -> UUID:
    return (await stage.claim(await again(stage))).image_id


async def aged(stage: Stage, make: Make, age: float = OLD) -> UUID:
    image_id = await make(stage)
    await stage.time_passes(image_id, age)
    return image_id


async def files_of(stage: Stage, *images: UUID) -> set[str]:
    found = {key for key in await stage.files() if any(str(image_id) in key for image_id in images)}
    assert found
    return found


@pytest.mark.parametrize("make", [Stage.done, Stage.failed])
async def test_an_image_is_forgotten_with_all_its_files_once_it_is_old(stage: Stage, make: Make) -> None:
    old, young = await aged(stage, make), await aged(stage, make, YOUNG)
    expected = await files_of(stage, old)
    assert await stage.retention(images_for=DAY).run_once() == len(expected)
    assert await stage.count() == 1
    assert set(await stage.removals()) == expected
    await stage.deletion().run_once()
    assert await stage.files() == await files_of(stage, young)


@pytest.mark.parametrize("make", [Stage.done, Stage.failed])
async def test_an_original_is_let_go_of_once_it_is_old_and_the_rest_stays(stage: Stage, make: Make) -> None:
    old, young = await aged(stage, make), await aged(stage, make, YOUNG)
    before = await stage.image(old)
    assert await stage.retention(originals_for=DAY).run_once() == 1
    assert set(await stage.removals()) == {original_key(old)}
    await stage.deletion().run_once()
    assert original_key(old) not in await stage.files()
    assert original_key(young) in await stage.files()
    after = await stage.image(old)
    assert (after.status, after.error, after.thumbnails) == (before.status, before.error, before.thumbnails)
    assert {each.key for each in after.thumbnails} <= await stage.files()
    assert after.original_removed_at is not None
    with pytest.raises(OriginalRemoved):
        await stage.lookup().original(old)
    assert await stage.retention(originals_for=DAY).run_once() == 0


async def test_an_image_without_its_original_is_forgotten_in_its_time(stage: Stage) -> None:
    image_id = await aged(stage, Stage.done)
    keeping = stage.retention(originals_for=DAY, images_for=2 * DAY)
    assert await keeping.run_once() == 1
    await stage.time_passes(image_id, DAY)
    assert await keeping.run_once() == 4
    await stage.deletion().run_once()
    assert await stage.count() == 0
    assert await stage.files() == set()


async def test_what_is_to_be_kept_for_ever_is(stage: Stage) -> None:
    image_id = await aged(stage, Stage.done, 1000 * DAY)
    before = await stage.row(image_id)
    assert await stage.retention().run_once() == 0
    assert await stage.row(image_id) == before


@pytest.mark.parametrize("keep", KEEP)
@pytest.mark.parametrize("make", [Stage.new, Stage.queued, leased, again, again_leased])
async def test_what_is_unfinished_is_never_touched_however_old(stage: Stage, keep: str, make: Make) -> None:
    image_id = await aged(stage, make, 1000 * DAY)
    before, files = await stage.row(image_id), await stage.files()
    assert await stage.retention(**KEEP[keep]).run_once() == 0
    assert await stage.row(image_id) == before
    assert await stage.files() == files
    assert await stage.removals() == {}


@pytest.mark.parametrize("keep", KEEP)
async def test_an_image_that_is_rendered_again_is_kept_for_as_long_again(stage: Stage, keep: str) -> None:
    image_id = await aged(stage, again)
    await stage.render(image_id)
    assert await stage.retention(**KEEP[keep]).run_once() == 0
    assert await stage.status(image_id) is Status.DONE


@pytest.mark.parametrize(("keep", "question"), [("images", "remove"), ("originals", "remove_originals")])
async def test_an_image_that_begins_anew_meanwhile_is_spared(stage: Stage, keep: str, question: str) -> None:
    spared, gone = await aged(stage, Stage.done), await aged(stage, Stage.done)
    expected = len(await files_of(stage, gone)) if keep == "images" else 1

    async def begin_anew(images: list[UUID]) -> None:
        if spared in images:
            await stage.reprocess(spared)

    stage.script.before(question, begin_anew)
    assert await stage.retention(**KEEP[keep]).run_once() == expected
    assert await stage.status(spared) is Status.NEW
    await stage.deletion().run_once()
    await stage.render(spared)
    assert await stage.status(spared) is Status.DONE


@pytest.mark.parametrize(("keep", "question"), [("images", "remove"), ("originals", "remove_originals")])
async def test_an_image_that_is_deleted_meanwhile_is_no_trouble(stage: Stage, keep: str, question: str) -> None:
    image_id = await aged(stage, Stage.done)

    removed: list[str] = []

    async def delete(_: object) -> None:
        removed.extend(await stage.ask(lambda r: r.images.remove([image_id])))

    stage.script.before(question, delete)
    assert await stage.retention(**KEEP[keep]).run_once() == 0
    assert await stage.count() == 0
    assert sorted(await stage.removals()) == sorted(removed)


@pytest.mark.parametrize("keep", KEEP)
async def test_however_many_they_are_exactly_the_old_ones_go(
    stage: Stage, keep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_BATCH", 2)
    old = [await aged(stage, Stage.failed) for _ in range(5)]
    for _ in range(3):
        await aged(stage, Stage.failed, YOUNG)
    assert await stage.retention(**KEEP[keep]).run_once() == 5
    assert set(await stage.removals()) == {original_key(image_id) for image_id in old}


@pytest.mark.parametrize("keep", KEEP)
async def test_two_runs_at_once_let_go_of_each_file_once(stage: Stage, keep: str) -> None:
    for _ in range(4):
        await aged(stage, Stage.failed)
    counts = await asyncio.gather(*(stage.retention(**KEEP[keep]).run_once() for _ in range(2)))
    assert sum(counts) == 4
    assert len(await stage.removals()) == 4


@pytest.mark.parametrize(("keep", "question"), [("images", "remove"), ("originals", "remove_originals")])
async def test_while_the_database_is_away_nothing_goes(stage: Stage, keep: str, question: str) -> None:
    image_id = await aged(stage, Stage.done)
    before = await stage.row(image_id)
    stage.script.fail(question, [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await stage.retention(**KEEP[keep]).run_once()
    assert await stage.row(image_id) == before
    assert await stage.removals() == {}
    assert await stage.retention(**KEEP[keep]).run_once() > 0
