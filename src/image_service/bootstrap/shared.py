"""Use cases that several parts of the service have."""

from image_service.bootstrap.resources import Resources
from image_service.config import Settings
from image_service.domain.image import ImageFormat
from image_service.services.backlog_gauges import BacklogGauges
from image_service.services.deletion import Deletion
from image_service.services.health import HealthCheck
from image_service.services.publishing import Publisher, QueueTiming
from image_service.services.reconciler import Reconciler
from image_service.services.reprocessing import Reprocessing
from image_service.services.storage_binding import StorageBinding
from image_service.services.sweeper import Sweeper
from image_service.services.webhook_replay import WebhookReplay
from image_service.services.webhooks import Webhooks


def storage_binding(resources: Resources) -> StorageBinding:
    """Returns the binding of the storage to the database."""
    return StorageBinding(database=resources.database, storage=resources.storage)


def backlog_gauges(settings: Settings, resources: Resources) -> BacklogGauges:
    """Returns the periodic measurement of the backlog."""
    health = make_health(resources)
    return BacklogGauges(
        database=resources.database, health=health, observer=resources.observer, limit=settings.max_backlog
    )


def formats(settings: Settings) -> tuple[ImageFormat, ...]:
    """Returns the formats that are accepted."""
    return tuple(sorted(map(ImageFormat, settings.enabled_formats)))


def make_publisher(settings: Settings, resources: Resources) -> Publisher:
    """Returns what publishes NEW images."""
    timing = QueueTiming(unqueued_after=settings.unqueued_after, unclaimed_after=settings.unclaimed_after)
    return Publisher(database=resources.database, queue=resources.queue, timing=timing)


def make_reprocessing(settings: Settings, resources: Resources) -> Reprocessing:
    """Returns the use case that processes images again."""
    return Reprocessing(
        database=resources.database,
        publisher=make_publisher(settings, resources),
        recipes=settings.recipes,
        signal=resources.signal,
    )


def make_reconciler(settings: Settings, resources: Resources) -> Reconciler:
    """Returns the periodic job that queues images again."""
    return Reconciler(database=resources.database, queue=resources.queue, publisher=make_publisher(settings, resources))


def make_sweeper(settings: Settings, resources: Resources) -> Sweeper:
    """Returns the periodic job that deletes files without a row."""
    return Sweeper(database=resources.database, storage=resources.storage, grace=settings.orphan_grace)


def make_deletion(resources: Resources) -> Deletion:
    """Returns the use case that deletes images."""
    return Deletion(database=resources.database, storage=resources.storage, signal=resources.signal)


def make_webhooks(settings: Settings, resources: Resources) -> Webhooks:
    """Returns the use cases of webhook endpoints."""
    return Webhooks(
        database=resources.database,
        outbound=resources.outbound,
        signatures=settings.webhook_signatures,
        signal=resources.signal,
    )


def make_webhook_replay(resources: Resources) -> WebhookReplay:
    """Returns the use cases of deliveries to webhook endpoints."""
    return WebhookReplay(database=resources.database, signal=resources.signal)


def make_health(resources: Resources) -> HealthCheck:
    """Returns the check of the dependencies."""
    return HealthCheck(
        database=resources.database, queue=resources.queue, storage=resources.storage, observer=resources.observer
    )
