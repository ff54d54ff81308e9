"""Observed adapters do what the wrapped one does, and measure it."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.counted import counted
from harness.fakes import TRAITS
from harness.plans import ORIGINAL
from harness.waiting import eventually
from image_service.domain.image import Rendering
from image_service.domain.lane import Lane
from image_service.domain.recipe import DEFAULT_RECIPE, Recipe
from image_service.errors import CorruptImage, ObjectMissing, QueueUnavailable
from image_service.observability.metrics import Metrics
from image_service.observability.observed import ObservedQueue, ObservedRenderer, ObservedStorage
from image_service.ports import Delivery, Drain
from image_service.queue.embedded import EmbeddedQueue
from image_service.storage.local import LocalStorage

CONTENT_DIGEST = hashlib.sha256(b"content").hexdigest()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def queue(metrics: Metrics) -> AsyncIterator[ObservedQueue]:
    queue = ObservedQueue(EmbeddedQueue(requeue_delay=0.01), metrics)
    await queue.start()
    yield queue
    await queue.close()


async def test_storage_operations_are_counted(tmp_path: Path, metrics: Metrics) -> None:
    storage = ObservedStorage(LocalStorage(tmp_path), metrics)
    await storage.probe()
    async with storage.scratch() as scratch:
        (scratch / "file").write_bytes(b"content")
        await storage.adopt({"originals/00/1": scratch / "file"})
        assert (await storage.local_path("originals/00/1", scratch, CONTENT_DIGEST)).read_bytes() == b"content"
    assert [item.key async for item in storage.list("originals")] == ["originals/00/1"]
    assert [piece async for piece in storage.read("originals/00/1")] == [b"content"]
    assert await storage.bind_to_database("mine") == "mine"
    assert await storage.bound_database() == "mine"
    assert await storage.sweep_scratch(60) == 0
    await storage.delete(["originals/00/1"])
    for operation in ("adopt", "local_path", "delete"):
        assert counted(metrics, "storage_operation_seconds_count", operation=operation, outcome="ok") == 1


async def test_storage_error_is_counted_by_code(tmp_path: Path, metrics: Metrics) -> None:
    storage = ObservedStorage(LocalStorage(tmp_path), metrics)
    async with storage.scratch() as scratch:
        with pytest.raises(ObjectMissing):
            await storage.local_path("originals/00/1", scratch, CONTENT_DIGEST)
    name = "storage_operation_seconds_count"
    assert counted(metrics, name, operation="local_path", outcome="object-missing") == 1


async def test_deliveries_arrive_and_are_counted(queue: ObservedQueue, metrics: Metrics) -> None:
    arrived: list[Delivery] = []
    fails = iter([True, False])

    async def handle(delivery: Delivery) -> None:
        assert counted(metrics, "deliveries_in_progress", lane="express") == 1
        if next(fails):
            raise CorruptImage
        arrived.append(delivery)

    async def done() -> None:
        await eventually(lambda: arrived)

    delivery = Delivery(image_id=ORIGINAL.id, lane=Lane.EXPRESS, request_id="r")
    await queue.publish(delivery)
    assert (await queue.depth())[Lane.EXPRESS] == 1
    await queue.consume(handle, 1, Drain(done, 1.0), Lane.EXPRESS)
    assert arrived == [delivery]
    assert counted(metrics, "queue_publish_seconds_count", outcome="ok") == 1
    for outcome in ("ok", "corrupt-image"):
        assert counted(metrics, "delivery_seconds_count", lane="express", outcome=outcome) == 1
    assert counted(metrics, "deliveries_in_progress", lane="express") == 0


async def test_failed_publish_is_counted_by_code(queue: ObservedQueue, metrics: Metrics) -> None:
    await queue.close()
    with pytest.raises(QueueUnavailable):
        await queue.publish(Delivery(image_id=ORIGINAL.id))
    assert counted(metrics, "queue_publish_seconds_count", outcome="queue-unavailable") == 1


class Steps:
    """A renderer that reports two steps, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def render(self, _source: Path, _recipe: Recipe, _out: Path) -> Rendering:
        if self._error:
            raise self._error
        timings = (("decode", 0.5), ("encode 100x100", 0.25))
        return Rendering(width=1, height=1, thumbnails=(), traits=TRAITS, timings=timings)


async def test_rendering_steps_are_timed(tmp_path: Path, metrics: Metrics) -> None:
    await ObservedRenderer(Steps(), metrics).render(tmp_path, DEFAULT_RECIPE, tmp_path)
    assert counted(metrics, "render_step_seconds_sum", step="decode", preset="") == 0.5
    assert counted(metrics, "render_step_seconds_sum", step="encode", preset="100x100") == 0.25
    assert counted(metrics, "render_seconds_count", outcome="ok") == 1


@pytest.mark.parametrize(
    ("error", "outcome"), [(CorruptImage(), "corrupt-image"), (RuntimeError("a defect"), "failed")]
)
async def test_failed_rendering_is_counted_by_code(
    tmp_path: Path, metrics: Metrics, error: Exception, outcome: str
) -> None:
    with pytest.raises(type(error)):
        await ObservedRenderer(Steps(error), metrics).render(tmp_path, DEFAULT_RECIPE, tmp_path)
    assert counted(metrics, "render_seconds_count", outcome=outcome) == 1
