"""The reconciler: queues what crashes and outages left unqueued, and nothing else."""

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
"""Seconds that exceed every delay."""


def published(env: ServiceHarness) -> list[UUID]:
    return [delivery.image_id for delivery in env.queue.published]


async def with_message(env: ServiceHarness) -> UUID:
    """Returns an image whose message waits in the queue."""
    image_id = await env.queued()
    await env.queue.publish(Delivery(image_id=image_id, lane=LANE))
    return image_id


async def queued_in(env: ServiceHarness, lane: Lane, *, message: bool = True) -> UUID:
    """Returns an image queued in a lane some time ago, whose message waits or is lost."""
    image_id = await env.queued()
    await env.change(image_id, lane=lane)
    await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    if message:
        await env.queue.publish(Delivery(image_id=image_id, lane=lane))
    return image_id


async def queued_ago(env: ServiceHarness, images: list[UUID], seconds: float) -> None:
    """Move the timestamps of images into the past."""
    for image_id in images:
        await env.time_passes(image_id, seconds)


async def abandoned(env: ServiceHarness) -> UUID:
    """Returns an image whose lease ended some time ago."""
    claim = await env.claimed()
    await env.time_passes(claim.image_id, LEASE + 1)
    return claim.image_id


async def delay(env: ServiceHarness, image_id: UUID) -> float:
    """Returns the seconds from the last publishing to the next."""
    row = await env.row(image_id)
    return float((row["due_at"] - row["queued_at"]).total_seconds())


async def test_an_image_that_its_api_did_not_queue_is_queued_when_due(
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


async def test_requeued_images_can_be_claimed(env: ServiceHarness) -> None:
    images = [await env.new(), await abandoned(env)]
    await env.time_passes(images[0], UNQUEUED_AFTER + 1)
    assert await env.reconciler().run_once() == 2
    for delivery in env.queue.published:
        await env.processing().process(delivery)
    assert [await env.status(image_id) for image_id in images] == [Status.DONE, Status.DONE]


async def test_an_image_is_marked_as_queued_after_it_is_published(env: ServiceHarness) -> None:
    image_id = await env.new()
    await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    await env.reconciler().run_once()
    done = [
        name
        for name in env.script.done
        if name not in {"depth", "due", "postpone", "unclaimed", "outputs_due", "outputs_unclaimed"}
    ]
    assert done == ["reserve_for_publish", "publish", "mark_queued"]


async def test_an_image_done_before_it_is_marked_as_queued_stays_done(env: ServiceHarness) -> None:
    image_id = await env.new()
    await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    env.script.before("publish", env.processing().process)
    assert await env.reconciler().run_once() == 1
    assert env.script.tried["mark_queued"] == 1
    assert await env.status(image_id) is Status.DONE


async def test_concurrent_reconcilers_queue_an_image_once(env: ServiceHarness, database_url: str) -> None:
    images = {await abandoned(env) for _ in range(3)} | {await env.new()}
    for image_id in images:
        await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    both_have_read = asyncio.Barrier(2)
    scripts = [Script(), Script()]
    databases = [ScriptedDatabase(database_url, script) for script in scripts]
    for script in scripts:
        script.before("reserve_for_publish", lambda *_: both_have_read.wait())
    counts = await asyncio.gather(*(env.reconciler(database).run_once() for database in databases))
    for database in databases:
        await database.close()
    assert [script.tried["reserve_for_publish"] for script in scripts] == [4, 4]
    assert sum(counts) == 4
    assert len(published(env)) == 4
    assert set(published(env)) == images


async def test_a_lease_extended_just_in_time_prevents_requeueing(env: ServiceHarness) -> None:
    claim = await env.claimed()
    await env.time_passes(claim.image_id, LEASE + 1)
    env.script.before("reserve_for_publish", lambda *_: env.ask(lambda r: r.claims.extend(claim, lease=LEASE)))
    assert await env.reconciler().run_once() == 0
    assert published(env) == []


async def test_without_the_queue_nothing_is_changed(env: ServiceHarness) -> None:
    images = [await abandoned(env), await env.new()]
    await env.time_passes(images[1], LONG)
    before = [await env.row(image_id) for image_id in images]
    env.script.fail("depth", [QueueUnavailable])
    with pytest.raises(QueueUnavailable):
        await env.reconciler().run_once()
    assert [await env.row(image_id) for image_id in images] == before
    assert published(env) == []


async def test_without_the_database_nothing_is_published(env: ServiceHarness) -> None:
    await abandoned(env)
    env.script.fail("reserve_for_publish", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await env.reconciler().run_once()
    assert published(env) == []
    assert await env.reconciler().run_once() == 1


async def test_images_not_published_in_an_outage_are_published_later(env: ServiceHarness) -> None:
    images = {await abandoned(env) for _ in range(2)} | {await env.new()}
    for image_id in images:
        await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    reconciler = env.reconciler()
    env.script.fail("publish", repeat(QueueUnavailable, 3))
    for _ in images:
        with pytest.raises(QueueUnavailable):
            await reconciler.run_once()
    assert published(env) == []
    assert await reconciler.run_once() == 0, "each was reserved once, and is not due"
    for image_id in images:
        await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await reconciler.run_once() == 3
    assert set(published(env)) == images


async def test_an_image_not_marked_as_queued_is_published_again(env: ServiceHarness) -> None:
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


async def test_a_lost_message_is_replaced_once_the_lane_is_empty(env: ServiceHarness) -> None:
    image_id = await with_message(env)
    env.queue.lose_everything()
    assert await env.reconciler().run_once() == 0, "its message may be in delivery"
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


async def test_in_a_backlog_as_many_images_are_published_as_messages_are_missing_oldest_first(
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


async def test_a_surplus_message_hides_a_missing_one_while_it_waits(env: ServiceHarness) -> None:
    finished = await env.claimed()
    await env.fail(finished)
    await env.queue.publish(Delivery(image_id=finished.image_id, lane=LANE))
    lost = await env.queued()
    await env.time_passes(lost, UNCLAIMED_AFTER + 5)
    assert await env.reconciler().run_once() == 0
    env.queue.lose_everything()  # a worker consumes it, and the claim is skipped
    assert await env.reconciler().run_once() == 1
    assert published(env)[-1] == lost


async def test_a_requeued_image_does_not_wait_for_the_backlog(env: ServiceHarness) -> None:
    backlog = [await with_message(env) for _ in range(3)]
    requeued = backlog[-1]
    assert await env.ask(lambda r: r.scheduling.make_due([requeued])) == {requeued}
    assert await env.reconciler().run_once() == 1
    assert published(env) == [*backlog, requeued]


@pytest.mark.parametrize("lane", Lane)
async def test_an_image_is_queued_in_its_recorded_lane(env: ServiceHarness, lane: Lane) -> None:
    images = [await abandoned(env), await env.new(), await queued_in(env, lane, message=False)]
    for image_id in images:
        await env.change(image_id, lane=lane)
    await env.time_passes(images[1], UNQUEUED_AFTER + 1)
    assert await env.reconciler().run_once() == 3
    assert {(delivery.image_id, delivery.lane) for delivery in env.queue.published} == {
        (image_id, lane) for image_id in images
    }


@pytest.mark.parametrize("lost_in", Lane)
async def test_a_backlog_in_other_lanes_does_not_hide_a_lost_message(env: ServiceHarness, lost_in: Lane) -> None:
    waiting = [await queued_in(env, lane) for lane in Lane if lane is not lost_in]
    lost = await queued_in(env, lost_in, message=False)
    assert await env.reconciler().run_once() == 1
    assert published(env) == [*waiting, lost]
    assert env.queue.published[-1].lane is lost_in


@pytest.mark.parametrize("lane", Lane)
async def test_a_waiting_message_may_be_of_any_image_in_its_lane(env: ServiceHarness, lane: Lane) -> None:
    waiting = await queued_in(env, lane)
    await queued_in(env, lane, message=False)
    assert await env.reconciler().run_once() == 0
    assert published(env) == [waiting]


async def test_concurrent_reconcilers_replace_a_lost_message_once(env: ServiceHarness, database_url: str) -> None:
    lost = {await queued_in(env, lane, message=False) for lane in Lane}
    both_have_read = asyncio.Barrier(2)
    databases = []
    for _ in range(2):
        script = Script()
        script.before("reserve_for_publish", lambda *_: both_have_read.wait())
        databases.append(ScriptedDatabase(database_url, script))
    counts = await asyncio.gather(*(env.reconciler(database).run_once() for database in databases))
    for database in databases:
        await database.close()
    assert sum(counts) == 3
    assert len(published(env)) == 3
    assert set(published(env)) == lost


async def test_a_leased_image_is_not_queued_although_no_message_waits(env: ServiceHarness) -> None:
    claim = await env.claimed()
    await env.time_passes(claim.image_id, LONG)
    assert await env.ask(lambda r: r.claims.extend(claim, lease=LEASE))
    assert await env.reconciler().run_once() == 0


async def test_an_image_is_queued_when_its_retry_delay_ends(env: ServiceHarness) -> None:
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


async def test_each_image_is_published_once_across_batches(env: ServiceHarness) -> None:
    due = {await abandoned(env) for _ in range(5)}
    lost = {await env.queued() for _ in range(5)}
    for image_id in lost:
        await env.time_passes(image_id, UNQUEUED_AFTER + 1)
    assert await env.reconciler(batch=2).run_once() == 10
    assert sorted(published(env)) == sorted(due | lost)


async def test_resume_makes_every_unfinished_image_due(env: ServiceHarness) -> None:
    held, delayed = await env.claimed(), await env.claimed()
    await env.ask(lambda r: r.claims.release(delayed, rest=30, due_in=30, charge=True))
    claimed_first = await env.new()  # claimed before it is marked as queued
    assert await env.ask(lambda r: r.claims.claim(claimed_first, lease=LEASE))
    unfinished = {held.image_id, delayed.image_id, claimed_first, await env.new(), await env.queued()}
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
