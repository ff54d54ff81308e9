"""The reconciler: nothing that a crash or an outage left behind stays behind, and nothing is queued needlessly."""

import asyncio
from itertools import pairwise, repeat
from uuid import UUID

import pytest

from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable, QueueUnavailable
from image_service.ports import Delivery
from image_service.services import reconcile
from tests.support.fakes import Script, ScriptedDatabase
from tests.support.stage import ERROR, LANE, LEASE, UNCLAIMED_AFTER, UNQUEUED_AFTER, Stage

LONG = 10_000.0
"""Seconds after which every delay is over."""


def published(stage: Stage) -> list[UUID]:
    return [delivery.image_id for delivery in stage.queue.published]


async def with_message(stage: Stage) -> UUID:
    """An image whose message waits in the queue."""
    image_id = await stage.queued()
    await stage.queue.publish(Delivery(image_id=image_id, lane=LANE))
    return image_id


async def queued_in(stage: Stage, lane: Lane, *, message: bool = True) -> UUID:
    """An image that was queued in a lane some time ago, and whose message waits there or is lost."""
    image_id = await stage.queued()
    await stage.change(image_id, lane=lane)
    await stage.time_passes(image_id, UNQUEUED_AFTER + 1)
    if message:
        await stage.queue.publish(Delivery(image_id=image_id, lane=lane))
    return image_id


async def queued_ago(stage: Stage, images: list[UUID], seconds: float) -> None:
    """Make all of them so much older."""
    for image_id in images:
        await stage.time_passes(image_id, seconds)


async def abandoned(stage: Stage) -> UUID:
    """An image whose worker has died some time ago."""
    claim = await stage.claimed()
    await stage.time_passes(claim.image_id, LEASE + 1)
    return claim.image_id


async def delay(stage: Stage, image_id: UUID) -> float:
    """Seconds between the last publishing and the next."""
    row = await stage.row(image_id)
    return float((row["due_at"] - row["queued_at"]).total_seconds())


async def test_an_image_that_its_api_did_not_live_to_queue_is_queued_when_its_time_has_come(stage: Stage) -> None:
    image_id = await stage.new()
    assert await stage.reconciler().run_once() == 0
    assert await stage.status(image_id) is Status.NEW
    await stage.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await stage.reconciler().run_once() == 1
    assert published(stage) == [image_id]
    assert await stage.status(image_id) is Status.PROCESSING
    assert await delay(stage, image_id) >= UNCLAIMED_AFTER - 1
    assert await stage.reconciler().run_once() == 0


async def test_what_is_queued_again_can_be_claimed(stage: Stage) -> None:
    images = [await stage.new(), await abandoned(stage)]
    await stage.time_passes(images[0], UNQUEUED_AFTER + 1)
    assert await stage.reconciler().run_once() == 2
    for delivery in stage.queue.published:
        await stage.processing().process(delivery)
    assert [await stage.status(image_id) for image_id in images] == [Status.DONE, Status.DONE]


async def test_an_image_is_marked_as_queued_only_after_its_message_was_published(stage: Stage) -> None:
    image_id = await stage.new()
    await stage.time_passes(image_id, UNQUEUED_AFTER + 1)
    await stage.reconciler().run_once()
    done = [name for name in stage.script.done if name not in {"depth", "due", "put_off", "unclaimed"}]
    assert done == ["take_for_publishing", "publish", "mark_queued"]


async def test_an_image_that_is_done_before_it_is_marked_as_queued_stays_done(stage: Stage) -> None:
    image_id = await stage.new()
    await stage.time_passes(image_id, UNQUEUED_AFTER + 1)
    stage.script.before("publish", stage.processing().process)
    assert await stage.reconciler().run_once() == 1
    assert stage.script.tried["mark_queued"] == 1
    assert await stage.status(image_id) is Status.DONE


async def test_of_two_reconcilers_at_once_one_queues_an_image(stage: Stage, database_url: str) -> None:
    images = {await abandoned(stage) for _ in range(3)} | {await stage.new()}
    for image_id in images:
        await stage.time_passes(image_id, UNQUEUED_AFTER + 1)
    both_have_seen_it = asyncio.Barrier(2)
    scripts = [Script(), Script()]
    databases = [ScriptedDatabase(database_url, script) for script in scripts]
    for script in scripts:
        script.before("take_for_publishing", lambda *_: both_have_seen_it.wait())
    counts = await asyncio.gather(*(stage.reconciler(database).run_once() for database in databases))
    for database in databases:
        await database.close()
    assert [script.tried["take_for_publishing"] for script in scripts] == [4, 4]
    assert sum(counts) == 4
    assert len(published(stage)) == 4
    assert set(published(stage)) == images


async def test_a_worker_that_was_slow_keeps_its_image_when_it_shows_a_sign_of_life_in_time(stage: Stage) -> None:
    claim = await stage.claimed()
    await stage.time_passes(claim.image_id, LEASE + 1)
    stage.script.before("take_for_publishing", lambda *_: stage.ask(lambda r: r.images.extend(claim, lease=LEASE)))
    assert await stage.reconciler().run_once() == 0
    assert published(stage) == []


async def test_while_the_queue_is_away_nothing_is_touched(stage: Stage) -> None:
    images = [await abandoned(stage), await stage.new()]
    await stage.time_passes(images[1], LONG)
    before = [await stage.row(image_id) for image_id in images]
    stage.script.fail("depth", [QueueUnavailable])
    with pytest.raises(QueueUnavailable):
        await stage.reconciler().run_once()
    assert [await stage.row(image_id) for image_id in images] == before
    assert published(stage) == []


async def test_while_the_database_is_away_nothing_is_published(stage: Stage) -> None:
    await abandoned(stage)
    stage.script.fail("take_for_publishing", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await stage.reconciler().run_once()
    assert published(stage) == []
    assert await stage.reconciler().run_once() == 1


async def test_what_was_not_published_when_the_queue_went_away_is_published_later(stage: Stage) -> None:
    images = {await abandoned(stage) for _ in range(2)} | {await stage.new()}
    for image_id in images:
        await stage.time_passes(image_id, UNQUEUED_AFTER + 1)
    reconciler = stage.reconciler()
    stage.script.fail("publish", repeat(QueueUnavailable, 3))
    for _ in images:
        with pytest.raises(QueueUnavailable):
            await reconciler.run_once()
    assert published(stage) == []
    assert await reconciler.run_once() == 0, "each was taken once, and has time now"
    for image_id in images:
        await stage.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await reconciler.run_once() == 3
    assert set(published(stage)) == images


async def test_an_image_that_could_not_be_marked_as_queued_is_published_again(stage: Stage) -> None:
    image_id = await stage.new()
    await stage.time_passes(image_id, UNQUEUED_AFTER + 1)
    stage.script.fail("mark_queued", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await stage.reconciler().run_once()
    assert await stage.status(image_id) is Status.NEW
    await stage.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await stage.reconciler().run_once() == 1
    assert published(stage) == [image_id, image_id]
    assert await stage.status(image_id) is Status.PROCESSING


async def test_a_lost_message_is_replaced_once_the_queue_is_empty(stage: Stage) -> None:
    image_id = await with_message(stage)
    stage.queue.lose_everything()
    assert await stage.reconciler().run_once() == 0, "its message may be on its way to a worker"
    await stage.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await stage.reconciler().run_once() == 1
    assert published(stage) == [image_id, image_id]
    stage.queue.lose_everything()
    assert await stage.reconciler().run_once() == 0


async def test_in_a_backlog_a_message_counts_as_lost_only_after_the_delay(stage: Stage) -> None:
    waiting = [await with_message(stage), await stage.queued()]
    await queued_ago(stage, waiting, UNCLAIMED_AFTER - 5)
    assert await stage.reconciler().run_once() == 0
    await queued_ago(stage, waiting, 10)
    assert await stage.reconciler().run_once() == 1


@pytest.mark.parametrize("seconds", [UNQUEUED_AFTER * 10, UNCLAIMED_AFTER * 10])
async def test_a_deep_backlog_is_not_published_again(stage: Stage, seconds: float) -> None:
    backlog = [await with_message(stage) for _ in range(5)]
    for _ in range(3):
        await queued_ago(stage, backlog, seconds)
        assert await stage.reconciler().run_once() == 0
    assert published(stage) == backlog


async def test_in_a_backlog_as_many_are_published_again_as_messages_are_missing_the_longest_queued_first(
    stage: Stage,
) -> None:
    backlog = [await stage.queued() for _ in range(5)]
    for waits in backlog[2:]:
        await stage.queue.publish(Delivery(image_id=waits, lane=LANE))
    await queued_ago(stage, backlog, UNCLAIMED_AFTER + 5)
    assert await stage.reconciler().run_once() == 2
    assert published(stage) == [*backlog[2:], *backlog[:2]]
    await queued_ago(stage, backlog, UNCLAIMED_AFTER + 5)
    assert await stage.reconciler().run_once() == 0


async def test_a_message_too_many_hides_a_missing_one_for_as_long_as_it_waits(stage: Stage) -> None:
    finished = await stage.claimed()
    await stage.fail(finished)
    await stage.queue.publish(Delivery(image_id=finished.image_id, lane=LANE))
    lost = await stage.queued()
    await stage.time_passes(lost, UNCLAIMED_AFTER + 5)
    assert await stage.reconciler().run_once() == 0
    stage.queue.lose_everything()  # a worker takes it and finds nothing to do
    assert await stage.reconciler().run_once() == 1
    assert published(stage)[-1] == lost


async def test_what_an_operator_wants_queued_does_not_wait_for_the_backlog(stage: Stage) -> None:
    backlog = [await with_message(stage) for _ in range(3)]
    hurried = backlog[-1]
    assert await stage.ask(lambda r: r.images.hurry([hurried])) == {hurried}
    assert await stage.reconciler().run_once() == 1
    assert published(stage) == [*backlog, hurried]


@pytest.mark.parametrize("lane", Lane)
async def test_an_image_is_queued_in_the_lane_that_it_is_recorded_for(stage: Stage, lane: Lane) -> None:
    images = [await abandoned(stage), await stage.new(), await queued_in(stage, lane, message=False)]
    for image_id in images:
        await stage.change(image_id, lane=lane)
    await stage.time_passes(images[1], UNQUEUED_AFTER + 1)
    assert await stage.reconciler().run_once() == 3
    assert {(delivery.image_id, delivery.lane) for delivery in stage.queue.published} == {
        (image_id, lane) for image_id in images
    }


@pytest.mark.parametrize("lost_in", Lane)
async def test_a_backlog_in_the_other_lanes_does_not_hide_a_lost_message(stage: Stage, lost_in: Lane) -> None:
    waiting = [await queued_in(stage, lane) for lane in Lane if lane is not lost_in]
    lost = await queued_in(stage, lost_in, message=False)
    assert await stage.reconciler().run_once() == 1
    assert published(stage) == [*waiting, lost]
    assert stage.queue.published[-1].lane is lost_in


@pytest.mark.parametrize("lane", Lane)
async def test_a_message_that_waits_in_a_lane_may_be_any_of_its_images(stage: Stage, lane: Lane) -> None:
    waiting = await queued_in(stage, lane)
    await queued_in(stage, lane, message=False)
    assert await stage.reconciler().run_once() == 0
    assert published(stage) == [waiting]


async def test_of_two_reconcilers_at_once_one_replaces_a_lost_message(stage: Stage, database_url: str) -> None:
    lost = {await queued_in(stage, lane, message=False) for lane in Lane}
    both_have_seen_it = asyncio.Barrier(2)
    databases = []
    for _ in range(2):
        script = Script()
        script.before("take_for_publishing", lambda *_: both_have_seen_it.wait())
        databases.append(ScriptedDatabase(database_url, script))
    counts = await asyncio.gather(*(stage.reconciler(database).run_once() for database in databases))
    for database in databases:
        await database.close()
    assert sum(counts) == 3
    assert len(published(stage)) == 3
    assert set(published(stage)) == lost


async def test_an_image_that_is_being_worked_on_is_left_alone_even_when_no_message_waits(stage: Stage) -> None:
    claim = await stage.claimed()
    await stage.time_passes(claim.image_id, LONG)
    assert await stage.ask(lambda r: r.images.extend(claim, lease=LEASE))
    assert await stage.reconciler().run_once() == 0


async def test_an_image_that_rests_is_queued_when_its_rest_is_over(stage: Stage) -> None:
    claim = await stage.claimed()
    await stage.ask(lambda r: r.images.release(claim, rest=30, due_in=30, charge=True))
    assert await stage.reconciler().run_once() == 0
    await stage.time_passes(claim.image_id, 31)
    assert await stage.reconciler().run_once() == 1


async def test_the_delays_grow_up_to_an_hour(sqlite_stage: Stage) -> None:
    image_id = await sqlite_stage.queued()
    delays = []
    for _ in range(6):
        sqlite_stage.queue.lose_everything()
        await sqlite_stage.time_passes(image_id, LONG)
        assert await sqlite_stage.reconciler().run_once() == 1
        delays.append(await delay(sqlite_stage, image_id))
    for expected, actual in zip((300, 600, 1200, 2400, 3600, 3600), delays, strict=True):
        assert expected - 1 <= actual <= expected * 1.2 + 1


async def test_the_delays_of_many_images_are_spread(sqlite_stage: Stage) -> None:
    images = [await abandoned(sqlite_stage) for _ in range(8)]
    assert await sqlite_stage.reconciler().run_once() == 8
    delays = sorted([await delay(sqlite_stage, image_id) for image_id in images])
    assert max(later - earlier for earlier, later in pairwise(delays)) > 1


async def test_however_many_they_are_each_is_published_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "_BATCH", 2)
    due = {await abandoned(stage) for _ in range(5)}
    lost = {await stage.queued() for _ in range(5)}
    for image_id in lost:
        await stage.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await stage.reconciler().run_once() == 10
    assert sorted(published(stage)) == sorted(due | lost)


async def test_resuming_makes_everything_unfinished_due_whoever_held_it(stage: Stage) -> None:
    held, resting = await stage.claimed(), await stage.claimed()
    await stage.ask(lambda r: r.images.release(resting, rest=30, due_in=30, charge=True))
    faster = await stage.new()  # than the note that it is queued
    assert await stage.ask(lambda r: r.images.claim(faster, lease=LEASE))
    unfinished = {held.image_id, resting.image_id, faster, await stage.new(), await stage.queued()}
    finished = await stage.claimed()
    await stage.fail(finished)
    before = await stage.row(finished.image_id)
    reconciler = stage.reconciler()
    assert await reconciler.run_once() == 0
    await reconciler.resume()
    assert await reconciler.run_once() == 5
    assert set(published(stage)) == unfinished
    assert await stage.row(finished.image_id) == before
    for delivery in stage.queue.published:
        await stage.processing().process(delivery)
        assert await stage.status(delivery.image_id) is Status.DONE


async def test_finished_images_are_never_queued(stage: Stage) -> None:
    done, failed = await stage.queued(), await stage.claimed()
    await stage.processing().process(Delivery(image_id=done))
    await stage.fail(failed)
    for image_id in (done, failed.image_id):
        await stage.time_passes(image_id, LONG)
    await stage.reconciler().resume()
    assert await stage.reconciler().run_once() == 0
    assert published(stage) == []
    assert await stage.status(done) is Status.DONE
    assert (await stage.image(failed.image_id)).error == ERROR
