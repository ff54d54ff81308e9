"""A worker on the embedded queue: start, work, periodic jobs, drain and stop."""

import asyncio
import io
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from PIL import Image
from pydantic import SecretStr
from structlog.testing import capture_logs
from structlog.typing import EventDict

from harness.fakes import FakeRenderer, Script
from harness.images import encoded, gradient
from harness.receiver import Receiver
from harness.service_harness import OUTDATED, ServiceHarness
from harness.waiting import eventually, wait_for
from harness.webhooks import registered
from image_service.bootstrap import (
    Resources,
    WorkerServices,
    api_services,
    open_resources,
    processing,
    worker_services,
)
from image_service.config import EMBEDDED_QUEUE, Settings
from image_service.domain.event import EventType
from image_service.domain.keys import original_key
from image_service.domain.lane import Lane
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable, ForeignStorage, Outage
from image_service.imaging.isolation.pool import RenderPool
from image_service.ports import Delivery, Handler, NullObserver
from image_service.worker import storage_check
from image_service.worker.lanes import AHEAD, EXPRESS_SLOTS, LanePlan, plan_lanes
from image_service.worker.liveness import INTERVAL, is_fresh
from image_service.worker.runner import Worker

PNG = encoded(gradient(400, 300), "PNG")


@pytest.fixture
async def env(sqlite_url: str, tmp_path: Path) -> AsyncIterator[ServiceHarness]:
    async with ServiceHarness.on(sqlite_url, tmp_path / "storage") as env:
        yield env


@pytest.fixture
def settings(sqlite_url: str, env: ServiceHarness, tmp_path: Path) -> Settings:
    return Settings(
        database_url=SecretStr(sqlite_url),
        rabbitmq_url=SecretStr(EMBEDDED_QUEUE),
        storage_path=env.folder,
        liveness_file=tmp_path / "worker.liveness",
        decode_slots=1,
        reconcile_interval=0.05,
    )


@dataclass
class Running:
    """A running worker."""

    resources: Resources
    services: WorkerServices
    stop: asyncio.Event
    task: asyncio.Task[None]

    async def ended(self) -> None:
        self.stop.set()
        await wait_for(self.task, 20)


def with_handlers(plan: LanePlan, handlers: Mapping[Lane, Handler]) -> LanePlan:
    """The plan with other handlers for some lanes."""
    lanes = (replace(each, handler=handlers.get(each.lane, each.handler)) for each in plan.lanes)
    return replace(plan, lanes=tuple(lanes))


@asynccontextmanager
async def working(
    settings: Settings,
    *,
    handler: Handler | None = None,
    handlers: Mapping[Lane, Handler] | None = None,
    pools: tuple["Pool", ...] | None = None,
    liveness_interval: float = INTERVAL,
    **services: Any,  # noqa: ANN401  (any service)
) -> AsyncIterator[Running]:
    """A worker with these settings, and other handlers, pools or services in place of its own."""
    async with open_resources(settings) as resources:
        plan = plan_lanes(settings, resources)
        if handler is not None:
            plan = with_handlers(plan, dict.fromkeys(Lane, handler))
        if handlers is not None:
            plan = with_handlers(plan, handlers)
        if pools is not None:
            plan = replace(plan, pools=cast("tuple[RenderPool, ...]", pools))
        own = replace(worker_services(settings, resources), **services)
        stop = asyncio.Event()
        worker = Worker(own, plan, resources, settings, liveness_interval=liveness_interval)
        task = asyncio.create_task(worker.run(stop))
        running = Running(resources, own, stop, task)
        try:
            yield running
            if not task.done():
                await running.ended()
        finally:
            task.cancel()
            await asyncio.wait({task})


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def test_uploaded_image_is_done_with_thumbnails_that_decode(settings: Settings, env: ServiceHarness) -> None:
    async with working(settings) as worker:
        accepted = await api_services(settings, worker.resources).ingest.accept(pieces(PNG))
        await eventually(lambda: is_done(env, accepted.id), timeout=60)
    thumbnails = (await env.image(accepted.id)).thumbnails
    assert {each.output for each in thumbnails} == {preset.name for preset in DEFAULT_RECIPE.presets}
    for each in thumbnails:
        with Image.open(io.BytesIO(await env.content(each.key))) as made:
            made.load()
            assert made.size == (each.width, each.height)
    assert env.scratch() == []


async def is_done(env: ServiceHarness, image_id: UUID) -> bool:
    return await env.status(image_id) is Status.DONE


async def test_worker_reconciles_and_sweeps(settings: Settings, env: ServiceHarness) -> None:
    image_id = await env.new(PNG)
    await env.time_passes(image_id, settings.unqueued_after + 1)
    orphan = original_key(uuid4())
    await env.put(orphan, age=60)
    async with working(settings.model_copy(update={"orphan_grace": 1.0, "sweep_interval": 0.2})):
        await eventually(lambda: is_done(env, image_id), timeout=60)
        await eventually(lambda: orphan_is_gone(env, orphan))
    assert original_key(image_id) in await env.files()


async def test_worker_without_decode_slots_runs_periodic_jobs_only(settings: Settings, env: ServiceHarness) -> None:
    image_id = await env.new(PNG)
    await env.time_passes(image_id, settings.unqueued_after + 1)
    orphan = original_key(uuid4())
    await env.put(orphan, age=60)
    keeper = settings.model_copy(update={"decode_slots": 0, "orphan_grace": 1.0, "sweep_interval": 0.2})
    pools = (Pool(), Pool())
    async with working(keeper, pools=pools) as worker:
        await eventually(lambda: is_queued(worker.resources))
        await eventually(lambda: orphan_is_gone(env, orphan))
        await eventually(lambda: is_fresh(settings.liveness_file))
    assert [pool.started for pool in pools] == [False, False]
    assert await env.status(image_id) is Status.PROCESSING
    assert not is_fresh(settings.liveness_file)


async def is_queued(resources: Resources) -> bool:
    return sum((await resources.queue.depth()).values()) == 1


@pytest.mark.parametrize("slots", [0, 1])
async def test_worker_delivers_events_to_webhooks(settings: Settings, env: ServiceHarness, slots: int) -> None:
    chosen = settings.model_copy(update={"decode_slots": slots, "outbound_allow": (ip_network("127.0.0.0/8"),)})
    async with Receiver() as receiver, working(chosen, pools=(Pool(), Pool())) as worker:
        await registered(worker.resources.database, receiver.url("hook"), [EventType.ACCEPTED])
        await env.new(PNG)
        worker.resources.signal.notify()
        await eventually(lambda: receiver.received, timeout=60)
        await worker.ended()
    (received,) = receiver.received
    assert received.document["type"] == EventType.ACCEPTED


async def test_worker_removes_deleted_images_and_applies_retention(settings: Settings, env: ServiceHarness) -> None:
    old, young = [await env.done() for _ in range(2)]
    deleted = await env.done()
    await env.ask(lambda r: r.images.remove([deleted]))
    await env.time_passes(old, 3 * 86_400)
    keeping = settings.model_copy(update={"retain_images_days": 2.0, "retain_originals_days": 1.0})
    async with working(keeping):
        await eventually(lambda: only_files_of(env, young), timeout=60)
        await eventually(lambda: nothing_to_remove(env))
    assert await env.count() == 1
    assert original_key(young) in await env.files()


async def only_files_of(env: ServiceHarness, image_id: UUID) -> bool:
    return all(str(image_id) in name for name in await env.files())


async def nothing_to_remove(env: ServiceHarness) -> bool:
    return await env.removals() == {}


async def test_retention_of_originals_keeps_thumbnails(settings: Settings, env: ServiceHarness) -> None:
    image_id = await env.done()
    await env.time_passes(image_id, 2 * 86_400)
    keeping = settings.model_copy(update={"retain_images_days": 3.0, "retain_originals_days": 1.0})
    async with working(keeping):
        await eventually(lambda: orphan_is_gone(env, original_key(image_id)), timeout=60)
    assert await env.files("thumbnails/") == {each.key for each in (await env.image(image_id)).thumbnails}


class Recorder:
    """A handler that records the images' ids."""

    def __init__(self) -> None:
        self.taken: list[UUID] = []

    async def __call__(self, delivery: Delivery) -> None:
        self.taken.append(delivery.image_id)


async def test_backfill_image_waits_until_nothing_else_is_rendered(settings: Settings, env: ServiceHarness) -> None:
    new, outdated = await env.queued(), uuid4()
    backfill = Recorder()
    env.renderer.gate.clear()
    async with working(settings, handler=env.processing().process, handlers={Lane.BACKFILL: backfill}) as worker:
        await eventually(lambda: env.renderer.running == 1)
        await worker.resources.queue.publish(Delivery(image_id=outdated, lane=Lane.BACKFILL))
        await eventually(lambda: lane_is_empty(worker, Lane.BACKFILL))
        for _ in range(100):
            await asyncio.sleep(0)
        assert backfill.taken == []
        env.renderer.gate.set()
        await eventually(lambda: backfill.taken == [outdated])
    assert await is_done(env, new)


async def test_backfill_image_is_rendered_by_the_renderer_of_its_lane(settings: Settings, env: ServiceHarness) -> None:
    image_id = await env.done(OUTDATED)
    renderers = {lane: FakeRenderer(Script()) for lane in Lane}
    await env.backfill().step(window=10)
    async with open_resources(settings) as resources:
        handler = processing(settings, resources, renderers).process
        async with working(settings, handler=handler):
            await eventually(lambda: is_current(env, image_id))
    rendered = {lane: renderer.rendered for lane, renderer in renderers.items()}
    assert rendered == {Lane.NORMAL: 0, Lane.EXPRESS: 0, Lane.BACKFILL: 1}


async def is_current(env: ServiceHarness, image_id: UUID) -> bool:
    return bool((await env.row(image_id))["recipe"] == DEFAULT_RECIPE.fingerprint)


async def lane_is_empty(worker: Running, lane: Lane) -> bool:
    return not (await worker.resources.queue.depth())[lane]


async def orphan_is_gone(env: ServiceHarness, orphan: str) -> bool:
    return orphan not in await env.files()


async def test_stop_finishes_held_images_and_starts_no_others(settings: Settings, env: ServiceHarness) -> None:
    taken = settings.decode_slots + EXPRESS_SLOTS + AHEAD
    images = [await env.queued() for _ in range(taken + 1)]
    env.renderer.gate.clear()
    async with working(settings, handler=env.processing().process) as worker:
        await eventually(lambda: env.renderer.running == taken)
        worker.stop.set()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not worker.task.done()
        env.renderer.gate.set()
        await worker.ended()
    rows = [await env.row(image_id) for image_id in images]
    states = sorted((row["status"], row["attempt"]) for row in rows)
    assert states == [(Status.DONE, 1)] * taken + [(Status.PROCESSING, 0)]


async def test_image_unfinished_at_the_drain_timeout_is_released_uncharged(
    settings: Settings, env: ServiceHarness
) -> None:
    image_id = await env.queued()
    env.renderer.gate.clear()
    short_drain = settings.model_copy(update={"drain_timeout": 0.1})
    async with working(short_drain, handler=env.processing().process) as worker:
        await eventually(lambda: env.renderer.running)
        await worker.ended()
    await is_given_back(env, image_id)


async def test_cancelled_worker_releases_its_images(settings: Settings, env: ServiceHarness) -> None:
    image_id = await env.queued()
    env.renderer.gate.clear()
    async with working(settings, handler=env.processing().process) as worker:
        await eventually(lambda: env.renderer.running)
        worker.task.cancel()
        await eventually(worker.task.done)
        assert worker.task.cancelled()
    await is_given_back(env, image_id)
    assert not settings.liveness_file.exists()


async def is_given_back(env: ServiceHarness, image_id: UUID) -> None:
    assert env.renderer.cancelled == 1
    row = await env.row(image_id)
    assert (row["status"], row["attempt"], row["attempts_charged"]) == (Status.PROCESSING, 1, 0)
    await env.time_passes(image_id, 0.01)
    assert (await env.claim(image_id)).attempts_charged == 1


async def test_sole_worker_resumes_images_of_a_killed_run(settings: Settings, env: ServiceHarness) -> None:
    assert settings.sole_process
    claim = await env.claimed()
    async with working(settings, handler=env.processing().process):
        await eventually(lambda: is_done(env, claim.image_id))
    assert (await env.row(claim.image_id))["attempt"] == claim.attempt + 1


async def test_worker_keeps_the_claims_of_other_workers(
    settings: Settings, postgres_database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "shared"
    update = {"database_url": SecretStr(postgres_database_url), "storage_path": folder}
    shared = settings.model_copy(update=update)
    assert not shared.sole_process
    async with ServiceHarness.on(postgres_database_url, folder) as env:
        claim, image_id = await env.claimed(), await env.new()
        before = await env.row(claim.image_id)
        await env.time_passes(image_id, settings.unqueued_after + 1)
        async with working(shared, handler=env.processing().process):
            await eventually(lambda: is_done(env, image_id))
        assert await env.row(claim.image_id) == before


async def test_worker_with_another_volume_takes_no_image_until_it_has_the_right_one(
    settings: Settings, postgres_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_check, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(storage_check, "_REPORTED_AFTER", 0.0)
    volume = tmp_path / "volume of the worker"
    update = {"database_url": SecretStr(postgres_database_url), "storage_path": volume, "sweep_interval": 0.05}
    shared = settings.model_copy(update=update)
    async with ServiceHarness.on(postgres_database_url, tmp_path / "volume of the API") as env:
        image_id = await env.queued()
        with capture_logs() as logs:
            async with working(shared, handler=env.processing().process, liveness_interval=0.01) as worker:
                await worker.resources.queue.publish(Delivery(image_id=image_id))
                await eventually(lambda: refusals(logs))
                assert not settings.liveness_file.exists()
                assert not (volume / ".owner").exists(), "only the API makes the record"
                assert (await env.image(image_id)).status is Status.PROCESSING
                # Another database's storage is no better.
                await worker.resources.storage.bind_to_database("another")
                await asyncio.sleep(0.2)
                assert (await env.image(image_id)).status is Status.PROCESSING
                shutil.rmtree(volume)
                volume.symlink_to(env.folder)  # as if the right one was mounted
                await eventually(lambda: is_done(env, image_id))
        assert "compare STORAGE_PATH" in refusals(logs)[0]["reason"]
        assert len(refusals(logs)) == 1, "the next is due after a minute"


async def test_worker_that_may_not_start_can_be_stopped(
    settings: Settings, postgres_database_url: str, tmp_path: Path
) -> None:
    update = {"database_url": SecretStr(postgres_database_url), "storage_path": tmp_path / "empty"}
    async with working(settings.model_copy(update=update)) as worker:
        await worker.ended()


def refusals(logs: list[EventDict]) -> list[EventDict]:
    return [line for line in logs if line["event"] == "worker takes no images: its storage is not the API's"]


async def test_only_process_refuses_the_storage_of_another_database(settings: Settings, env: ServiceHarness) -> None:
    (env.folder / ".owner").write_text("another")
    with pytest.raises(ForeignStorage):
        async with working(settings) as worker:
            await worker.task


async def test_liveness_file_is_refreshed_and_removed_at_the_end(
    settings: Settings,
) -> None:
    async with working(settings, liveness_interval=0.02):
        await eventually(lambda: is_fresh(settings.liveness_file), timeout=60)
        os.utime(settings.liveness_file, (0, 0))
        await eventually(lambda: is_fresh(settings.liveness_file))
    assert not settings.liveness_file.exists()


async def test_liveness_file_is_not_refreshed_during_an_outage(
    settings: Settings,
) -> None:
    probed: list[bool] = []

    class Probes(NullObserver):
        def probed(self, answers: Mapping[str, bool], waiting: Mapping[Lane, int] | None) -> None:  # noqa: ARG002  (the port's)
            probed.append(answers["storage"])

    async with working(settings, liveness_interval=0.02) as worker:
        health = worker.services.health
        health._observer, health._reused_for = Probes(), 0
        await eventually(lambda: is_fresh(settings.liveness_file), timeout=60)
        shutil.rmtree(settings.storage_path)
        await eventually(lambda: False in probed)
        os.utime(settings.liveness_file, (0, 0))
        failed = probed.count(False)
        await eventually(lambda: probed.count(False) > failed + 1)
        assert not is_fresh(settings.liveness_file)


class Job:
    """A periodic job that fails."""

    def __init__(self) -> None:
        self.runs = 0

    async def resume(self) -> None:
        pass

    async def run_once(self) -> int:
        self.runs += 1
        raise RuntimeError("a defect")


async def test_failing_periodic_job_does_not_end_the_worker(settings: Settings, env: ServiceHarness) -> None:
    image_id = await env.queued()
    jobs: dict[str, Any] = {name: Job() for name in ("reconciler", "sweeper", "deletion", "retention")}
    frequent = settings.model_copy(update={"reconcile_interval": 0.01, "sweep_interval": 0.01})
    with capture_logs():
        async with working(frequent, handler=env.processing().process, **jobs) as worker:
            await eventually(lambda: all(job.runs >= 3 for job in jobs.values()), timeout=60)
            await worker.resources.queue.publish(Delivery(image_id=image_id))
            await eventually(lambda: is_done(env, image_id))


class Pool:
    """A renderer without processes."""

    def __init__(self, failure: Outage | None = None) -> None:
        self.started = False
        self.closed = False
        self._failure = failure

    async def start(self) -> None:
        self.started = True
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        self.closed = True


async def test_worker_fails_to_start_without_a_decoder(settings: Settings, env: ServiceHarness) -> None:
    image_id = await env.queued()
    pools = (Pool(Outage("No decoder.")), Pool())
    async with working(settings, pools=pools) as worker:
        await eventually(worker.task.done)
        with pytest.raises(Outage, match="No decoder"):
            worker.task.result()
    assert [pool.closed for pool in pools] == [True, True]
    assert (await env.row(image_id))["attempt"] == 0


async def test_worker_that_cannot_resume_closes_its_pools(settings: Settings, env: ServiceHarness) -> None:
    env.script.fail("resume_all", [DatabaseUnavailable])
    pools = (Pool(), Pool())
    async with working(settings, pools=pools, reconciler=env.reconciler()) as worker:
        await eventually(worker.task.done)
        with pytest.raises(DatabaseUnavailable):
            worker.task.result()
    assert [pool.closed for pool in pools] == [True, True]
