"""Late outputs: what a DONE image lacks is made later, and only that."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count, repeat
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update
from structlog.testing import capture_logs

from harness.fakes import Failure
from harness.service_harness import GRACE, LEASE, UNCLAIMED_AFTER, UNQUEUED_AFTER, ServiceHarness
from harness.waiting import eventually
from image_service.database.clock import now
from image_service.domain.image import Image
from image_service.domain.keys import original_key, thumbnail_key
from image_service.domain.lane import Lane
from image_service.domain.recipe import OutputFormat, Preset, Recipe, Recipes
from image_service.domain.status import Status
from image_service.errors import (
    CorruptImage,
    DatabaseUnavailable,
    DecoderCrashed,
    DecoderTimeout,
    ObjectUnreadable,
    Outage,
    StorageFull,
    StorageUnavailable,
)
from image_service.models import ThumbnailRow
from image_service.ports import Delivery
from image_service.services.backfill import Progress

JPEG, WEBP, AVIF = OutputFormat.JPEG, OutputFormat.WEBP, OutputFormat.AVIF
SQUARE = Preset(name="square", width=256, height=256, formats=(JPEG, WEBP))
HERO = Preset(name="hero", width=1600, formats=(JPEG, AVIF), dpr=(1, 2), optional=True)
AVATAR = Recipe(name="avatar", presets=(SQUARE, HERO))
DATABASE_TIME = select(now())
REQUIRED = {"square", "square.webp"}
OPTIONAL = {"hero", "hero.avif", "hero@2x", "hero@2x.avif"}


def changed(*presets: Preset) -> Recipes:
    """The recipe with other presets."""
    return Recipes(Recipe(name="avatar", presets=presets))


@pytest.fixture(autouse=True)
def recipes(request: pytest.FixtureRequest) -> None:
    for name in {"env", "sqlite_env"} & set(request.fixturenames):
        request.getfixturevalue(name).recipes = Recipes(AVATAR)


async def done(env: ServiceHarness) -> UUID:
    """Returns an image whose required outputs are there, and whose optional ones are due."""
    image_id = await env.queued(recipe="avatar")
    await env.render(image_id)
    return image_id


async def complete(env: ServiceHarness) -> UUID:
    """Returns an image that has all its outputs."""
    image_id = await done(env)
    await env.render(image_id, Lane.BACKFILL)
    assert await names(env, image_id) == REQUIRED | OPTIONAL
    return image_id


def late(image_id: UUID) -> Delivery:
    return Delivery(image_id=image_id, lane=Lane.BACKFILL)


async def outdated(env: ServiceHarness, *presets: Preset) -> UUID:
    """Returns a complete image that a backfill has marked after its recipe was changed to these presets."""
    image_id = await complete(env)
    env.recipes = changed(*presets)
    assert await env.backfill().step(window=10) == Progress(marked=1, waiting=1)
    return image_id


async def names(env: ServiceHarness, image_id: UUID) -> set[str]:
    return {each.output for each in (await env.image(image_id)).thumbnails}


async def files_are_those_recorded(env: ServiceHarness, image_id: UUID) -> None:
    """Assert that each recorded file is there and intact, and that all others are due for removal."""
    image = await env.image(image_id)
    for each in image.thumbnails:
        assert hashlib.sha256(await env.content(each.key)).hexdigest() == each.sha256
    recorded = {each.key for each in image.thumbnails} | {original_key(image_id)}
    assert await env.files() == recorded | set(await env.removals())
    assert not recorded & set(await env.removals())
    assert env.scratch() == []


async def is_settled(env: ServiceHarness, image_id: UUID, recipe: Recipe = AVATAR) -> None:
    """Assert that nothing of the image is left to do."""
    row = await env.row(image_id)
    assert (row["status"], row["recipe"], row["pending"]) == (Status.DONE, recipe.fingerprint, None)
    assert (row["outputs_due_at"], row["outputs_lease_until"], row["outputs_attempts"]) == (None, None, 0)
    await files_are_those_recorded(env, image_id)


async def test_required_outputs_make_an_image_done_and_optional_ones_are_pending(env: ServiceHarness) -> None:
    image_id = await env.queued(recipe="avatar")
    await env.processing().process(Delivery(image_id=image_id))
    image, row = await env.image(image_id), await env.row(image_id)
    assert (image.status, image.recipe, set(image.pending), image.left_out) == (Status.DONE, None, OPTIONAL, {})
    assert {each.output: each.fingerprint for each in image.thumbnails} == {
        each.name: each.fingerprint for each in AVATAR.required
    }
    assert row["outputs_due_at"] == row["finished_at"]
    assert (row["outputs_lease_until"], row["outputs_attempts"]) == (None, 0)
    assert env.script.done == ["claim", "local_path", "render", "adopt", "complete"]


async def test_a_recipe_without_optional_outputs_is_complete_at_once(env: ServiceHarness) -> None:
    env.recipes = changed(SQUARE)
    image_id = await env.queued(recipe="avatar")
    env.renderer.left_out = {"square.webp"}
    await env.processing().process(Delivery(image_id=image_id))
    image = await env.image(image_id)
    webp = AVATAR.required[1]
    assert (image.pending, image.left_out) == ((), {"square.webp": webp.fingerprint})
    await is_settled(env, image_id, changed(SQUARE).find("avatar") or AVATAR)
    assert env.script.done == ["claim", "local_path", "render", "adopt", "complete"]


async def test_optional_outputs_follow_and_the_required_ones_stay(env: ServiceHarness) -> None:
    image_id = await done(env)
    before = await env.image(image_id)
    await env.reconciler().run_once()
    assert env.queue.published == [late(image_id)]
    await env.processing().process(env.queue.published[0])
    image = await env.image(image_id)
    assert set(env.renderer.made) == OPTIONAL
    assert {each.output for each in image.thumbnails} == REQUIRED | OPTIONAL
    assert set(before.thumbnails) <= set(image.thumbnails)
    assert {each.key for each in image.thumbnails if each.output in OPTIONAL} == {
        thumbnail_key(image_id, 2, name) for name in OPTIONAL
    }
    assert image.finished_at == before.finished_at
    assert image.updated_at > before.updated_at
    await is_settled(env, image_id)


async def test_outputs_that_the_renderer_leaves_out_are_recorded_and_not_tried_again(env: ServiceHarness) -> None:
    image_id = await done(env)
    env.renderer.left_out = {"hero@2x", "hero@2x.avif"}
    await env.processing().process(late(image_id))
    image = await env.image(image_id)
    assert set(image.left_out) == env.renderer.left_out
    await is_settled(env, image_id)
    assert await env.backfill().step(window=10) == Progress(marked=0, waiting=0)


async def test_a_message_of_another_lane_does_not_make_late_outputs(env: ServiceHarness) -> None:
    """As a worker of a version does that knows none: it finds the image DONE, and acknowledges."""
    image_id = await done(env)
    before = await env.row(image_id)
    await env.processing().process(Delivery(image_id=image_id))
    assert await env.row(image_id) == before


async def test_an_unfinished_image_of_the_backfill_lane_is_processed(env: ServiceHarness) -> None:
    image_id = await env.queued(Lane.BACKFILL, recipe="avatar")
    await env.processing().process(late(image_id))
    assert await env.status(image_id) is Status.DONE


async def test_two_workers_make_late_outputs_once(env: ServiceHarness) -> None:
    image_id = await done(env)
    env.renderer.gate.clear()
    processing = env.processing()
    tasks = [asyncio.create_task(processing.process(late(image_id))) for _ in range(3)]
    await eventually(lambda: env.renderer.running == 1 and sum(task.done() for task in tasks) == 2)
    env.renderer.gate.set()
    await asyncio.gather(*tasks)
    assert env.script.tried["render"] == 1
    await is_settled(env, image_id)


async def killed(env: ServiceHarness, image_id: UUID) -> None:
    """Claim late outputs as a worker that is killed; its lease ends."""
    claim = await env.ask(lambda r: r.outputs.claim_outputs(image_id, lease=LEASE))
    assert claim is not None
    await env.put(thumbnail_key(image_id, claim.attempt, "hero"))
    await env.time_passes(image_id, LEASE + 1)


async def test_late_outputs_of_a_killed_worker_are_queued_again(env: ServiceHarness) -> None:
    image_id = await done(env)
    await killed(env, image_id)
    assert await env.reconciler().run_once() == 1
    await env.processing().process(env.queue.published[0])
    assert await names(env, image_id) == REQUIRED | OPTIONAL
    orphan = thumbnail_key(image_id, 2, "hero")
    assert orphan in await env.files()
    for key in await env.files():
        env.grow_old(key, GRACE + 60)
    assert await env.sweep() == 1
    await is_settled(env, image_id)


async def test_files_of_a_late_attempt_in_progress_are_not_swept(env: ServiceHarness) -> None:
    image_id = await done(env)
    swept: list[int] = []

    async def sweep(*_: object) -> None:
        for key in await env.files():
            env.grow_old(key, GRACE + 60)
        swept.append(await env.sweep())

    env.script.before("complete_outputs", sweep)
    await env.processing().process(late(image_id))
    assert swept == [0]
    await is_settled(env, image_id)


async def test_a_worker_whose_claim_was_lost_removes_its_own_files_only(env: ServiceHarness) -> None:
    image_id = await done(env)

    async def finish_as_another_worker(*_: object) -> None:
        await env.time_passes(image_id, LEASE + 1)
        await env.render(image_id, Lane.BACKFILL)

    env.script.before("complete_outputs", finish_as_another_worker)
    await env.processing().process(late(image_id))
    assert {each.key for each in (await env.image(image_id)).thumbnails if each.output in OPTIONAL} == {
        thumbnail_key(image_id, 3, name) for name in OPTIONAL
    }
    await is_settled(env, image_id)


async def test_a_lost_claim_ends_the_rendering(env: ServiceHarness) -> None:
    image_id = await done(env)
    env.renderer.gate.clear()
    task = asyncio.create_task(env.processing(heartbeat=0.01).process(late(image_id)))
    await eventually(lambda: env.renderer.running == 1)
    await env.reprocess(image_id)
    await task
    assert env.renderer.cancelled == 1
    assert await env.status(image_id) is Status.NEW
    await files_are_those_recorded(env, image_id)


async def test_the_lease_is_extended_while_late_outputs_are_made(env: ServiceHarness) -> None:
    image_id = await done(env)
    env.renderer.gate.clear()
    env.script.fail("extend_outputs", [DatabaseUnavailable])
    task = asyncio.create_task(env.processing(heartbeat=0.01).process(late(image_id)))
    await eventually(lambda: env.script.done.count("extend_outputs") >= 2)
    assert await env.ask(lambda r: r.outputs.claim_outputs(image_id, lease=LEASE)) is None
    row = await env.row(image_id)
    assert row["outputs_due_at"] == row["outputs_lease_until"]
    env.renderer.gate.set()
    await task
    await is_settled(env, image_id)


async def test_a_lost_reply_to_the_commit_of_late_outputs_loses_no_file(env: ServiceHarness) -> None:
    image_id = await done(env)
    env.script.lose_replies("complete_outputs", [DatabaseUnavailable])
    await env.processing().process(late(image_id))
    assert env.script.tried["complete_outputs"] == 2
    assert await names(env, image_id) == REQUIRED | OPTIONAL
    await is_settled(env, image_id)


async def test_a_repeated_commit_after_the_next_backfill_changes_nothing(env: ServiceHarness) -> None:
    image_id = await outdated(env, replace(SQUARE, quality=60), HERO)
    tries = count()

    async def mark_again(*_: object) -> None:
        if next(tries):
            env.recipes = Recipes(AVATAR)
            assert (await env.backfill().step(window=10)).marked == 1

    env.script.before("complete_outputs", mark_again)
    env.script.lose_replies("complete_outputs", [DatabaseUnavailable])
    await env.processing().process(late(image_id))
    assert next(tries) == 2
    await files_are_those_recorded(env, image_id)
    await env.render(image_id, Lane.BACKFILL)
    await is_settled(env, image_id)


@pytest.mark.parametrize(
    ("effect", "outage"),
    [
        ("get", DatabaseUnavailable()),
        ("local_path", StorageUnavailable()),
        ("render", Outage("No decoder.")),
        ("adopt", StorageFull()),
    ],
)
async def test_an_outage_charges_no_attempt_on_late_outputs(env: ServiceHarness, effect: str, outage: Outage) -> None:
    image_id = await done(env)
    env.script.fail(effect, repeat(outage, 2))
    processing = env.processing(max_attempts=1, max_decoder_failures=1)
    for _ in range(2):
        with pytest.raises(type(outage)):
            await processing.process(late(image_id))
        assert (await env.row(image_id))["outputs_attempts"] == 0
    await processing.process(late(image_id))
    await is_settled(env, image_id)


async def test_cancelling_releases_the_claim_on_late_outputs(env: ServiceHarness) -> None:
    image_id = await done(env)
    env.renderer.gate.clear()
    task = asyncio.create_task(env.processing().process(late(image_id)))
    await eventually(lambda: env.renderer.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    env.renderer.gate.set()
    await env.processing(max_attempts=1).process(late(image_id))
    await is_settled(env, image_id)


async def left_out(env: ServiceHarness, image_id: UUID, before: Image) -> None:
    """Assert that the pending outputs were given up, and that the image is as it was."""
    image = await env.image(image_id)
    assert (image.status, image.thumbnails) == (Status.DONE, before.thumbnails)
    assert set(image.left_out) == OPTIONAL
    await is_settled(env, image_id)
    assert await env.backfill().step(window=10) == Progress(marked=0, waiting=0)


async def test_outputs_of_which_the_decoder_refuses_the_file_are_left_out(env: ServiceHarness) -> None:
    image_id = await done(env)
    before = await env.image(image_id)
    env.script.fail("render", [CorruptImage])
    with capture_logs() as logs:
        await env.processing().process(late(image_id))
    (line,) = (each for each in logs if each["log_level"] == "warning")
    assert (line["event"], line["code"]) == ("late outputs left out", "corrupt-image")
    assert (await env.image(image_id)).finished_at == before.finished_at
    await left_out(env, image_id, before)


@pytest.mark.parametrize(
    ("failures", "policy"),
    [
        ([DecoderCrashed] * 3, {}),
        ([DecoderTimeout] * 2, {}),
        ([ObjectUnreadable] * 5, {}),
        ([RuntimeError("a defect")] * 5, {}),
        ([DecoderCrashed], {"max_decoder_failures": 1}),
    ],
)
async def test_outputs_are_left_out_after_too_many_failures(
    env: ServiceHarness, failures: list[Failure], policy: dict[str, Any]
) -> None:
    image_id = await done(env)
    before = await env.image(image_id)
    env.script.fail("render", failures)
    processing = env.processing(**policy)
    for _ in failures[:-1]:
        await processing.process(late(image_id))
        assert (await env.row(image_id))["outputs_due_at"] is not None
        await processing.process(late(image_id))  # rests: nothing happens
        await env.time_passes(image_id, 61)
    await processing.process(late(image_id))
    assert env.script.tried["render"] == len(failures)
    await left_out(env, image_id, before)


async def test_nothing_is_left_out_of_an_image_that_was_deleted_meanwhile(env: ServiceHarness) -> None:
    image_id = await done(env)

    async def delete(*_: object) -> None:
        await env.deletion().delete(image_id)

    env.script.before("render", delete)
    env.script.fail("render", [CorruptImage])
    with capture_logs() as logs:
        await env.processing().process(late(image_id))
    assert [each["event"] for each in logs if each["log_level"] == "warning"] == [
        "claim lost: claimed by another worker, or deleted"
    ]


async def test_outputs_are_left_out_after_too_many_killed_workers(env: ServiceHarness) -> None:
    image_id = await done(env)
    before = await env.image(image_id)
    for _ in range(5):
        claim = await env.ask(lambda r: r.outputs.claim_outputs(image_id, lease=LEASE))
        assert claim is not None
        await env.time_passes(image_id, LEASE + 1)
    env.script.lose_replies("complete_outputs", [DatabaseUnavailable])
    await env.processing().process(late(image_id))
    assert env.script.tried["render"] == 0
    await left_out(env, image_id, before)


async def test_required_outputs_of_a_changed_recipe_that_cannot_be_made_stay_the_old_ones(
    env: ServiceHarness,
) -> None:
    image_id = await outdated(env, replace(SQUARE, quality=60), HERO)
    before = await env.image(image_id)
    env.script.fail("render", [CorruptImage])
    await env.processing().process(late(image_id))
    image = await env.image(image_id)
    assert image.thumbnails == before.thumbnails
    assert set(image.left_out) == REQUIRED
    await is_settled(env, image_id, env.recipes.find("avatar") or AVATAR)


async def test_a_claim_on_an_unknown_recipe_is_released_uncharged(env: ServiceHarness) -> None:
    image_id = await env.queued(recipe="avatar")
    env.recipes = Recipes()
    for delay in (10, 20):
        with capture_logs() as logs:
            await env.processing(max_attempts=1).process(Delivery(image_id=image_id))
        (line,) = (each for each in logs if each["log_level"] == "warning")
        assert (line["event"], line["recipe"]) == ("recipe unknown; left to another worker", "avatar")
        row = await env.row(image_id)
        assert (row["status"], row["attempts_charged"]) == (Status.PROCESSING, 0)
        assert (row["due_at"] - row["updated_at"]).total_seconds() == pytest.approx(delay, abs=1)
    env.recipes = Recipes(AVATAR)
    await env.time_passes(image_id, 21)
    assert await env.reconciler().run_once() == 1
    await env.processing(max_attempts=1).process(env.queue.published[0])
    assert await env.status(image_id) is Status.DONE


async def test_the_delay_of_an_image_of_an_unknown_recipe_is_bounded(sqlite_env: ServiceHarness) -> None:
    image_id = await sqlite_env.queued(recipe="avatar")
    sqlite_env.recipes = Recipes()
    await sqlite_env.change(image_id, attempt=5000)
    await sqlite_env.processing().process(Delivery(image_id=image_id))
    row = await sqlite_env.row(image_id)
    assert (row["due_at"] - row["updated_at"]).total_seconds() == pytest.approx(600, abs=1)


async def test_late_outputs_of_an_unknown_recipe_wait_for_a_worker_that_knows_it(env: ServiceHarness) -> None:
    image_id = await done(env)
    env.recipes = Recipes()
    await env.processing(max_attempts=1).process(late(image_id))
    row = await env.row(image_id)
    assert (row["outputs_attempts"], row["pending"] is None) == (0, False)
    env.recipes = Recipes(AVATAR)
    await env.processing(max_attempts=1).process(late(image_id))
    await is_settled(env, image_id)


async def test_only_changed_outputs_are_made_again(env: ServiceHarness) -> None:
    image_id = await complete(env)
    before = {each.output: each for each in (await env.image(image_id)).thumbnails}
    env.recipes = changed(replace(SQUARE, quality=((WEBP, 60),)), HERO)
    assert await env.backfill().step(window=10) == Progress(marked=1, waiting=1)
    assert {each.output: each for each in (await env.image(image_id)).thumbnails} == before, "the old set is served"
    await env.reconciler().run_once()
    await env.processing().process(env.queue.published[0])
    assert env.renderer.made == ["square.webp"]
    after = {each.output: each for each in (await env.image(image_id)).thumbnails}
    assert {name for name in before if before[name] != after[name]} == {"square.webp"}
    assert set(await env.removals()) == {before["square.webp"].key}
    await is_settled(env, image_id, env.recipes.find("avatar") or AVATAR)
    assert await env.backfill().step(window=10) == Progress(marked=0, waiting=0)


async def test_nothing_is_rendered_if_a_preset_is_removed(env: ServiceHarness) -> None:
    image_id = await outdated(env, SQUARE)
    gone = {each.key for each in (await env.image(image_id)).thumbnails if each.output in OPTIONAL}
    await env.processing().process(late(image_id))
    assert env.script.tried["render"] == 0
    assert await names(env, image_id) == REQUIRED
    assert set(await env.removals()) == gone
    await is_settled(env, image_id, changed(SQUARE).find("avatar") or AVATAR)


async def test_an_image_of_an_earlier_version_keeps_the_outputs_that_did_not_change(env: ServiceHarness) -> None:
    """That version recorded the fingerprint of its recipe for the image, and none for the files."""
    image_id = await env.done()
    await env.ask(
        lambda r: r.connection.execute(
            update(ThumbnailRow).where(ThumbnailRow.image_id == image_id).values(fingerprint=None)
        )
    )
    small, middle, large = env.recipes.default.presets
    env.recipes = Recipes(Recipe(presets=(small, replace(middle, quality=60), large)))
    assert (await env.backfill().step(window=10)).marked == 1
    await env.processing().process(late(image_id))
    assert env.renderer.made == ["300x300"]
    outputs = {each.name: each.fingerprint for each in env.recipes.default.outputs}
    assert {each.output: each.fingerprint for each in (await env.image(image_id)).thumbnails} == outputs
    await is_settled(env, image_id, env.recipes.default)
    env.recipes = Recipes(AVATAR)
    assert (await env.backfill().step(window=10)).marked == 1
    await env.processing().process(late(image_id))
    assert env.renderer.made == ["300x300", "300x300"]


async def test_a_backfill_leaves_images_of_unknown_recipes_and_counts_them(env: ServiceHarness) -> None:
    unknown, known = await complete(env), await env.done("another recipe")
    before = await env.row(unknown)
    env.recipes = Recipes()
    backfill = env.backfill(scan=1)
    assert await backfill.step(window=10) == Progress(marked=1, waiting=1, unknown=1)
    await env.processing().process(late(known))
    assert await backfill.step(window=10) == Progress(marked=0, waiting=0)
    assert await env.row(unknown) == before


async def test_a_finished_backfill_does_not_wait_for_later_uploads(env: ServiceHarness) -> None:
    await complete(env)
    backfill = env.backfill()
    assert await backfill.step(window=10) == Progress(marked=0, waiting=0)
    later = await done(env)
    newest = UUID(int=2**128 - 1)
    assert await env.ask(lambda r: r.outputs.outputs_waiting(limit=10, until=newest)) == 1
    assert await env.ask(lambda r: r.outputs.outputs_waiting(limit=10, until=UUID(int=0))) == 0
    assert (await env.row(later))["outputs_due_at"] is not None


async def test_a_left_out_format_is_judged_again_when_the_default_one_changes(env: ServiceHarness) -> None:
    env.renderer.left_out = {"square.webp"}
    image_id = await env.queued(recipe="avatar")
    await env.processing().process(Delivery(image_id=image_id))
    await env.processing().process(late(image_id))
    env.renderer.left_out, env.renderer.made = set(), []
    env.recipes = changed(replace(SQUARE, quality=((JPEG, 95),)), HERO)
    assert (await env.backfill().step(window=10)).marked == 1
    await env.processing().process(late(image_id))
    assert env.renderer.made == ["square", "square.webp"]
    assert "square.webp" in await names(env, image_id)
    await is_settled(env, image_id, env.recipes.find("avatar") or AVATAR)


async def test_a_new_format_that_is_no_smaller_than_the_recorded_default_is_left_out(env: ServiceHarness) -> None:
    image_id = await outdated(env, replace(SQUARE, formats=(JPEG, WEBP, AVIF)), HERO)
    small = update(ThumbnailRow).where(ThumbnailRow.image_id == image_id, ThumbnailRow.output == "square")
    await env.ask(lambda r: r.connection.execute(small.values(size_bytes=1)))
    await env.processing().process(late(image_id))
    image = await env.image(image_id)
    assert env.renderer.made == ["square.avif"]
    assert set(image.left_out) == {"square.avif", "square.webp"}
    assert {each.output for each in image.thumbnails} == {"square"} | OPTIONAL
    assert thumbnail_key(image_id, 3, "square.avif") not in await env.files()


async def test_a_deleted_image_gets_no_late_outputs(env: ServiceHarness) -> None:
    for moment in ("get", "local_path", "render", "adopt", "complete_outputs"):
        image_id = await done(env)

        async def delete(*_: object, image_id: UUID = image_id) -> None:
            await env.deletion().delete(image_id)

        env.script.before(moment, delete)
        await env.processing().process(late(image_id))
        env.script.before(moment, nothing)
    assert await env.files() == set()
    assert await env.count() == 0


async def nothing(*_: object) -> None:
    pass


async def reprocess(env: ServiceHarness, image_id: UUID) -> None:
    await env.reprocess(image_id)


async def reprocess_and_finish(env: ServiceHarness, image_id: UUID) -> None:
    await env.reprocess(image_id)
    await env.render(image_id)


async def remove_original(env: ServiceHarness, image_id: UUID) -> None:
    await env.ask(lambda r: r.images.remove_originals([image_id]))


@pytest.mark.parametrize("change", [reprocess, reprocess_and_finish, remove_original])
@pytest.mark.parametrize("moment", ["get", "render", "adopt", "complete_outputs"])
async def test_a_change_of_the_image_ends_a_late_attempt(
    env: ServiceHarness, change: Callable[[ServiceHarness, UUID], Awaitable[None]], moment: str
) -> None:
    image_id = await done(env)
    after: list[dict[str, Any]] = []

    async def change_it(*_: object) -> None:
        env.script.before(moment, nothing)
        await change(env, image_id)
        after.append(await env.row(image_id))

    env.script.before(moment, change_it)
    await env.processing().process(late(image_id))
    assert await env.row(image_id) == after[0]
    assert await names(env, image_id) == REQUIRED
    keys = {each.key for each in (await env.image(image_id)).thumbnails} | set(await env.removals())
    assert await env.files("thumbnails/") == {key for key in keys if key.startswith("thumbnails/")}


async def test_an_image_without_its_original_lacks_nothing(env: ServiceHarness) -> None:
    image_id = await done(env)
    await remove_original(env, image_id)
    image, row = await env.image(image_id), await env.row(image_id)
    assert (image.pending, row["outputs_due_at"]) == ((), None)
    await env.processing().process(late(image_id))
    assert await env.reconciler().run_once() == 0
    assert await env.row(image_id) == row


async def test_outputs_that_an_earlier_version_left_due_without_an_original_are_forgotten(env: ServiceHarness) -> None:
    image_id = await done(env)
    await env.change(image_id, original_removed_at=(await env.row(image_id))["finished_at"])
    await env.processing().process(late(image_id))
    assert env.script.tried["render"] == 0
    assert await env.reconciler().run_once() == 0
    row = await env.row(image_id)
    assert (row["outputs_due_at"], row["pending"]) == (None, None)


async def test_reprocessing_makes_all_outputs_again(env: ServiceHarness) -> None:
    image_id = await complete(env)
    old = {each.key for each in (await env.image(image_id)).thumbnails}
    await env.reprocessing().reprocess(image_id)
    row = await env.row(image_id)
    assert (row["recipe_name"], row["pending"], row["outputs_due_at"]) == ("avatar", None, None)
    await env.processing().process(env.queue.published[0])
    assert set(await env.removals()) == old
    assert set((await env.image(image_id)).pending) == OPTIONAL
    await env.processing().process(late(image_id))
    await is_settled(env, image_id)


async def test_reprocessing_changes_the_recipe(env: ServiceHarness) -> None:
    image_id = await env.done()
    await env.reprocessing().reprocess(image_id, recipe="avatar", request_id="r-1")
    assert env.queue.published == [Delivery(image_id=image_id, lane=Lane.NORMAL, request_id="r-1")]
    await env.processing().process(env.queue.published[0])
    assert await names(env, image_id) == REQUIRED
    await env.reprocessing().reprocess(image_id, recipe="default")
    row = await env.row(image_id)
    assert (row["recipe_name"], row["lane"]) == (None, Lane.EXPRESS)
    await env.processing().process(env.queue.published[1])
    assert await names(env, image_id) == {each.name for each in env.recipes.default.outputs}
    await is_settled(env, image_id, env.recipes.default)


async def test_an_image_of_a_recipe_that_this_process_does_not_know_is_requeued(env: ServiceHarness) -> None:
    image_id = await complete(env)
    env.recipes = Recipes()
    await env.reprocessing().requeue(image_id)
    row = await env.row(image_id)
    assert (row["status"], row["recipe_name"], row["lane"]) == (Status.NEW, "avatar", Lane.NORMAL)


async def test_the_reconciler_queues_no_more_than_the_lane_has_room_for(env: ServiceHarness) -> None:
    images = {await done(env) for _ in range(5)}
    reconciler = env.reconciler(batch=2, window=3)
    assert await reconciler.run_once() == 3
    assert await reconciler.run_once() == 0
    await env.queue.publish(Delivery(image_id=next(iter(images)), lane=Lane.BACKFILL))
    assert await reconciler.run_once() == 0
    env.queue.lose_everything()
    assert await reconciler.run_once() == 2
    assert {each.image_id for each in env.queue.published} == images


async def test_lost_messages_of_late_outputs_are_published_again_with_growing_delays(env: ServiceHarness) -> None:
    image_id = await done(env)
    for delay in (UNCLAIMED_AFTER, 2 * UNCLAIMED_AFTER):
        assert await env.reconciler().run_once() == 1
        assert await env.reconciler().run_once() == 0
        at = (await env.ask(lambda r: r.connection.execute(DATABASE_TIME))).scalar_one()
        left = ((await env.row(image_id))["outputs_due_at"] - at).total_seconds()
        assert delay - 5 < left <= 1.2 * delay
        await env.time_passes(image_id, 1.2 * delay)
    assert await env.reconciler().run_once() == 1
    await env.processing().process(env.queue.published[-1])
    await is_settled(env, image_id)


async def test_a_lost_message_of_late_outputs_is_replaced_once_the_lane_is_empty(env: ServiceHarness) -> None:
    image_id = await done(env)
    assert await env.reconciler().run_once() == 1
    await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await env.reconciler().run_once() == 0  # its message waits
    env.queue.lose_everything()
    assert await env.reconciler().run_once() == 1
    assert await env.reconciler().run_once() == 0
    await env.processing().process(env.queue.published[-1])
    await is_settled(env, image_id)
    assert await env.reconciler().run_once() == 0


async def test_late_outputs_of_a_claim_are_not_queued_although_the_lane_is_empty(env: ServiceHarness) -> None:
    image_id = await done(env)
    await env.reconciler().run_once()
    env.queue.lose_everything()
    await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await env.ask(lambda r: r.outputs.claim_outputs(image_id, lease=LEASE))
    assert await env.reconciler().run_once() == 0


async def test_two_reconcilers_publish_late_outputs_once(env: ServiceHarness) -> None:
    await done(env)

    async def race(*_: object) -> None:
        env.script.before("reserve_outputs", nothing)
        assert await env.reconciler().run_once() == 1

    env.script.before("reserve_outputs", race)
    assert await env.reconciler().run_once() == 0
    assert len(env.queue.published) == 1


async def test_a_restarted_standalone_service_resumes_late_outputs(env: ServiceHarness) -> None:
    published, claimed = await done(env), await done(env)
    await env.reconciler().run_once()
    assert await env.ask(lambda r: r.outputs.claim_outputs(claimed, lease=LEASE))
    env.queue.lose_everything()
    env.queue.published.clear()
    await env.reconciler().resume()
    assert await env.reconciler().run_once() == 2
    for delivery in env.queue.published:
        await env.processing().process(delivery)
    for image_id in (published, claimed):
        assert (await env.image(image_id)).recipe == AVATAR.fingerprint
