"""Registers and changes webhook endpoints."""

from collections.abc import Collection, Sequence
from typing import Final, Literal
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from image_service.database import Database
from image_service.domain.event import EventType
from image_service.domain.webhook import Webhook, WebhookChange
from image_service.domain.webhook_signature import new_secret
from image_service.errors import TooManyWebhooks, WebhookDisabled, WebhookNotFound
from image_service.ports import EventSignal, Outbound

ROTATION_GRACE: Final = 24 * 3600.0
"""Seconds for which the secret before the last rotation signs deliveries, too."""

_ON_REQUEST: Final = "It was disabled by a request."

_log = structlog.get_logger(__name__)


class Webhooks:
    """The endpoints that events are sent to.

    Args:
        database: Where they are recorded.
        outbound: Decides which URLs are allowed.
        signatures: How deliveries to new endpoints are signed, and to those whose secret is replaced.
        signal: Tells those who send that there is something to send.
    """

    def __init__(
        self, *, database: Database, outbound: Outbound, signatures: Literal["v1", "v1a"], signal: EventSignal
    ) -> None:
        self._database = database
        self._outbound = outbound
        self._signatures = signatures
        self._signal = signal

    async def register(self, url: str, types: Collection[EventType] | None) -> Webhook:
        """Record an endpoint with a new secret.

        Args:
            url: Where it is.
            types: The types of events that it gets; None: all.

        Raises:
            UrlNotAllowed: nothing would be sent to this URL.
            TooManyWebhooks: there are as many as there can be.
            DatabaseUnavailable: it may or may not be recorded.
        """
        self._outbound.check_url(url)
        secret = new_secret(self._signatures)
        async with self._database.transaction() as repositories:
            webhook = await repositories.webhooks.add(uuid7(), url=url, types=types, secret=secret)
        if webhook is None:
            raise TooManyWebhooks
        _log.info("webhook endpoint registered", webhook_id=str(webhook.id))
        return webhook

    async def all(self) -> Sequence[Webhook]:
        """Returns all endpoints, the oldest first.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        async with self._database.statement() as repositories:
            return await repositories.webhooks.all()

    async def webhook(self, webhook_id: UUID) -> Webhook:
        """Returns an endpoint.

        Raises:
            WebhookNotFound: there is none with this id.
            DatabaseUnavailable: the database cannot be reached.
        """
        async with self._database.statement() as repositories:
            return _existing(await repositories.webhooks.get(webhook_id))

    async def change(self, webhook_id: UUID, change: WebhookChange) -> Webhook:
        """Change an endpoint; returns it as it is then.

        Raises:
            UrlNotAllowed: nothing would be sent to its new URL.
            WebhookNotFound: there is none with this id.
            DatabaseUnavailable: it may or may not be changed.
        """
        if change.url is not None:
            self._outbound.check_url(change.url)
        async with self._database.statement() as repositories:
            webhook = _existing(await repositories.webhooks.change(webhook_id, change, reason=_ON_REQUEST))
        _log.info("webhook endpoint changed", webhook_id=str(webhook_id), enabled=webhook.enabled)
        return webhook

    async def rotate(self, webhook_id: UUID) -> Webhook:
        """Replace the secret of an endpoint; for ``ROTATION_GRACE`` the one before signs deliveries, too.

        Raises:
            WebhookNotFound: there is none with this id.
            DatabaseUnavailable: it may or may not be replaced: do it again.
        """
        secret = new_secret(self._signatures)
        async with self._database.statement() as repositories:
            webhook = _existing(await repositories.webhooks.rotate(webhook_id, secret, grace=ROTATION_GRACE))
        _log.info("secret of a webhook endpoint replaced", webhook_id=str(webhook_id))
        return webhook

    async def delete(self, webhook_id: UUID) -> None:
        """Delete an endpoint with all its deliveries.

        Raises:
            WebhookNotFound: there is none with this id.
            DatabaseUnavailable: it may or may not be deleted.
        """
        async with self._database.statement() as repositories:
            if not await repositories.webhooks.remove(webhook_id):
                raise WebhookNotFound
        _log.info("webhook endpoint deleted", webhook_id=str(webhook_id))

    async def test(self, webhook_id: UUID) -> None:
        """Record an event that is sent to this endpoint only, in the way of all others.

        Raises:
            WebhookNotFound: there is none with this id.
            WebhookDisabled: nothing is sent to it.
            DatabaseUnavailable: it may or may not be recorded.
        """
        async with self._database.transaction() as repositories:
            webhook = _existing(await repositories.webhooks.test(webhook_id))
        if not webhook.enabled:
            raise WebhookDisabled
        self._signal.notify()


def _existing(webhook: Webhook | None) -> Webhook:
    if webhook is None:
        raise WebhookNotFound
    return webhook
