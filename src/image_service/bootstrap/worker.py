"""The use cases of a worker."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from image_service.bootstrap.resources import Resources
from image_service.bootstrap.shared import (
    formats,
    make_deletion,
    make_health,
    make_reconciler,
    make_sweeper,
    storage_binding,
)
from image_service.config import Settings
from image_service.documents.cloudevent import encode_cloudevent
from image_service.documents.event import encode_event
from image_service.documents.urls import Urls
from image_service.domain.lane import Lane
from image_service.imaging.isolation.pool import RenderPool
from image_service.imaging.limits import RenderLimits
from image_service.observability.observed import ObservedRenderer
from image_service.ports import Renderer
from image_service.services.attempts import ProcessingPolicy
from image_service.services.deletion import Deletion
from image_service.services.event_relay import EventRelay
from image_service.services.event_retention import EventRetention
from image_service.services.health import HealthCheck
from image_service.services.processing import Processing
from image_service.services.reconciler import Reconciler
from image_service.services.retention import Retention
from image_service.services.storage_binding import StorageBinding
from image_service.services.sweeper import Sweeper
from image_service.services.webhook_dispatch import WebhookDispatcher
from image_service.services.webhook_loop import WebhookLoop
from image_service.services.webhook_sending import WebhookSender

_HOUR: Final = 3600.0
_DAY: Final = 24 * _HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerServices:
    """The use cases of a worker's periodic jobs."""

    reconciler: Reconciler
    sweeper: Sweeper
    deletion: Deletion
    retention: Retention
    event_retention: EventRetention
    health: HealthCheck
    storage_binding: StorageBinding
    webhooks: WebhookLoop
    event_relay: EventRelay | None
    """None if there is no exchange for other services."""


def worker_services(settings: Settings, resources: Resources) -> WorkerServices:
    """Returns the use cases of a worker's periodic jobs."""
    if resources.metrics is not None:
        resources.metrics.expect_worker()
    return WorkerServices(
        reconciler=make_reconciler(settings, resources),
        sweeper=make_sweeper(settings, resources),
        deletion=make_deletion(resources),
        retention=Retention(
            database=resources.database,
            originals_for=_seconds(settings.retain_originals_days),
            images_for=_seconds(settings.retain_images_days),
            signal=resources.signal,
        ),
        event_retention=EventRetention(
            database=resources.database,
            kept_for=settings.events_retention_hours * _HOUR,
            published=settings.events_exchange is not None,
        ),
        health=make_health(resources),
        storage_binding=storage_binding(resources),
        webhooks=_webhooks(settings, resources),
        event_relay=_event_relay(settings, resources),
    )


def _event_relay(settings: Settings, resources: Resources) -> EventRelay | None:
    if resources.exchange is None:
        return None
    urls, source = Urls(settings.public_url or ""), settings.public_url
    return EventRelay(
        database=resources.database,
        exchange=resources.exchange,
        encode=partial(encode_cloudevent, urls=urls, recipes=settings.recipes, source=source),
        signal=resources.signal,
        observer=resources.observer,
    )


def _webhooks(settings: Settings, resources: Resources) -> WebhookLoop:
    sender = WebhookSender(
        database=resources.database,
        outbound=resources.outbound,
        encode=partial(encode_event, urls=Urls(settings.public_url or ""), recipes=settings.recipes),
        timeout=settings.webhook_timeout,
        observer=resources.observer,
    )
    return WebhookLoop(
        dispatcher=WebhookDispatcher(database=resources.database),
        sender=sender,
        signal=resources.signal,
        observer=resources.observer,
    )


def processing(settings: Settings, resources: Resources, renderers: Mapping[Lane, Renderer]) -> Processing:
    """Returns the use case that renders images, with the renderer of each lane."""
    return Processing(
        database=resources.database,
        storage=resources.storage,
        renderers=renderers,
        recipes=settings.recipes,
        observer=resources.observer,
        signal=resources.signal,
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


def _limits(settings: Settings) -> RenderLimits:
    return RenderLimits(
        wall_seconds=settings.decode_timeout,
        cpu_seconds=settings.decode_cpu_seconds,
        memory_bytes=settings.decode_memory,
        max_pixels=settings.max_pixels,
        readable=(str(settings.storage_folder),),
        writable=(),
        require_sandbox=settings.require_sandbox,
        formats=formats(settings),
        outputs=settings.recipes.formats,
        truncated=settings.render_truncated,
    )


def _seconds(days: float | None) -> float | None:
    return None if days is None else days * _DAY
