"""A worker's life on the embedded queue: what it does while it runs, and what it leaves when it ends."""

import asyncio
import io
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from PIL import Image
from structlog.testing import capture_logs
from structlog.typing import EventDict

from harness.fakes import FakeRenderer, Script
from harness.images import encoded, gradient
from harness.service_harness import OUTDATED, ServiceHarness
from harness.waiting import eventually, wait_for
from image_service.bootstrap import (
    EXPRESS_SLOTS,
    Resources,
    WorkerServices,
    api_services,
    open_resources,
    worker_services,
)
from image_service.config import EMBEDDED_QUEUE, Settings
from image_service.domain.keys import original_key
from image_service.domain.lane import Lane
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable, Outage
from image_service.imaging.pool import RenderPool
from image_service.ports import Delivery
from image_service.worker import runner
from image_service.worker.liveness import is_fresh
from image_service.worker.runner import AHEAD, Worker

PNG = encoded(gradient(400, 300), "PNG")


@pytest.fixture
async def env(sqlite_url: str, tmp_path: Path) -> AsyncIterator[ServiceHarness]:
    async with ServiceHarness.on(sqlite_url, tmp_path / "storage") as env:
        yield env


@pytest.fixture
def settings(sqlite_url: str, env: ServiceHarness, tmp_path: Path) -> Settings:
    return Settings(
        database_url=sqlite_url,
        rabbitmq_url=EMBEDDED_QUEUE,
        storage_path=env.folder,
        liveness_file=tmp_path / "worker.liveness",
        decode_slots=1,
        reconcile_interval=0.05,
    )


@dataclass
class Running:
    """A worker at work."""

    resources: Resources
    services: WorkerServices
    stop: asyncio.Event
    task: asyncio.Task[None]

    async def ended(self) -> None:
        self.stop.set()
        await wait_for(self.task, 20)


@asynccontextmanager
async def working(settings: Settings, **instead: Any) -> AsyncIterator[Running]:  # noqa: ANN401  (any service)
    """A worker of these settings, with other services instead of some of its own; one processing for two lanes."""
    if "processing" in instead:
        instead["expressing"] = instead["processing"]
    async with open_resources(settings) as resources:
        services = replace(worker_services(settings, resources), **instead)
        stop = asyncio.Event()
        task = asyncio.create_task(Worker(services, resources, settings).run(stop))
        running = Running(resources, services, stop, task)
        try:
            yield running
            if not task.done():
                await running.ended()
        finally:
            task.cancel()
            await asyncio.wait({task})


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def test_an_uploaded_image_becomes_done_with_thumbnails_that_decode(
    settings: Settings, env: ServiceHarness
) -> None:
    async with working(settings) as worker:
        accepted = await api_services(settings, worker.resources).ingest.accept(pieces(PNG))
        await eventually(lambda: is_done(env, accepted.id), timeout=60)
    thumbnails = (await env.image(accepted.id)).thumbnails
    assert {each.preset for each in thumbnails} == {preset.name for preset in DEFAULT_RECIPE.presets}
    for each in thumbnails:
        with Image.open(io.BytesIO(await env.content(each.key))) as made:
            made.load()
            assert made.size == (each.width, each.height)
    assert env.scratch() == []


async def is_done(env: ServiceHarness, image_id: UUID) -> bool:
    return await env.status(image_id) is Status.DONE


async def test_beside_its_work_it_reconciles_and_sweeps(settings: Settings, env: ServiceHarness) -> None:
    image_id = await env.new(PNG)
    await env.time_passes(image_id, settings.unqueued_after + 1)
    orphan = original_key(uuid4())
    await env.put(orphan, age=60)
    async with working(settings.model_copy(update={"orphan_grace": 1.0, "sweep_interval": 0.2})):
        await eventually(lambda: is_done(env, image_id), timeout=60)
        await eventually(lambda: orphan_is_gone(env, orphan))
    assert original_key(image_id) in await env.files()


async def test_without_decode_slots_it_queues_and_sweeps_and_leaves_the_images_to_others(
    settings: Settings, env: ServiceHarness
) -> None:
    image_id = await env.new(PNG)
    await env.time_passes(image_id, settings.unqueued_after + 1)
    orphan = original_key(uuid4())
    await env.put(orphan, age=60)
    keeper = settings.model_copy(update={"decode_slots": 0, "orphan_grace": 1.0, "sweep_interval": 0.2})
    pools = (Pool(), Pool())
    async with working(keeper, renderers=pools) as worker:
        await eventually(lambda: is_queued(worker.resources))
        await eventually(lambda: orphan_is_gone(env, orphan))
        await eventually(lambda: is_fresh(settings.liveness_file))
    assert [pool.started for pool in pools] == [False, False]
    assert await env.status(image_id) is Status.PROCESSING
    assert not is_fresh(settings.liveness_file)


async def is_queued(resources: Resources) -> bool:
    return sum((await resources.queue.depth()).values()) == 1


async def test_beside_its_work_it_removes_the_files_of_deleted_images_and_those_kept_for_long_enough(
    settings: Settings, env: ServiceHarness
) -> None:
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


async def test_originals_alone_are_removed_where_only_they_have_been_kept_for_long_enough(
    settings: Settings, env: ServiceHarness
) -> None:
    image_id = await env.done()
    await env.time_passes(image_id, 2 * 86_400)
    keeping = settings.model_copy(update={"retain_images_days": 3.0, "retain_originals_days": 1.0})
    async with working(keeping):
        await eventually(lambda: orphan_is_gone(env, original_key(image_id)), timeout=60)
    assert await env.files("thumbnails/") == {each.key for each in (await env.image(image_id)).thumbnails}


class Noted:
    """Processing that only notes what it is given."""

    def __init__(self) -> None:
        self.taken: list[UUID] = []

    async def process(self, delivery: Delivery) -> None:
        self.taken.append(delivery.image_id)


async def test_an_image_of_the_back_fill_lane_waits_until_nothing_else_is_rendered(
    settings: Settings, env: ServiceHarness
) -> None:
    new, outdated = await env.queued(), uuid4()
    backfilling = Noted()
    env.renderer.gate.clear()
    async with working(settings, processing=env.processing(), backfilling=backfilling) as worker:
        await eventually(lambda: env.renderer.running == 1)
        await worker.resources.queue.publish(Delivery(image_id=outdated, lane=Lane.BACKFILL))
        await eventually(lambda: lane_is_empty(worker, Lane.BACKFILL))
        for _ in range(100):
            await asyncio.sleep(0)
        assert backfilling.taken == []
        env.renderer.gate.set()
        await eventually(lambda: backfilling.taken == [outdated])
    assert await is_done(env, new)


async def test_an_outdated_image_is_rendered_again_by_a_decoder_of_its_own(
    settings: Settings, env: ServiceHarness
) -> None:
    image_id = await env.done(OUTDATED)
    yielding = FakeRenderer(Script())
    await env.backfill().step(window=10)
    async with working(settings, processing=env.processing(), backfilling=env.processing(yielding)):
        await eventually(lambda: is_done(env, image_id))
    assert (yielding.rendered, env.renderer.rendered) == (1, 0)
    assert (await env.row(image_id))["recipe"] == DEFAULT_RECIPE.fingerprint


async def lane_is_empty(worker: Running, lane: Lane) -> bool:
    return not (await worker.resources.queue.depth())[lane]


async def orphan_is_gone(env: ServiceHarness, orphan: str) -> bool:
    return orphan not in await env.files()


async def test_when_it_stops_it_finishes_what_it_holds_and_begins_nothing(
    settings: Settings, env: ServiceHarness
) -> None:
    taken = settings.decode_slots + EXPRESS_SLOTS + AHEAD
    images = [await env.queued() for _ in range(taken + 1)]
    env.renderer.gate.clear()
    async with working(settings, processing=env.processing()) as worker:
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


async def test_what_does_not_finish_in_time_is_given_back_at_no_cost(settings: Settings, env: ServiceHarness) -> None:
    image_id = await env.queued()
    env.renderer.gate.clear()
    impatient = settings.model_copy(update={"drain_timeout": 0.1})
    async with working(impatient, processing=env.processing()) as worker:
        await eventually(lambda: env.renderer.running)
        await worker.ended()
    await is_given_back(env, image_id)


async def test_a_worker_that_is_cancelled_gives_back_what_it_holds(settings: Settings, env: ServiceHarness) -> None:
    image_id = await env.queued()
    env.renderer.gate.clear()
    async with working(settings, processing=env.processing()) as worker:
        await eventually(lambda: env.renderer.running)
        worker.task.cancel()
        await asyncio.wait({worker.task}, timeout=10)
        assert worker.task.cancelled()
    await is_given_back(env, image_id)
    assert not settings.liveness_file.exists()


async def is_given_back(env: ServiceHarness, image_id: UUID) -> None:
    assert env.renderer.cancelled == 1
    row = await env.row(image_id)
    assert (row["status"], row["attempt"], row["attempts_charged"]) == (Status.PROCESSING, 1, 0)
    await env.time_passes(image_id, 0.01)
    assert (await env.claim(image_id)).attempts_charged == 1


async def test_the_only_worker_resumes_what_an_earlier_run_was_killed_at(
    settings: Settings, env: ServiceHarness
) -> None:
    assert settings.sole_process
    claim = await env.claimed()
    async with working(settings, processing=env.processing()):
        await eventually(lambda: is_done(env, claim.image_id))
    assert (await env.row(claim.image_id))["attempt"] == claim.attempt + 1


async def test_a_worker_among_others_leaves_their_images_alone(
    settings: Settings, postgres_database_url: str, tmp_path: Path
) -> None:
    shared = settings.model_copy(update={"database_url": postgres_database_url})
    assert not shared.sole_process
    async with ServiceHarness.on(postgres_database_url, tmp_path / "storage") as env:
        claim, image_id = await env.claimed(), await env.new()
        before = await env.row(claim.image_id)
        await env.time_passes(image_id, settings.unqueued_after + 1)
        async with working(shared, processing=env.processing()):
            await eventually(lambda: is_done(env, image_id))
        assert await env.row(claim.image_id) == before


async def test_while_all_is_well_it_gives_signs_of_life_and_none_once_it_has_ended(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "INTERVAL", 0.02)
    async with working(settings):
        await eventually(lambda: is_fresh(settings.liveness_file), timeout=60)
        os.utime(settings.liveness_file, (0, 0))
        await eventually(lambda: is_fresh(settings.liveness_file))
    assert not settings.liveness_file.exists()


async def test_it_gives_no_sign_of_life_while_something_is_away(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "INTERVAL", 0.02)
    with capture_logs() as logs:
        async with working(settings):
            await eventually(lambda: is_fresh(settings.liveness_file), timeout=60)
            shutil.rmtree(settings.storage_path)
            await eventually(lambda: complaints(logs) >= 1)
            os.utime(settings.liveness_file, (0, 0))
            await eventually(lambda: complaints(logs) >= 4)
            assert not is_fresh(settings.liveness_file)


def complaints(logs: list[EventDict]) -> int:
    """How many rounds have found the storage away."""
    return sum(line.get("part") == "storage" for line in logs)


class Job:
    """A periodic job with a defect."""

    def __init__(self) -> None:
        self.runs = 0

    async def resume(self) -> None:
        pass

    async def run_once(self) -> int:
        self.runs += 1
        raise RuntimeError("a defect")


async def test_a_job_that_fails_does_not_end_the_worker(settings: Settings, env: ServiceHarness) -> None:
    image_id = await env.queued()
    jobs = {name: Job() for name in ("reconciler", "sweeper", "deletion", "retention")}
    hasty = settings.model_copy(update={"reconcile_interval": 0.01, "sweep_interval": 0.01})
    with capture_logs():
        async with working(hasty, processing=env.processing(), **jobs) as worker:
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


async def test_a_worker_without_a_decoder_does_not_start(settings: Settings, env: ServiceHarness) -> None:
    image_id = await env.queued()
    pools = (Pool(Outage("No decoder.")), Pool())
    async with working(settings, renderers=cast("tuple[RenderPool, ...]", pools)) as worker:
        await asyncio.wait({worker.task}, timeout=10)
        with pytest.raises(Outage, match="No decoder"):
            worker.task.result()
    assert [pool.closed for pool in pools] == [True, True]
    assert (await env.row(image_id))["attempt"] == 0


async def test_a_worker_that_cannot_resume_does_not_start_and_leaves_no_decoder(
    settings: Settings, env: ServiceHarness
) -> None:
    env.script.fail("resume_all", [DatabaseUnavailable])
    pools = (Pool(), Pool())
    instead = {"renderers": pools, "reconciler": env.reconciler()}
    async with working(settings, **instead) as worker:
        await asyncio.wait({worker.task}, timeout=10)
        with pytest.raises(DatabaseUnavailable):
            worker.task.result()
    assert [pool.closed for pool in pools] == [True, True]
