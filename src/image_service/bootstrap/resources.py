"""The connections to the dependencies: the only place where adapters are chosen."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from image_service.bootstrap.outbound import make_outbound
from image_service.config import Settings
from image_service.database import Database
from image_service.observability.metrics import Metrics
from image_service.observability.observed import ObservedQueue, ObservedStorage
from image_service.ports import (
    NULL_OBSERVER,
    EventExchange,
    EventSignal,
    Observer,
    Outbound,
    PresignedUrls,
    Storage,
    TaskQueue,
)
from image_service.queue.embedded import EmbeddedQueue
from image_service.queue.rabbitmq import RabbitMQExchange, RabbitMQQueue, RabbitMQSignal
from image_service.queue.signal import LocalSignal
from image_service.storage.local import LocalStorage

_MAX_OBJECT_BYTES: Final = 1024**3
"""Size above which no object is taken for an original, unless MAX_FILE_SIZE is larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Connections to the dependencies, shared by the API and the worker of one process."""

    database: Database
    storage: Storage
    queue: TaskQueue
    signal: EventSignal
    """Tells all processes that events have been recorded."""
    outbound: Outbound
    """Sends to addresses that users chose; it connects to nothing before it is used."""
    exchange: EventExchange | None = None
    """Where events are published to other services, not connected yet; None if they are not."""
    presigned_urls: PresignedUrls | None = None
    """The storage, if clients download files directly from it."""
    metrics: Metrics | None = None
    """None if nothing is measured."""

    @property
    def observer(self) -> Observer:
        """The observer that the use cases notify."""
        return self.metrics or NULL_OBSERVER


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
    signal = LocalSignal() if settings.embedded_queue else RabbitMQSignal(settings.rabbitmq_url.get_secret_value())
    outbound = make_outbound(settings)
    await queue.start()
    try:
        yield Resources(
            database=database,
            storage=storage,
            queue=queue,
            signal=signal,
            exchange=_exchange(settings),
            outbound=outbound,
            presigned_urls=presigned_urls,
            metrics=metrics,
        )
    finally:
        await signal.close()
        await outbound.close()
        await queue.close()
        await database.close()


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


def _exchange(settings: Settings) -> EventExchange | None:
    if settings.events_exchange is None:
        return None
    return RabbitMQExchange(settings.rabbitmq_url.get_secret_value(), settings.events_exchange)
