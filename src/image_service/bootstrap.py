"""From settings to a wired application: the only place where adapters are chosen."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from image_service.config import Settings
from image_service.database import Database
from image_service.domain.image import ImageFormat
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.imaging.inspect import HeaderInspector
from image_service.imaging.limits import RenderLimits
from image_service.imaging.pool import RenderPool
from image_service.ports import Storage, TaskQueue
from image_service.queue.embedded import EmbeddedQueue
from image_service.queue.rabbitmq import RabbitMQQueue
from image_service.services.health import HealthCheck
from image_service.services.ingest import Ingest
from image_service.services.lookup import Lookup
from image_service.services.processing import Processing, ProcessingPolicy
from image_service.services.reconcile import Reconciler
from image_service.services.sweep import Sweeper
from image_service.services.timing import QueueTiming
from image_service.storage.local import SCRATCH, LocalStorage

EXPRESS_SLOTS: Final = 1
"""Decoders beyond the configured number, which only images of the express lane may use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The connections to what the service depends on; API and worker of one process share them."""

    database: Database
    storage: Storage
    queue: TaskQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """The use cases behind the API."""

    ingest: Ingest
    lookup: Lookup
    health: HealthCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerServices:
    """The use cases behind a worker."""

    renderer: RenderPool
    processing: Processing
    reconciler: Reconciler
    sweeper: Sweeper
    health: HealthCheck


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Everything that has to be closed again. Nothing has to be reachable yet."""
    database = Database(settings.database_url)
    queue: TaskQueue = (
        EmbeddedQueue() if settings.embedded_queue else RabbitMQQueue(settings.rabbitmq_url, settings.publish_timeout)
    )
    await queue.start()
    try:
        yield Resources(database=database, storage=LocalStorage(settings.storage_path), queue=queue)
    finally:
        await queue.close()
        await database.close()


def api_services(settings: Settings, resources: Resources) -> ApiServices:
    """The use cases of the API on these resources."""
    return ApiServices(
        ingest=Ingest(
            database=resources.database,
            storage=resources.storage,
            queue=resources.queue,
            inspector=HeaderInspector(
                max_pixels=settings.max_pixels, max_memory=settings.decode_memory, allowed=_formats(settings)
            ),
            max_file_size=settings.max_file_size,
            timing=_timing(settings),
        ),
        lookup=Lookup(database=resources.database, storage=resources.storage),
        health=_health(resources),
    )


def worker_services(settings: Settings, resources: Resources) -> WorkerServices:
    """The use cases of a worker on these resources."""
    renderer = RenderPool(
        settings.decode_slots + EXPRESS_SLOTS,
        RenderLimits(
            wall_seconds=settings.decode_timeout,
            cpu_seconds=settings.decode_cpu_seconds,
            memory_bytes=settings.decode_memory,
            max_pixels=settings.max_pixels,
            readable=(str(settings.storage_path),),
            writable=(str(settings.storage_path / SCRATCH),),
            require_sandbox=settings.require_sandbox,
            formats=_formats(settings),
            truncated=settings.render_truncated,
        ),
    )
    return WorkerServices(
        renderer=renderer,
        processing=Processing(
            database=resources.database,
            storage=resources.storage,
            renderer=renderer,
            recipe=DEFAULT_RECIPE,
            policy=ProcessingPolicy(
                lease=settings.lease_seconds,
                heartbeat=settings.heartbeat_seconds,
                max_attempts=settings.max_attempts,
                max_decoder_failures=settings.max_decoder_failures,
                retry_delay=settings.retry_delay,
            ),
        ),
        reconciler=Reconciler(database=resources.database, queue=resources.queue, timing=_timing(settings)),
        sweeper=Sweeper(database=resources.database, storage=resources.storage, grace=settings.orphan_grace),
        health=_health(resources),
    )


def _formats(settings: Settings) -> tuple[ImageFormat, ...]:
    return tuple(sorted(map(ImageFormat, settings.enabled_formats)))


def _timing(settings: Settings) -> QueueTiming:
    return QueueTiming(unqueued_after=settings.unqueued_after, unclaimed_after=settings.unclaimed_after)


def _health(resources: Resources) -> HealthCheck:
    return HealthCheck(database=resources.database, queue=resources.queue, storage=resources.storage)
