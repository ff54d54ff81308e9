"""Processing: every outcome of an attempt, and what it leaves."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import repeat
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from harness.fakes import IMAGE, FakeRenderer, Script
from harness.service_harness import LEASE, ServiceHarness
from harness.waiting import eventually, wait_for
from image_service.domain.image import ImageError, Rendering
from image_service.domain.keys import original_key, thumbnail_key
from image_service.domain.lane import Lane
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.domain.status import Status
from image_service.errors import (
    AttemptsExhausted,
    CorruptImage,
    DatabaseUnavailable,
    DecoderCrashed,
    DecoderFailure,
    DecoderOutOfMemory,
    DecoderTimeout,
    ImageTooLarge,
    InvalidImage,
    ObjectChanged,
    ObjectMissing,
    ObjectUnreadable,
    Outage,
    StorageFull,
    StorageUnavailable,
    UnsupportedFormat,
)
from image_service.ports import Delivery
from image_service.services.processing import Processing

PRESETS = [preset.name for preset in DEFAULT_RECIPE.presets]


def process(processing: Processing, image_id: UUID) -> asyncio.Task[None]:
    return asyncio.create_task(processing.process(Delivery(image_id=image_id)))


def thumbnails(image_id: UUID, attempt: int) -> set[str]:
    return {thumbnail_key(image_id, attempt, preset) for preset in PRESETS}


async def is_done(env: ServiceHarness, image_id: UUID, attempt: int) -> None:
    """Assert that the image is DONE with the thumbnails of this attempt, and that there are no other files."""
    image = await env.image(image_id)
    assert image.status is Status.DONE
    assert sorted(each.output for each in image.thumbnails) == sorted(PRESETS)
    assert {each.key for each in image.thumbnails} == thumbnails(image_id, attempt)
    for each in image.thumbnails:
        content = await env.content(each.key)
        assert (each.size_bytes, each.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert await env.files() == thumbnails(image_id, attempt) | {original_key(image_id)}
    assert env.scratch() == []


async def is_error(env: ServiceHarness, image_id: UUID, error: ImageError) -> None:
    """Assert that the image ended in this error, with no files but its original."""
    image = await env.image(image_id)
    assert (image.status, image.error) == (Status.ERROR, error)
    assert image.thumbnails == ()
    assert await env.files("thumbnails/") == set()
    assert env.scratch() == []


async def charged(env: ServiceHarness, image_id: UUID) -> int:
    return int((await env.row(image_id))["attempts_charged"])


async def retry_delay(env: ServiceHarness, image_id: UUID) -> float:
    """Returns the seconds from the last attempt until the image can be claimed, and is due for the reconciler."""
    row = await env.row(image_id)
    assert row["status"] is Status.PROCESSING
    assert abs(row["due_at"] - row["lease_until"]) < timedelta(seconds=1)
    return float((row["lease_until"] - row["updated_at"]).total_seconds())


async def expire_claim(env: ServiceHarness, image_id: UUID) -> None:
    await env.time_passes(image_id, LEASE + 1)


async def test_an_image_becomes_done_with_all_its_thumbnails(env: ServiceHarness) -> None:
    image_id = await env.queued()
    await env.processing().process(Delivery(image_id=image_id))
    await is_done(env, image_id, attempt=1)
    image = await env.image(image_id)
    assert (image.header.width, image.header.height) == (480, 640)
    assert image.finished_at is not None


async def test_an_image_not_marked_as_queued_is_processed(env: ServiceHarness) -> None:
    image_id = await env.new()
    await env.processing().process(Delivery(image_id=image_id))
    await is_done(env, image_id, attempt=1)


async def test_the_files_are_stored_before_the_image_is_done(env: ServiceHarness) -> None:
    image_id = await env.queued()
    await env.processing().process(Delivery(image_id=image_id))
    assert env.script.done == ["claim", "local_path", "render", "adopt", "complete"]


async def test_a_message_for_an_unknown_image_is_acknowledged(env: ServiceHarness) -> None:
    await env.processing().process(Delivery(image_id=uuid4()))
    assert env.script.done == ["claim"]
    assert await env.count() == 0


async def test_duplicates_change_nothing(env: ServiceHarness) -> None:
    image_id = await env.queued()
    processing = env.processing()
    await processing.process(Delivery(image_id=image_id))
    before = await env.row(image_id)
    for _ in range(4):
        await processing.process(Delivery(image_id=image_id))
    assert env.script.done.count("render") == 1
    assert await env.row(image_id) == before
    await is_done(env, image_id, attempt=1)


async def test_concurrent_duplicates_render_once(env: ServiceHarness) -> None:
    image_id = await env.queued()
    processing = env.processing()
    env.renderer.gate.clear()
    tasks = [process(processing, image_id) for _ in range(5)]
    await eventually(lambda: env.renderer.running == 1 and sum(task.done() for task in tasks) == 4)
    env.renderer.gate.set()
    await asyncio.gather(*tasks)
    assert env.script.tried["render"] == 1
    assert env.script.tried["claim"] == 5
    await is_done(env, image_id, attempt=1)


@pytest.mark.parametrize("error", [CorruptImage, UnsupportedFormat, ImageTooLarge])
async def test_an_invalid_image_ends_in_error_at_once(env: ServiceHarness, error: type[InvalidImage]) -> None:
    image_id = await env.queued()
    env.script.fail("render", [error("This is why.")])
    await env.processing().process(Delivery(image_id=image_id))
    await is_error(env, image_id, ImageError(code=error.code, detail="This is why."))
    assert (await env.row(image_id))["attempt"] == 1


async def test_recording_an_error_survives_a_short_database_outage(sqlite_env: ServiceHarness) -> None:
    image_id = await sqlite_env.queued()
    sqlite_env.script.fail("render", [CorruptImage("This is why.")])
    sqlite_env.script.fail("fail", [DatabaseUnavailable])
    await sqlite_env.processing().process(Delivery(image_id=image_id))
    await is_error(sqlite_env, image_id, ImageError(code="corrupt-image", detail="This is why."))


async def test_decoder_failures_are_retried_with_growing_delays(env: ServiceHarness) -> None:
    image_id = await env.queued()
    processing = env.processing(retry_delay=2.0, max_decoder_failures=3)
    last = DecoderTimeout("Too slow.")
    env.script.fail("render", [DecoderCrashed, DecoderOutOfMemory, last])
    for delay in (2, 4):
        await processing.process(Delivery(image_id=image_id))
        assert await retry_delay(env, image_id) == pytest.approx(delay, abs=1)
        await env.time_passes(image_id, delay + 1)
    await processing.process(Delivery(image_id=image_id))
    await is_error(env, image_id, ImageError(code="decoder-timeout", detail="Too slow."))
    assert env.script.tried["render"] == 3


async def test_a_time_out_is_retried_once_at_the_most(env: ServiceHarness) -> None:
    image_id = await env.queued()
    processing = env.processing(max_decoder_failures=9)
    env.script.fail("render", repeat(DecoderTimeout("Too slow.")))
    await processing.process(Delivery(image_id=image_id))
    assert (await env.image(image_id)).status is Status.PROCESSING
    await env.time_passes(image_id, 61)
    await processing.process(Delivery(image_id=image_id))
    await is_error(env, image_id, ImageError(code="decoder-timeout", detail="Too slow."))
    assert env.script.tried["render"] == 2


@pytest.mark.parametrize("failure", [DecoderTimeout, DecoderCrashed, DecoderOutOfMemory])
@pytest.mark.parametrize(
    ("lane", "following"), [(Lane.EXPRESS, Lane.NORMAL), (Lane.NORMAL, Lane.NORMAL), (Lane.BACKFILL, Lane.BACKFILL)]
)
async def test_an_image_leaves_the_express_lane_after_a_decoder_failure(
    env: ServiceHarness, failure: type[DecoderFailure], lane: Lane, following: Lane
) -> None:
    image_id = await env.queued(lane)
    env.script.fail("render", [failure])
    await env.processing().process(Delivery(image_id=image_id, lane=lane))
    assert (await env.row(image_id))["lane"] == following
    # An outage changes nothing about it.
    await env.time_passes(image_id, 61)
    env.script.fail("render", [Outage])
    with pytest.raises(Outage):
        await env.processing().process(Delivery(image_id=image_id, lane=lane))
    assert (await env.row(image_id))["lane"] == following


async def test_a_file_that_cannot_be_read_ends_in_error_while_the_storage_works(env: ServiceHarness) -> None:
    image_id = await env.queued()
    processing = env.processing(max_attempts=2)
    env.script.fail("render", repeat(ObjectUnreadable))
    await processing.process(Delivery(image_id=image_id))
    assert await charged(env, image_id) == 1
    await env.time_passes(image_id, 61)
    await processing.process(Delivery(image_id=image_id))
    await is_error(env, image_id, ImageError(code="object-unreadable", detail=ObjectUnreadable().detail))
    assert env.script.tried["render"] == 2


async def test_a_file_that_cannot_be_read_is_an_outage_while_the_storage_fails(env: ServiceHarness) -> None:
    image_id = await env.queued()
    processing = env.processing(max_attempts=1)
    env.script.fail("render", [ObjectUnreadable])
    env.script.fail("storage.probe", [StorageUnavailable])
    with pytest.raises(ObjectUnreadable):
        await processing.process(Delivery(image_id=image_id))
    assert await charged(env, image_id) == 0
    await processing.process(Delivery(image_id=image_id))
    await is_done(env, image_id, attempt=2)


async def test_an_image_can_be_done_after_a_decoder_failure(env: ServiceHarness) -> None:
    image_id = await env.queued()
    processing = env.processing()
    env.script.fail("render", [DecoderCrashed])
    await processing.process(Delivery(image_id=image_id))
    await env.time_passes(image_id, 3)
    await processing.process(Delivery(image_id=image_id))
    await is_done(env, image_id, attempt=2)


async def test_a_message_before_the_retry_delay_ends_does_nothing(env: ServiceHarness) -> None:
    image_id = await env.queued()
    processing = env.processing(retry_delay=30)
    env.script.fail("render", [DecoderCrashed])
    await processing.process(Delivery(image_id=image_id))
    before = await env.row(image_id)
    await processing.process(Delivery(image_id=image_id))
    assert env.script.tried["render"] == 1
    assert await env.row(image_id) == before


async def test_the_retry_delay_is_at_most_a_minute(sqlite_env: ServiceHarness) -> None:
    image_id = await sqlite_env.queued()
    processing = sqlite_env.processing(retry_delay=50)
    sqlite_env.script.fail("render", [DecoderCrashed, DecoderCrashed])
    delays = []
    for _ in range(2):
        await processing.process(Delivery(image_id=image_id))
        delays.append(await retry_delay(sqlite_env, image_id))
        await sqlite_env.time_passes(image_id, 61)
    assert delays == pytest.approx([50, 60], abs=1)


async def test_too_many_lost_workers_end_an_image_in_error_without_another_attempt(env: ServiceHarness) -> None:
    image_id = await env.queued()
    for _ in range(3):
        await env.claim(image_id)
        await expire_claim(env, image_id)
    await env.processing(max_attempts=3).process(Delivery(image_id=image_id))
    await is_error(env, image_id, ImageError(code="attempts-exhausted", detail=AttemptsExhausted().detail))
    assert env.script.tried["render"] == 0


async def test_an_image_whose_workers_were_lost_gets_its_last_attempt(env: ServiceHarness) -> None:
    image_id = await env.queued()
    for _ in range(2):
        await env.claim(image_id)
        await expire_claim(env, image_id)
    await env.processing(max_attempts=3).process(Delivery(image_id=image_id))
    await is_done(env, image_id, attempt=3)


@pytest.mark.parametrize(
    ("effect", "outage"),
    [
        ("local_path", StorageUnavailable("No storage.")),
        ("render", Outage("No decoder.")),
        ("adopt", StorageFull("No room.")),
    ],
)
async def test_an_outage_is_raised_and_charges_no_attempt(env: ServiceHarness, effect: str, outage: Outage) -> None:
    image_id = await env.queued()
    processing = env.processing(max_attempts=1)
    env.script.fail(effect, [outage, outage])
    for attempt in (1, 2):
        with pytest.raises(type(outage), match=outage.detail):
            await processing.process(Delivery(image_id=image_id))
        assert await charged(env, image_id) == 0
        assert (await env.row(image_id))["attempt"] == attempt
        assert await env.files("thumbnails/") == set()
    await processing.process(Delivery(image_id=image_id))
    await is_done(env, image_id, attempt=3)


async def test_a_database_outage_before_the_claim_changes_nothing(env: ServiceHarness) -> None:
    image_id = await env.queued()
    before = await env.row(image_id)
    env.script.fail("claim", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await env.processing().process(Delivery(image_id=image_id))
    assert await env.row(image_id) == before


async def test_a_long_database_outage_at_the_end_charges_no_attempt(env: ServiceHarness) -> None:
    image_id = await env.queued()
    env.script.fail("complete", repeat(DatabaseUnavailable))
    with pytest.raises(DatabaseUnavailable):
        await env.processing(lease=0.4).process(Delivery(image_id=image_id))
    assert env.script.tried["complete"] > 1
    assert await charged(env, image_id) == 0
    env.script.fail("complete", [])
    await env.processing(max_attempts=1).process(Delivery(image_id=image_id))
    assert {each.key for each in (await env.image(image_id)).thumbnails} == thumbnails(image_id, 2)


async def test_a_claim_that_cannot_be_released_ends_with_its_lease(env: ServiceHarness) -> None:
    image_id = await env.queued()
    env.script.fail("render", [StorageUnavailable])
    env.script.fail("release", repeat(DatabaseUnavailable))
    with pytest.raises(StorageUnavailable):
        await env.processing(lease=0.4).process(Delivery(image_id=image_id))
    row = await env.row(image_id)
    assert (row["status"], row["attempts_charged"]) == (Status.PROCESSING, 1)
    assert (row["lease_until"] - row["updated_at"]).total_seconds() == pytest.approx(0.4, abs=0.05)
    assert abs(row["due_at"] - row["lease_until"]) < timedelta(seconds=0.05)


async def test_a_short_database_outage_at_the_end_delays_done(env: ServiceHarness) -> None:
    image_id = await env.queued()
    env.script.fail("complete", [DatabaseUnavailable, DatabaseUnavailable])
    await env.processing().process(Delivery(image_id=image_id))
    assert env.script.tried["complete"] == 3
    assert env.script.tried["render"] == 1
    await is_done(env, image_id, attempt=1)


async def test_after_a_lost_reply_to_the_commit_of_done_the_image_keeps_its_files(env: ServiceHarness) -> None:
    image_id = await env.queued()
    env.script.lose_replies("complete", [DatabaseUnavailable])
    await env.processing().process(Delivery(image_id=image_id))
    assert env.script.tried["complete"] == 2
    await is_done(env, image_id, attempt=1)


async def test_a_cancelled_attempt_is_released_at_once_and_not_charged(env: ServiceHarness) -> None:
    image_id = await env.queued()
    processing = env.processing(max_attempts=1)
    env.renderer.gate.clear()
    for count in (1, 2):
        task = process(processing, image_id)
        await eventually(lambda: env.renderer.running)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert env.renderer.cancelled == count
        assert await charged(env, image_id) == 0
        assert env.scratch() == []
    env.renderer.gate.set()
    await processing.process(Delivery(image_id=image_id))
    await is_done(env, image_id, attempt=3)


async def test_a_cancelled_attempt_does_not_wait_for_an_unavailable_database(env: ServiceHarness) -> None:
    image_id = await env.queued()
    env.renderer.gate.clear()
    env.script.fail("release", repeat(DatabaseUnavailable))
    task = process(env.processing(lease=3600), image_id)
    await eventually(lambda: env.renderer.running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait_for(task, 10)
    assert env.script.tried["release"] == 1


async def test_the_lease_is_extended_while_the_image_is_rendered(env: ServiceHarness) -> None:
    image_id = await env.queued()
    env.renderer.gate.clear()
    env.script.fail("extend", [DatabaseUnavailable, DatabaseUnavailable])
    task = process(env.processing(heartbeat=0.02), image_id)
    await eventually(lambda: env.renderer.running)
    first = (await env.row(image_id))["lease_until"]
    await eventually(lambda: env.script.done.count("extend") >= 3)
    row = await env.row(image_id)
    assert row["lease_until"] > first
    assert abs(row["due_at"] - row["lease_until"]) < timedelta(seconds=1)
    env.renderer.gate.set()
    await task
    await is_done(env, image_id, attempt=1)


async def test_when_the_claim_is_lost_the_render_is_cancelled_and_nothing_is_stored(env: ServiceHarness) -> None:
    image_id = await env.queued()
    env.renderer.gate.clear()
    heartbeat = asyncio.Event()
    env.script.before("extend", lambda *_: heartbeat.wait())
    task = process(env.processing(heartbeat=0.01), image_id)
    await eventually(lambda: env.renderer.running)
    await expire_claim(env, image_id)
    other = await env.claim(image_id)
    before = await env.row(image_id)
    heartbeat.set()
    await wait_for(task, 10)
    assert env.renderer.cancelled == 1
    assert env.script.tried["adopt"] == 0
    assert env.scratch() == []
    assert await env.row(image_id) == before
    assert await env.ask(lambda r: r.claims.extend(other, lease=LEASE))


async def test_a_worker_resumed_after_its_lease_changes_nothing_and_deletes_its_own_files(
    env: ServiceHarness,
) -> None:
    image_id = await env.queued()
    env.renderer.gate.clear()
    stale = process(env.processing(), image_id)
    await eventually(lambda: env.renderer.running)
    await expire_claim(env, image_id)
    await env.processing(FakeRenderer(Script())).process(Delivery(image_id=image_id))
    winner = await env.row(image_id)
    env.renderer.gate.set()
    await stale
    assert await env.row(image_id) == winner
    assert env.script.done.count("adopt") == 2
    await is_done(env, image_id, attempt=2)


async def test_a_worker_resumed_while_another_renders_changes_nothing(env: ServiceHarness) -> None:
    image_id = await env.queued()
    env.renderer.gate.clear()
    stale = process(env.processing(), image_id)
    await eventually(lambda: env.renderer.running)
    await expire_claim(env, image_id)
    other = FakeRenderer(Script())
    other.gate.clear()
    winner = process(env.processing(other), image_id)
    await eventually(lambda: other.running)
    before = await env.row(image_id)
    env.renderer.gate.set()
    await stale
    assert await env.row(image_id) == before
    assert await env.files("thumbnails/") == set()
    other.gate.set()
    await winner
    await is_done(env, image_id, attempt=2)


@pytest.mark.parametrize("failure", [CorruptImage, DecoderCrashed, StorageUnavailable, RuntimeError])
async def test_any_failure_of_a_worker_after_its_lease_changes_nothing(
    env: ServiceHarness, failure: type[Exception]
) -> None:
    image_id = await env.queued()
    env.renderer.gate.clear()
    env.script.before("render", lambda *_: env.renderer.gate.wait())
    env.script.fail("render", [failure])
    stale = process(env.processing(max_decoder_failures=1, max_attempts=1), image_id)
    await eventually(lambda: env.script.tried["render"])
    await expire_claim(env, image_id)
    await env.claim(image_id)
    before = await env.row(image_id)
    env.renderer.gate.set()
    with capture_logs():
        await asyncio.wait({stale})
    assert isinstance(stale.exception(), Outage) == issubclass(failure, Outage)
    assert await env.row(image_id) == before


@pytest.mark.parametrize(
    ("failure", "code"), [(RuntimeError("unexpected"), "attempts-exhausted"), (ObjectMissing(), "object-missing")]
)
async def test_unexpected_errors_are_retried_and_then_end_in_error(
    sqlite_env: ServiceHarness, failure: Exception, code: str
) -> None:
    image_id = await sqlite_env.queued()
    processing = sqlite_env.processing(max_attempts=3, retry_delay=2.0)
    sqlite_env.script.fail("render", repeat(failure))
    with capture_logs() as logs:
        for delay in (2, 4):
            await processing.process(Delivery(image_id=image_id))
            assert await retry_delay(sqlite_env, image_id) == pytest.approx(delay, abs=1)
            await sqlite_env.time_passes(image_id, delay + 1)
        await processing.process(Delivery(image_id=image_id))
    assert [bool(line.get("exc_info")) for line in logs] == [True, False] * 3, "each failure with its traceback"
    image = await sqlite_env.image(image_id)
    assert image.error is not None
    await is_error(sqlite_env, image_id, ImageError(code=code, detail=image.error.detail))
    assert "unexpected" not in image.error.detail


@pytest.mark.parametrize("effect", ["local_path", "adopt", "complete"])
async def test_an_error_that_is_not_known_to_be_the_images_is_delayed_and_never_charged(
    sqlite_env: ServiceHarness, effect: str
) -> None:
    image_id = await sqlite_env.queued()
    processing = sqlite_env.processing(max_attempts=1, retry_delay=20.0)
    sqlite_env.script.fail(effect, repeat(RuntimeError("unexpected")))
    with capture_logs() as logs:
        for delay in (20, 40, 60, 60):
            with pytest.raises(Outage):
                await processing.process(Delivery(image_id=image_id))
            assert await charged(sqlite_env, image_id) == 0
            assert await retry_delay(sqlite_env, image_id) == pytest.approx(delay, abs=1)
            await processing.process(Delivery(image_id=image_id))  # delivered again too early
            await sqlite_env.time_passes(image_id, delay + 1)
    assert sqlite_env.script.tried[effect] == 4
    assert [line["event"] for line in logs[:2]] == ["attempt failed", "attempt failed; another follows"]
    sqlite_env.script.fail(effect, [])
    await processing.process(Delivery(image_id=image_id))
    assert await sqlite_env.status(image_id) is Status.DONE


async def test_an_image_whose_values_the_database_refuses_ends_in_error(
    env: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = await env.queued()
    made = env.renderer.render

    async def impossible(*arguments: Any) -> Rendering:  # noqa: ANN401  (those of a renderer)
        return replace(await made(*arguments), width=None)  # type: ignore[arg-type]  # on purpose

    monkeypatch.setattr(env.renderer, "render", impossible)
    with capture_logs():
        await env.processing(max_attempts=1).process(Delivery(image_id=image_id))
    assert await env.status(image_id) is Status.ERROR


async def test_a_missing_original_is_retried_and_then_ends_in_error(env: ServiceHarness) -> None:
    image_id = await env.queued()
    processing = env.processing(max_attempts=2)
    await env.storage.delete([original_key(image_id)])
    with capture_logs():
        await processing.process(Delivery(image_id=image_id))
        await env.time_passes(image_id, await retry_delay(env, image_id) + 1)
        await processing.process(Delivery(image_id=image_id))
    await is_error(env, image_id, ImageError(code="object-missing", detail=ObjectMissing().detail))


async def test_a_changed_original_is_never_rendered_and_ends_in_error(env: ServiceHarness) -> None:
    image_id = await env.queued()
    processing = env.processing(max_attempts=2)
    async with env.storage.scratch() as scratch:
        (scratch / "other").write_bytes(IMAGE + b"another picture")
        await env.storage.adopt({original_key(image_id): scratch / "other"})
    with capture_logs() as logs:
        await processing.process(Delivery(image_id=image_id))
        await env.time_passes(image_id, await retry_delay(env, image_id) + 1)
        await processing.process(Delivery(image_id=image_id))
    await is_error(env, image_id, ImageError(code="object-changed", detail=ObjectChanged().detail))
    assert env.renderer.rendered == 0
    assert "object-changed" in [each.get("code") for each in logs]


async def test_an_image_that_crashes_the_decoder_does_not_affect_others(sqlite_env: ServiceHarness) -> None:
    poison, *neighbours = [await sqlite_env.queued() for _ in range(3)]

    async def crash(source: Any) -> None:  # noqa: ANN401  (whatever the renderer is given)
        if source.name == str(poison):
            raise DecoderCrashed

    sqlite_env.script.before("render", crash)
    processing = sqlite_env.processing(max_decoder_failures=1)
    await asyncio.gather(*(processing.process(Delivery(image_id=each)) for each in (poison, *neighbours)))
    assert await sqlite_env.status(poison) is Status.ERROR
    assert [await sqlite_env.status(each) for each in neighbours] == [Status.DONE, Status.DONE]


OUTCOMES: dict[str, Callable[[Script], None]] = {
    "image done": lambda _: None,
    "image ended in ERROR": lambda script: script.fail("render", [CorruptImage]),
    "attempt failed; another follows": lambda script: script.fail("render", [DecoderCrashed]),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_every_log_line_names_the_image_and_the_request(sqlite_env: ServiceHarness, outcome: str) -> None:
    image_id = await sqlite_env.queued()
    OUTCOMES[outcome](sqlite_env.script)
    with capture_logs([merge_contextvars]) as logs:
        await sqlite_env.processing().process(Delivery(image_id=image_id, request_id="r-1"))
    assert [line["event"] for line in logs] == [outcome]
    assert {(line["image_id"], line["request_id"]) for line in logs} == {(str(image_id), "r-1")}


async def test_without_a_request_the_log_names_only_the_image(sqlite_env: ServiceHarness) -> None:
    with capture_logs([merge_contextvars]) as logs:
        await sqlite_env.processing().process(Delivery(image_id=(image_id := uuid4())))
    (line,) = logs
    assert line["image_id"] == str(image_id)
    assert "request_id" not in line
