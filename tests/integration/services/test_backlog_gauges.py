"""The measurements for metrics, with and without outages."""

import asyncio

import pytest

from harness.counted import counted
from harness.service_harness import ServiceHarness
from harness.waiting import eventually
from harness.webhooks import registered
from image_service.domain.lane import Lane
from image_service.errors import CorruptImage, DatabaseUnavailable, QueueUnavailable, StorageUnavailable
from image_service.ports import AttemptOutcome, Delivery


async def test_unfinished_images_and_the_age_of_the_oldest_are_reported(env: ServiceHarness) -> None:
    first = await env.new()
    await env.queued()
    await env.done()
    await env.failed()
    await env.time_passes(first, 100)
    await env.backlog_gauges().run_once()
    assert counted(env.metrics, "unfinished_images") == 2
    assert counted(env.metrics, "oldest_unfinished_age_seconds") == pytest.approx(100, abs=10)


async def test_the_count_ends_at_the_limit(env: ServiceHarness) -> None:
    for _ in range(3):
        await env.new()
    await env.backlog_gauges(limit=2).run_once()
    assert counted(env.metrics, "unfinished_images") == 2


async def test_webhook_endpoints_and_deliveries_are_reported(env: ServiceHarness) -> None:
    webhook = await registered(env.database, "https://example.org/")
    await env.ask(lambda r: r.webhooks.mark_failing(webhook.id))
    await registered(env.database, "https://example.org/")
    await env.new()
    await eventually(lambda: env.ask(lambda r: r.deliveries.dispatch()), 60)
    await env.backlog_gauges().run_once()
    states = [counted(env.metrics, "webhook_endpoints", state=state) for state in ("working", "failing", "disabled")]
    assert states == [1, 1, 0]
    assert counted(env.metrics, "webhook_pending_deliveries") == 2
    assert counted(env.metrics, "webhook_overdue_seconds") == pytest.approx(0, abs=60)


async def test_a_reprocessed_image_is_not_the_oldest(env: ServiceHarness) -> None:
    again = await env.done()
    await env.time_passes(again, 10_000)
    await env.reprocess(again)
    await env.backlog_gauges().run_once()
    assert counted(env.metrics, "unfinished_images") == 1
    assert counted(env.metrics, "oldest_unfinished_age_seconds") == 0
    await env.new()
    await env.backlog_gauges().run_once()
    assert counted(env.metrics, "oldest_unfinished_age_seconds") == pytest.approx(0, abs=10)


async def test_without_the_database_the_last_measurement_stays_with_its_timestamp(sqlite_env: ServiceHarness) -> None:
    metrics = sqlite_env.metrics
    await sqlite_env.new()
    await sqlite_env.backlog_gauges().run_once()
    asked = counted(metrics, "backlog_measured_timestamp_seconds")
    sqlite_env.script.fail("probe", [DatabaseUnavailable])
    sqlite_env.script.fail("open_count", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await sqlite_env.backlog_gauges().run_once()
    assert counted(metrics, "unfinished_images") == 1
    assert counted(metrics, "backlog_measured_timestamp_seconds") == asked
    assert counted(metrics, "dependency_up", dependency="database") == 0


async def test_all_dependencies_are_reported(sqlite_env: ServiceHarness) -> None:
    sqlite_env.script.fail("depth", [QueueUnavailable])
    await sqlite_env.backlog_gauges().run_once()
    up = {part: counted(sqlite_env.metrics, "dependency_up", dependency=part) for part in ("queue", "storage")}
    assert up == {"queue": 0, "storage": 1}


async def test_every_outcome_of_an_attempt_is_counted(sqlite_env: ServiceHarness) -> None:
    env, processing = sqlite_env, sqlite_env.processing(retry_delay=0.01)
    await processing.process(Delivery(image_id=await env.queued()))
    env.script.fail("render", [StorageUnavailable])
    with pytest.raises(StorageUnavailable):
        await processing.process(Delivery(image_id=await env.queued()))
    env.script.fail("render", [RuntimeError("a defect")])
    await processing.process(Delivery(image_id=await env.queued()))
    env.script.fail("render", [RuntimeError("a defect")])
    await env.processing(max_attempts=1).process(Delivery(image_id=await env.queued()))
    deleted = await env.queued()

    async def delete(_source: object) -> None:
        await env.ask(lambda r: r.images.remove([deleted]))

    env.script.before("render", delete)
    await processing.process(Delivery(image_id=deleted))
    env.script.before("render", lambda _: asyncio.sleep(0))
    await processing.process(Delivery(image_id=await env.queued(recipe="unknown"), lane=Lane.NORMAL))
    late = await env.done("another recipe")
    await env.backfill().step(window=1)
    env.script.fail("render", [CorruptImage])
    await processing.process(Delivery(image_id=late, lane=Lane.BACKFILL))
    assert {each: counted(env.metrics, "attempts_total", outcome=each) for each in AttemptOutcome} == dict.fromkeys(
        AttemptOutcome, 1
    )
    failures = {ending: ("attempts-exhausted", ending) for ending in ("retry", "error")}
    for code, ending in failures.values():
        assert counted(env.metrics, "attempt_failures_total", code=code, outcome=ending) == 1
    assert counted(env.metrics, "claims_total", lane="normal", outcome="claimed") == 6
    await processing.process(Delivery(image_id=deleted))
    assert counted(env.metrics, "claims_total", lane="normal", outcome="skipped") == 1
