"""The use cases of the commands for operators."""

from dataclasses import dataclass

from image_service.bootstrap.resources import Resources
from image_service.bootstrap.shared import (
    make_reconciler,
    make_reprocessing,
    make_sweeper,
    make_webhook_replay,
    make_webhooks,
)
from image_service.config import Settings
from image_service.ports import DeadLetters
from image_service.queue.rabbitmq import RabbitMQDeadLetters
from image_service.services.audit import Audit
from image_service.services.backfill import Backfill
from image_service.services.lookup import Lookup
from image_service.services.reprocessing import Reprocessing
from image_service.services.webhook_replay import WebhookReplay
from image_service.services.webhooks import Webhooks


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminServices:
    """The use cases of the commands for operators."""

    audit: Audit
    reprocessing: Reprocessing
    backfill: Backfill
    lookup: Lookup
    webhooks: Webhooks
    webhook_replay: WebhookReplay
    dead_letters: DeadLetters | None
    """None if the queue has no broker."""


def admin_services(settings: Settings, resources: Resources) -> AdminServices:
    """Returns the use cases of the commands for operators."""
    broker = not settings.embedded_queue
    reprocessing = make_reprocessing(settings, resources)
    return AdminServices(
        audit=Audit(
            database=resources.database,
            storage=resources.storage,
            sweeper=make_sweeper(settings, resources),
            reprocessing=reprocessing,
            # The embedded queue of another process cannot be reached from here.
            reconciler=make_reconciler(settings, resources) if broker else None,
        ),
        reprocessing=reprocessing,
        backfill=Backfill(database=resources.database, recipes=settings.recipes),
        lookup=Lookup(database=resources.database, storage=resources.storage, recipes=settings.recipes),
        webhooks=make_webhooks(settings, resources),
        webhook_replay=make_webhook_replay(resources),
        dead_letters=RabbitMQDeadLetters(settings.rabbitmq_url.get_secret_value()) if broker else None,
    )
