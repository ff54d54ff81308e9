"""The reconciler: nothing that a crash or an outage left behind stays behind, and nothing is queued needlessly."""

import asyncio
from itertools import pairwise, repeat
from uuid import UUID

import pytest

from harness.fakes import Script, ScriptedDatabase
from harness.service_harness import ERROR, LANE, LEASE, UNCLAIMED_AFTER, UNQUEUED_AFTER, ServiceHarness
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable, QueueUnavailable
from image_service.ports import Delivery

LONG = 10_000.0
"""Seconds after which every delay is over."""


def published(env: ServiceHarness) -> list[UUID]:
    return [delivery.image_id for delivery in env.queue.published]


async def with_message(env: ServiceHarness) -> UUID:
    """An image whose message waits in the queue."""
    image_id = await env.queued()
    await env.queue.publish(Delivery(image_id=image_id, lane=LANE))
    return image_id


async def queued_in(env: ServiceHarness, lane: Lane, *, message: bool = True) -> UUID:
    """An image that was queued in a lane some time ago, and whose message waits there or is lost."""
    image_id = await env.queued()
    await env.change(image_id, lane=lane)
    await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    if message:
        await env.queue.publish(Delivery(image_id=image_id, lane=lane))
    return image_id


async def queued_ago(env: ServiceHarness, images: list[UUID], seconds: float) -> None:
    """Make all of them so much older."""
    for image_id in images:
        await env.time_passes(image_id, seconds)


async def abandoned(env: ServiceHarness) -> UUID:
    """An image whose worker has died some time ago."""
    claim = await env.claimed()
    await env.time_passes(claim.image_id, LEASE + 1)
    return claim.image_id


async def delay(env: ServiceHarness, image_id: UUID) -> float:
    """Seconds between the last publishing and the next."""
    row = await env.row(image_id)
    return float((row["due_at"] - row["queued_at"]).total_seconds())


async def test_an_image_that_its_api_did_not_live_to_queue_is_queued_when_its_time_has_come(
    env: ServiceHarness,
) -> None:
    image_id = await env.new()
    assert await env.reconciler().run_once() == 0
    assert await env.status(image_id) is Status.NEW
    await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await env.reconciler().run_once() == 1
    assert published(env) == [image_id]
    assert await env.status(image_id) is Status.PROCESSING
    assert await delay(env, image_id) >= UNCLAIMED_AFTER - 1
    assert await env.reconciler().run_once() == 0


async def test_what_is_queued_again_can_be_claimed(env: ServiceHarness) -> None:
    images = [await env.new(), await abandoned(env)]
    await env.time_passes(images[0], UNQUEUED_AFTER + 1)
    assert await env.reconciler().run_once() == 2
    for delivery in env.queue.published:
        await env.processing().process(delivery)
    assert [await env.status(image_id) for image_id in images] == [Status.DONE, Status.DONE]


async def test_an_image_is_marked_as_queued_only_after_its_message_was_published(env: ServiceHarness) -> None:
    image_id = await env.new()
    await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    await env.reconciler().run_once()
    done = [name for name in env.script.done if name not in {"depth", "due", "postpone", "unclaimed"}]
    assert done == ["reserve_for_publish", "publish", "mark_queued"]


async def test_an_image_that_is_done_before_it_is_marked_as_queued_stays_done(env: ServiceHarness) -> None:
    image_id = await env.new()
    await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    env.script.before("publish", env.processing().process)
    assert await env.reconciler().run_once() == 1
    assert env.script.tried["mark_queued"] == 1
    assert await env.status(image_id) is Status.DONE


async def test_of_two_reconcilers_at_once_one_queues_an_image(env: ServiceHarness, database_url: str) -> None:
    images = {await abandoned(env) for _ in range(3)} | {await env.new()}
    for image_id in images:
        await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    both_have_seen_it = asyncio.Barrier(2)
    scripts = [Script(), Script()]
    databases = [ScriptedDatabase(database_url, script) for script in scripts]
    for script in scripts:
        script.before("reserve_for_publish", lambda *_: both_have_seen_it.wait())
    counts = await asyncio.gather(*(env.reconciler(database).run_once() for database in databases))
    for database in databases:
        await database.close()
    assert [script.tried["reserve_for_publish"] for script in scripts] == [4, 4]
    assert sum(counts) == 4
    assert len(published(env)) == 4
    assert set(published(env)) == images


async def test_a_worker_that_was_slow_keeps_its_image_when_it_shows_a_sign_of_life_in_time(env: ServiceHarness) -> None:
    claim = await env.claimed()
    await env.time_passes(claim.image_id, LEASE + 1)
    env.script.before("reserve_for_publish", lambda *_: env.ask(lambda r: r.claims.extend(claim, lease=LEASE)))
    assert await env.reconciler().run_once() == 0
    assert published(env) == []


async def test_while_the_queue_is_away_nothing_is_touched(env: ServiceHarness) -> None:
    images = [await abandoned(env), await env.new()]
    await env.time_passes(images[1], LONG)
    before = [await env.row(image_id) for image_id in images]
    env.script.fail("depth", [QueueUnavailable])
    with pytest.raises(QueueUnavailable):
        await env.reconciler().run_once()
    assert [await env.row(image_id) for image_id in images] == before
    assert published(env) == []


async def test_while_the_database_is_away_nothing_is_published(env: ServiceHarness) -> None:
    await abandoned(env)
    env.script.fail("reserve_for_publish", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await env.reconciler().run_once()
    assert published(env) == []
    assert await env.reconciler().run_once() == 1


async def test_what_was_not_published_when_the_queue_went_away_is_published_later(env: ServiceHarness) -> None:
    images = {await abandoned(env) for _ in range(2)} | {await env.new()}
    for image_id in images:
        await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    reconciler = env.reconciler()
    env.script.fail("publish", repeat(QueueUnavailable, 3))
    for _ in images:
        with pytest.raises(QueueUnavailable):
            await reconciler.run_once()
    assert published(env) == []
    assert await reconciler.run_once() == 0, "each was taken once, and has time now"
    for image_id in images:
        await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await reconciler.run_once() == 3
    assert set(published(env)) == images


async def test_an_image_that_could_not_be_marked_as_queued_is_published_again(env: ServiceHarness) -> None:
    image_id = await env.new()
    await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    env.script.fail("mark_queued", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await env.reconciler().run_once()
    assert await env.status(image_id) is Status.NEW
    await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await env.reconciler().run_once() == 1
    assert published(env) == [image_id, image_id]
    assert await env.status(image_id) is Status.PROCESSING


async def test_a_lost_message_is_replaced_once_the_queue_is_empty(env: ServiceHarness) -> None:
    image_id = await with_message(env)
    env.queue.lose_everything()
    assert await env.reconciler().run_once() == 0, "its message may be on its way to a worker"
    await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await env.reconciler().run_once() == 1
    assert published(env) == [image_id, image_id]
    env.queue.lose_everything()
    assert await env.reconciler().run_once() == 0


async def test_in_a_backlog_a_message_counts_as_lost_only_after_the_delay(env: ServiceHarness) -> None:
    waiting = [await with_message(env), await env.queued()]
    await queued_ago(env, waiting, UNCLAIMED_AFTER - 5)
    assert await env.reconciler().run_once() == 0
    await queued_ago(env, waiting, 10)
    assert await env.reconciler().run_once() == 1


@pytest.mark.parametrize("seconds", [UNQUEUED_AFTER * 10, UNCLAIMED_AFTER * 10])
async def test_a_deep_backlog_is_not_published_again(env: ServiceHarness, seconds: float) -> None:
    backlog = [await with_message(env) for _ in range(5)]
    for _ in range(3):
        await queued_ago(env, backlog, seconds)
        assert await env.reconciler().run_once() == 0
    assert published(env) == backlog


async def test_in_a_backlog_as_many_are_published_again_as_messages_are_missing_the_longest_queued_first(
    env: ServiceHarness,
) -> None:
    backlog = [await env.queued() for _ in range(5)]
    for waits in backlog[2:]:
        await env.queue.publish(Delivery(image_id=waits, lane=LANE))
    await queued_ago(env, backlog, UNCLAIMED_AFTER + 5)
    assert await env.reconciler().run_once() == 2
    assert published(env) == [*backlog[2:], *backlog[:2]]
    await queued_ago(env, backlog, UNCLAIMED_AFTER + 5)
    assert await env.reconciler().run_once() == 0


async def test_a_message_too_many_hides_a_missing_one_for_as_long_as_it_waits(env: ServiceHarness) -> None:
    finished = await env.claimed()
    await env.fail(finished)
    await env.queue.publish(Delivery(image_id=finished.image_id, lane=LANE))
    lost = await env.queued()
    await env.time_passes(lost, UNCLAIMED_AFTER + 5)
    assert await env.reconciler().run_once() == 0
    env.queue.lose_everything()  # a worker takes it and finds nothing to do
    assert await env.reconciler().run_once() == 1
    assert published(env)[-1] == lost


async def test_what_an_operator_wants_queued_does_not_wait_for_the_backlog(env: ServiceHarness) -> None:
    backlog = [await with_message(env) for _ in range(3)]
    hurried = backlog[-1]
    assert await env.ask(lambda r: r.scheduling.make_due([hurried])) == {hurried}
    assert await env.reconciler().run_once() == 1
    assert published(env) == [*backlog, hurried]


@pytest.mark.parametrize("lane", Lane)
async def test_an_image_is_queued_in_the_lane_that_it_is_recorded_for(env: ServiceHarness, lane: Lane) -> None:
    images = [await abandoned(env), await env.new(), await queued_in(env, lane, message=False)]
    for image_id in images:
        await env.change(image_id, lane=lane)
    await env.time_passes(images[1], UNQUEUED_AFTER + 1)
    assert await env.reconciler().run_once() == 3
    assert {(delivery.image_id, delivery.lane) for delivery in env.queue.published} == {
        (image_id, lane) for image_id in images
    }


@pytest.mark.parametrize("lost_in", Lane)
async def test_a_backlog_in_the_other_lanes_does_not_hide_a_lost_message(env: ServiceHarness, lost_in: Lane) -> None:
    waiting = [await queued_in(env, lane) for lane in Lane if lane is not lost_in]
    lost = await queued_in(env, lost_in, message=False)
    assert await env.reconciler().run_once() == 1
    assert published(env) == [*waiting, lost]
    assert env.queue.published[-1].lane is lost_in


@pytest.mark.parametrize("lane", Lane)
async def test_a_message_that_waits_in_a_lane_may_be_any_of_its_images(env: ServiceHarness, lane: Lane) -> None:
    waiting = await queued_in(env, lane)
    await queued_in(env, lane, message=False)
    assert await env.reconciler().run_once() == 0
    assert published(env) == [waiting]


async def test_of_two_reconcilers_at_once_one_replaces_a_lost_message(env: ServiceHarness, database_url: str) -> None:
    lost = {await queued_in(env, lane, message=False) for lane in Lane}
    both_have_seen_it = asyncio.Barrier(2)
    databases = []
    for _ in range(2):
        script = Script()
        script.before("reserve_for_publish", lambda *_: both_have_seen_it.wait())
        databases.append(ScriptedDatabase(database_url, script))
    counts = await asyncio.gather(*(env.reconciler(database).run_once() for database in databases))
    for database in databases:
        await database.close()
    assert sum(counts) == 3
    assert len(published(env)) == 3
    assert set(published(env)) == lost


async def test_an_image_that_is_being_worked_on_is_left_alone_even_when_no_message_waits(env: ServiceHarness) -> None:
    claim = await env.claimed()
    await env.time_passes(claim.image_id, LONG)
    assert await env.ask(lambda r: r.claims.extend(claim, lease=LEASE))
    assert await env.reconciler().run_once() == 0


async def test_an_image_that_rests_is_queued_when_its_rest_is_over(env: ServiceHarness) -> None:
    claim = await env.claimed()
    await env.ask(lambda r: r.claims.release(claim, rest=30, due_in=30, charge=True))
    assert await env.reconciler().run_once() == 0
    await env.time_passes(claim.image_id, 31)
    assert await env.reconciler().run_once() == 1


async def test_the_delays_grow_up_to_an_hour(sqlite_env: ServiceHarness) -> None:
    image_id = await sqlite_env.queued()
    delays = []
    for _ in range(6):
        sqlite_env.queue.lose_everything()
        await sqlite_env.time_passes(image_id, LONG)
        assert await sqlite_env.reconciler().run_once() == 1
        delays.append(await delay(sqlite_env, image_id))
    for expected, actual in zip((300, 600, 1200, 2400, 3600, 3600), delays, strict=True):
        assert expected - 1 <= actual <= expected * 1.2 + 1


async def test_the_delays_of_many_images_are_spread(sqlite_env: ServiceHarness) -> None:
    images = [await abandoned(sqlite_env) for _ in range(8)]
    assert await sqlite_env.reconciler().run_once() == 8
    delays = sorted([await delay(sqlite_env, image_id) for image_id in images])
    assert max(later - earlier for earlier, later in pairwise(delays)) > 1


async def test_however_many_they_are_each_is_published_once(env: ServiceHarness) -> None:
    due = {await abandoned(env) for _ in range(5)}
    lost = {await env.queued() for _ in range(5)}
    for image_id in lost:
        await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await env.reconciler(batch=2).run_once() == 10
    assert sorted(published(env)) == sorted(due | lost)


async def test_resuming_makes_everything_unfinished_due_whoever_held_it(env: ServiceHarness) -> None:
    held, resting = await env.claimed(), await env.claimed()
    await env.ask(lambda r: r.claims.release(resting, rest=30, due_in=30, charge=True))
    faster = await env.new()  # than the note that it is queued
    assert await env.ask(lambda r: r.claims.claim(faster, lease=LEASE))
    unfinished = {held.image_id, resting.image_id, faster, await env.new(), await env.queued()}
    finished = await env.claimed()
    await env.fail(finished)
    before = await env.row(finished.image_id)
    reconciler = env.reconciler()
    assert await reconciler.run_once() == 0
    await reconciler.resume()
    assert await reconciler.run_once() == 5
    assert set(published(env)) == unfinished
    assert await env.row(finished.image_id) == before
    for delivery in env.queue.published:
        await env.processing().process(delivery)
        assert await env.status(delivery.image_id) is Status.DONE


async def test_finished_images_are_never_queued(env: ServiceHarness) -> None:
    done, failed = await env.queued(), await env.claimed()
    await env.processing().process(Delivery(image_id=done))
    await env.fail(failed)
    for image_id in (done, failed.image_id):
        await env.time_passes(image_id, LONG)
    await env.reconciler().resume()
    assert await env.reconciler().run_once() == 0
    assert published(env) == []
    assert await env.status(done) is Status.DONE
    assert (await env.image(failed.image_id)).error == ERROR
