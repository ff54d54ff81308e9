"""The use cases of the API."""

from dataclasses import dataclass

from image_service.bootstrap.resources import Resources
from image_service.bootstrap.shared import (
    formats,
    make_deletion,
    make_health,
    make_publisher,
    make_reprocessing,
    make_webhook_replay,
    make_webhooks,
)
from image_service.config import Settings
from image_service.domain.recipe import Recipes
from image_service.imaging.inspect import HeaderInspector
from image_service.services.backlog import Backlog
from image_service.services.deletion import Deletion
from image_service.services.event_feed import EventFeed
from image_service.services.event_log import EventLog
from image_service.services.health import HealthCheck
from image_service.services.ingest import Ingest, IngestLimits
from image_service.services.lookup import Lookup
from image_service.services.reprocessing import Reprocessing
from image_service.services.webhook_replay import WebhookReplay
from image_service.services.webhooks import Webhooks


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """The use cases of the API."""

    ingest: Ingest
    backlog: Backlog
    lookup: Lookup
    reprocessing: Reprocessing
    deletion: Deletion
    webhooks: Webhooks
    webhook_replay: WebhookReplay
    health: HealthCheck
    feed: EventFeed
    event_log: EventLog
    recipes: Recipes


def api_services(settings: Settings, resources: Resources) -> ApiServices:
    """Returns the use cases of the API."""
    publisher = make_publisher(settings, resources)
    recipes = settings.recipes
    if resources.metrics is not None:
        resources.metrics.expect_api(backlog_limit=settings.max_backlog)
    return ApiServices(
        ingest=Ingest(
            database=resources.database,
            storage=resources.storage,
            publisher=publisher,
            inspector=HeaderInspector(
                max_pixels=settings.max_pixels, max_memory=settings.decode_memory, allowed=formats(settings)
            ),
            limits=IngestLimits(max_file_size=settings.max_file_size),
            recipes=recipes,
            observer=resources.observer,
            signal=resources.signal,
        ),
        backlog=Backlog(database=resources.database, limit=settings.max_backlog),
        lookup=Lookup(
            database=resources.database,
            storage=resources.storage,
            recipes=recipes,
            presigned_urls=resources.presigned_urls,
        ),
        reprocessing=make_reprocessing(settings, resources),
        deletion=make_deletion(resources),
        webhooks=make_webhooks(settings, resources),
        webhook_replay=make_webhook_replay(resources),
        health=make_health(resources),
        feed=EventFeed(database=resources.database, signal=resources.signal, observer=resources.observer),
        event_log=EventLog(database=resources.database),
        recipes=recipes,
    )
