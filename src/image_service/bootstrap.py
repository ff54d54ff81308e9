"""Wires the application from its settings: the only place where adapters are chosen."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from image_service.config import Settings
from image_service.database import Database
from image_service.domain.image import ImageFormat
from image_service.domain.lane import Lane
from image_service.domain.recipe import Recipes
from image_service.imaging.inspect import HeaderInspector
from image_service.imaging.isolation.pool import RenderPool
from image_service.imaging.limits import RenderLimits
from image_service.observability.metrics import Metrics
from image_service.observability.observed import ObservedQueue, ObservedRenderer, ObservedStorage
from image_service.ports import NULL_OBSERVER, DeadLetters, Observer, PresignedUrls, Renderer, Storage, TaskQueue
from image_service.queue.embedded import EmbeddedQueue
from image_service.queue.rabbitmq import RabbitMQDeadLetters, RabbitMQQueue
from image_service.services.attempts import ProcessingPolicy
from image_service.services.audit import Audit
from image_service.services.backfill import Backfill
from image_service.services.backlog import Backlog
from image_service.services.backlog_gauges import BacklogGauges
from image_service.services.deletion import Deletion
from image_service.services.health import HealthCheck
from image_service.services.ingest import Ingest, IngestLimits
from image_service.services.lookup import Lookup
from image_service.services.processing import Processing
from image_service.services.publishing import Publisher, QueueTiming
from image_service.services.reconciler import Reconciler
from image_service.services.reprocessing import Reprocessing
from image_service.services.retention import Retention
from image_service.services.storage_binding import StorageBinding
from image_service.services.sweeper import Sweeper
from image_service.storage.local import LocalStorage

_DAY: Final = 86_400.0
_MAX_OBJECT_BYTES: Final = 1024**3
"""Size above which no object is taken for an original, unless MAX_FILE_SIZE is larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Connections to the dependencies, shared by the API and the worker of one process."""

    database: Database
    storage: Storage
    queue: TaskQueue
    presigned_urls: PresignedUrls | None = None
    """The storage, if clients download files directly from it."""
    metrics: Metrics | None = None
    """None if nothing is measured."""

    @property
    def observer(self) -> Observer:
        """The observer that the use cases notify."""
        return self.metrics or NULL_OBSERVER


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """The use cases of the API."""

    ingest: Ingest
    backlog: Backlog
    lookup: Lookup
    reprocessing: Reprocessing
    deletion: Deletion
    health: HealthCheck
    recipes: Recipes


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerServices:
    """The use cases of a worker's periodic jobs."""

    reconciler: Reconciler
    sweeper: Sweeper
    deletion: Deletion
    retention: Retention
    health: HealthCheck
    storage_binding: StorageBinding


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminServices:
    """The use cases of the commands for operators."""

    audit: Audit
    reprocessing: Reprocessing
    backfill: Backfill
    lookup: Lookup
    dead_letters: DeadLetters | None
    """None if the queue has no broker."""


@asynccontextmanager
async def open_resources(settings: Settings, metrics: Metrics | None = None) -> AsyncIterator[Resources]:
    """Open the connections for the duration of the block. The dependencies need not be reachable yet.

    Raises:
        StartError: the object storage is not configured correctly.
    """
    storage, presigned_urls = _storage(settings)
    database = Database(settings.database_url.get_secret_value())
    if settings.traced:
        from image_service.observability.exporting import trace_engine  # noqa: PLC0415 — an optional dependency

        trace_engine(database.engine)
    queue = _queue(settings, metrics)
    if metrics is not None:
        queue, storage = ObservedQueue(queue, metrics), ObservedStorage(storage, metrics)
        metrics.track_connections("in-use", lambda: database.connections[0])
        metrics.track_connections("idle", lambda: database.connections[1])
    await queue.start()
    try:
        yield Resources(database=database, storage=storage, queue=queue, presigned_urls=presigned_urls, metrics=metrics)
    finally:
        await queue.close()
        await database.close()


def api_services(settings: Settings, resources: Resources) -> ApiServices:
    """Returns the use cases of the API."""
    publisher = _publisher(settings, resources)
    recipes = settings.recipes
    if resources.metrics is not None:
        resources.metrics.expect_api(backlog_limit=settings.max_backlog)
    return ApiServices(
        ingest=Ingest(
            database=resources.database,
            storage=resources.storage,
            publisher=publisher,
            inspector=HeaderInspector(
                max_pixels=settings.max_pixels, max_memory=settings.decode_memory, allowed=_formats(settings)
            ),
            limits=IngestLimits(max_file_size=settings.max_file_size),
            recipes=recipes,
            observer=resources.observer,
        ),
        backlog=Backlog(database=resources.database, limit=settings.max_backlog),
        lookup=Lookup(
            database=resources.database,
            storage=resources.storage,
            recipes=recipes,
            presigned_urls=resources.presigned_urls,
        ),
        reprocessing=_reprocessing(settings, resources),
        deletion=_deletion(resources),
        health=_health(resources),
        recipes=recipes,
    )


def worker_services(settings: Settings, resources: Resources) -> WorkerServices:
    """Returns the use cases of a worker's periodic jobs."""
    if resources.metrics is not None:
        resources.metrics.expect_worker()
    return WorkerServices(
        reconciler=_reconciler(settings, resources),
        sweeper=_sweeper(settings, resources),
        deletion=_deletion(resources),
        retention=Retention(
            database=resources.database,
            originals_for=_seconds(settings.retain_originals_days),
            images_for=_seconds(settings.retain_images_days),
        ),
        health=_health(resources),
        storage_binding=storage_binding(resources),
    )


def storage_binding(resources: Resources) -> StorageBinding:
    """Returns the binding of the storage to the database."""
    return StorageBinding(database=resources.database, storage=resources.storage)


def backlog_gauges(settings: Settings, resources: Resources) -> BacklogGauges:
    """Returns the periodic measurement of the backlog."""
    health = _health(resources)
    return BacklogGauges(
        database=resources.database, health=health, observer=resources.observer, limit=settings.max_backlog
    )


def admin_services(settings: Settings, resources: Resources) -> AdminServices:
    """Returns the use cases of the commands for operators."""
    broker = not settings.embedded_queue
    reprocessing = _reprocessing(settings, resources)
    return AdminServices(
        audit=Audit(
            database=resources.database,
            storage=resources.storage,
            sweeper=_sweeper(settings, resources),
            reprocessing=reprocessing,
            # The embedded queue of another process cannot be reached from here.
            reconciler=_reconciler(settings, resources) if broker else None,
        ),
        reprocessing=reprocessing,
        backfill=Backfill(database=resources.database, recipes=settings.recipes),
        lookup=Lookup(database=resources.database, storage=resources.storage, recipes=settings.recipes),
        dead_letters=RabbitMQDeadLetters(settings.rabbitmq_url.get_secret_value()) if broker else None,
    )


def processing(settings: Settings, resources: Resources, renderers: Mapping[Lane, Renderer]) -> Processing:
    """Returns the use case that renders images, with the renderer of each lane."""
    return Processing(
        database=resources.database,
        storage=resources.storage,
        renderers=renderers,
        recipes=settings.recipes,
        observer=resources.observer,
        policy=ProcessingPolicy(
            lease=settings.lease_seconds,
            heartbeat=settings.heartbeat_seconds,
            max_attempts=settings.max_attempts,
            max_decoder_failures=settings.max_decoder_failures,
            retry_delay=settings.retry_delay,
        ),
    )


def decoder_pool(settings: Settings, resources: Resources, name: str, slots: int, niceness: int = 0) -> RenderPool:
    """Returns a pool of up to ``slots`` decoder processes; none is started. The metrics show it under its name."""
    pool = RenderPool(slots, replace(_limits(settings), niceness=niceness))
    if resources.metrics is not None:
        resources.metrics.track_decoder_pool(
            name, slots=slots, busy=partial(getattr, pool, "busy"), idle=partial(getattr, pool, "idle")
        )
    return pool


def observed_renderer(resources: Resources, renderer: Renderer) -> Renderer:
    """Returns the renderer, measured if anything is."""
    return renderer if resources.metrics is None else ObservedRenderer(renderer, resources.metrics)


def _storage(settings: Settings) -> tuple[Storage, PresignedUrls | None]:
    """Returns the storage, and the same as a source of presigned URLs if clients are to get these."""
    if settings.object_storage is None:
        return LocalStorage(settings.storage_folder, reserve=settings.storage_reserve), None
    # Loaded only if it is used: its library takes memory.
    from image_service.storage.objects import ObjectStorage  # noqa: PLC0415 — see above

    storage = ObjectStorage.at(
        settings.object_storage,
        settings.storage_folder,
        limit=settings.storage_timeout,
        largest_copy=max(_MAX_OBJECT_BYTES, settings.max_file_size),
        reserve=settings.storage_reserve,
    )
    return storage, storage if settings.files_delivery == "redirect" else None


def _queue(settings: Settings, metrics: Metrics | None) -> TaskQueue:
    if settings.embedded_queue:
        return EmbeddedQueue()
    queue = RabbitMQQueue(settings.rabbitmq_url.get_secret_value(), settings.publish_timeout)
    if metrics is not None:
        metrics.track_dead_letters(lambda: queue.dead_letters)
    return queue


def _limits(settings: Settings) -> RenderLimits:
    return RenderLimits(
        wall_seconds=settings.decode_timeout,
        cpu_seconds=settings.decode_cpu_seconds,
        memory_bytes=settings.decode_memory,
        max_pixels=settings.max_pixels,
        readable=(str(settings.storage_folder),),
        writable=(),
        require_sandbox=settings.require_sandbox,
        formats=_formats(settings),
        outputs=settings.recipes.formats,
        truncated=settings.render_truncated,
    )


def _formats(settings: Settings) -> tuple[ImageFormat, ...]:
    return tuple(sorted(map(ImageFormat, settings.enabled_formats)))


def _publisher(settings: Settings, resources: Resources) -> Publisher:
    timing = QueueTiming(unqueued_after=settings.unqueued_after, unclaimed_after=settings.unclaimed_after)
    return Publisher(database=resources.database, queue=resources.queue, timing=timing)


def _seconds(days: float | None) -> float | None:
    return None if days is None else days * _DAY


def _reprocessing(settings: Settings, resources: Resources) -> Reprocessing:
    return Reprocessing(
        database=resources.database, publisher=_publisher(settings, resources), recipes=settings.recipes
    )


def _reconciler(settings: Settings, resources: Resources) -> Reconciler:
    return Reconciler(database=resources.database, queue=resources.queue, publisher=_publisher(settings, resources))


def _sweeper(settings: Settings, resources: Resources) -> Sweeper:
    return Sweeper(database=resources.database, storage=resources.storage, grace=settings.orphan_grace)


def _deletion(resources: Resources) -> Deletion:
    return Deletion(database=resources.database, storage=resources.storage)


def _health(resources: Resources) -> HealthCheck:
    return HealthCheck(
        database=resources.database, queue=resources.queue, storage=resources.storage, observer=resources.observer
    )
