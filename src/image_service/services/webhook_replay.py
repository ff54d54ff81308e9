"""What was sent to a webhook endpoint, and sending it again."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from image_service.database import Database
from image_service.domain.webhook import Webhook
from image_service.domain.webhook_delivery import WebhookDelivery
from image_service.errors import DeliveryNotFound, WebhookDisabled, WebhookNotFound
from image_service.ports import EventSignal


class WebhookReplay:
    """The deliveries to endpoints.

    Args:
        database: Where they are recorded.
        signal: Tells those who send that there is something to send.
    """

    def __init__(self, *, database: Database, signal: EventSignal) -> None:
        self._database = database
        self._signal = signal

    async def deliveries(self, webhook_id: UUID, *, limit: int, before: int | None) -> Sequence[WebhookDelivery]:
        """Returns a page of the deliveries to an endpoint, that of the newest event first.

        Args:
            webhook_id: The endpoint.
            limit: The most to return.
            before: The delivery after which to go on.

        Raises:
            WebhookNotFound: there is no such endpoint.
            DatabaseUnavailable: the database cannot be reached.
        """
        async with self._database.transaction() as repositories:
            if await repositories.webhooks.get(webhook_id) is None:
                raise WebhookNotFound
            return await repositories.deliveries.of_webhook(webhook_id, limit=limit, before=before)

    async def one(self, webhook_id: UUID, delivery_id: int) -> None:
        """Have one delivery made again, with the same id.

        Raises:
            WebhookNotFound: there is no such endpoint.
            WebhookDisabled: nothing is sent to it.
            DeliveryNotFound: it has no such delivery, or that is being made.
            DatabaseUnavailable: it may or may not be made again.
        """
        async with self._database.transaction() as repositories:
            _enabled(await repositories.webhooks.get(webhook_id))
            if not await repositories.deliveries.replay_one(webhook_id, delivery_id):
                raise DeliveryNotFound
        self._signal.notify()

    async def since(self, webhook_id: UUID, since: datetime) -> int:
        """Have all deliveries of events since a time made again; returns how many.

        Raises:
            WebhookNotFound: there is no such endpoint.
            WebhookDisabled: nothing is sent to it.
            DatabaseUnavailable: some may be made again; it is safe to repeat.
        """
        made = 0
        before = None
        while True:
            async with self._database.transaction() as repositories:
                webhook = _enabled(await repositories.webhooks.get(webhook_id))
                replayed = await repositories.deliveries.replay_since(webhook, since, before=before)
            self._signal.notify()
            made += replayed.deliveries
            if (before := replayed.before) is None:
                return made


def _enabled(webhook: Webhook | None) -> Webhook:
    if webhook is None:
        raise WebhookNotFound
    if not webhook.enabled:
        raise WebhookDisabled
    return webhook
