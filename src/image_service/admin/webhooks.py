"""Webhook endpoints: the commands webhooks."""

from collections.abc import Collection, Iterator
from datetime import datetime
from uuid import UUID

from image_service.admin.running import Say, run_with_services
from image_service.bootstrap import AdminServices
from image_service.config import Settings
from image_service.domain.event import EventType
from image_service.domain.webhook import Webhook, WebhookChange
from image_service.domain.webhook_delivery import DeliveryAttempt, WebhookDelivery
from image_service.domain.webhook_signature import public_key


def run_add(settings: Settings, *, url: str, types: Collection[EventType] | None, say: Say) -> None:
    """Registers an endpoint, and shows its secret.

    Raises:
        UrlNotAllowed: nothing would be sent to this URL.
        TooManyWebhooks: there are as many as there can be.
        DatabaseUnavailable: it may or may not be registered.
    """

    async def add(services: AdminServices) -> None:
        webhook = await services.webhooks.register(url, types)
        say(_line(webhook))
        say(_key(webhook))

    run_with_services(settings, add)


def run_list(settings: Settings, *, say: Say) -> None:
    """Lists all endpoints.

    Raises:
        DatabaseUnavailable: the database cannot be reached.
    """

    async def list_all(services: AdminServices) -> None:
        webhooks = await services.webhooks.all()
        for webhook in webhooks:
            say(_line(webhook))
        say(f"{len(webhooks)} webhook endpoints.")

    run_with_services(settings, list_all)


def run_show(settings: Settings, webhook_id: UUID, *, say: Say) -> None:
    """Shows an endpoint without its secret.

    Raises:
        WebhookNotFound: there is none with this id.
        DatabaseUnavailable: the database cannot be reached.
    """

    async def show(services: AdminServices) -> None:
        for line in _lines(await services.webhooks.webhook(webhook_id)):
            say(line)

    run_with_services(settings, show)


def run_change(settings: Settings, webhook_id: UUID, change: WebhookChange, *, say: Say) -> None:
    """Changes an endpoint.

    Raises:
        UrlNotAllowed: nothing would be sent to its new URL.
        WebhookNotFound: there is none with this id.
        DatabaseUnavailable: it may or may not be changed.
    """

    async def change_it(services: AdminServices) -> None:
        say(_line(await services.webhooks.change(webhook_id, change)))

    run_with_services(settings, change_it)


def run_rotate(settings: Settings, webhook_id: UUID, *, say: Say) -> None:
    """Replaces the secret of an endpoint, and shows the new one.

    Raises:
        WebhookNotFound: there is none with this id.
        DatabaseUnavailable: it may or may not be replaced.
    """

    async def rotate(services: AdminServices) -> None:
        webhook = await services.webhooks.rotate(webhook_id)
        say(_key(webhook))
        say(f"The one before signs deliveries, too, until {webhook.previous_until:%Y-%m-%d %H:%M:%S} UTC.")

    run_with_services(settings, rotate)


def run_remove(settings: Settings, webhook_id: UUID, *, say: Say) -> None:
    """Deletes an endpoint with its deliveries.

    Raises:
        WebhookNotFound: there is none with this id.
        DatabaseUnavailable: it may or may not be deleted.
    """

    async def remove(services: AdminServices) -> None:
        await services.webhooks.delete(webhook_id)
        say(f"{webhook_id}  deleted")

    run_with_services(settings, remove)


def run_test(settings: Settings, webhook_id: UUID, *, say: Say) -> None:
    """Has an endpoint sent a test.

    Raises:
        WebhookNotFound: there is none with this id.
        WebhookDisabled: nothing is sent to it.
        DatabaseUnavailable: it may or may not be sent.
    """

    async def test(services: AdminServices) -> None:
        await services.webhooks.test(webhook_id)
        say(f"A worker sends it within seconds; the result: image-service webhooks deliveries {webhook_id}")

    run_with_services(settings, test)


def run_deliveries(settings: Settings, webhook_id: UUID, *, limit: int, say: Say) -> None:
    """Lists the newest deliveries to an endpoint, each with its last attempt.

    Raises:
        WebhookNotFound: there is no such endpoint.
        DatabaseUnavailable: the database cannot be reached.
    """

    async def deliveries(services: AdminServices) -> None:
        found = await services.webhook_replay.deliveries(webhook_id, limit=limit, before=None)
        for delivery in found:
            say(_delivery(delivery))
        say(f"{len(found)} deliveries{' or more' if len(found) == limit else ''}.")

    run_with_services(settings, deliveries)


def run_replay(settings: Settings, webhook_id: UUID, *, delivery: int | None, since: datetime | None, say: Say) -> None:
    """Has one delivery made again, or those of all events since a time.

    Raises:
        WebhookNotFound: there is no such endpoint.
        WebhookDisabled: nothing is sent to it.
        DeliveryNotFound: it has no such delivery.
        DatabaseUnavailable: some may be made again.
    """

    async def replay(services: AdminServices) -> None:
        made = 0
        if delivery is not None:
            await services.webhook_replay.one(webhook_id, delivery)
            made += 1
        if since is not None:
            made += await services.webhook_replay.since(webhook_id, since)
        say(f"{made} deliveries are made again.")

    run_with_services(settings, replay)


def _line(webhook: Webhook) -> str:
    return f"{webhook.id}  {_state(webhook)}  {_types(webhook)}  {webhook.url}"


def _lines(webhook: Webhook) -> Iterator[str]:
    yield _line(webhook)
    yield f"registered {webhook.created_at:%Y-%m-%d %H:%M:%S} UTC"
    if webhook.failing_since is not None:
        yield f"all deliveries since {webhook.failing_since:%Y-%m-%d %H:%M:%S} UTC failed"
    if webhook.disabled_at is not None:
        yield f"disabled {webhook.disabled_at:%Y-%m-%d %H:%M:%S} UTC: {webhook.disabled_reason}"
    if (key := public_key(webhook.secret)) is not None:
        yield f"public key {key}"


def _state(webhook: Webhook) -> str:
    if not webhook.enabled:
        return "disabled"
    return "enabled" if webhook.failing_since is None else "failing"


def _types(webhook: Webhook) -> str:
    return "all types" if webhook.types is None else ",".join(webhook.types)


def _key(webhook: Webhook) -> str:
    key = public_key(webhook.secret)
    if key is not None:
        return f"Its receiver verifies deliveries with the public key {key}"
    return f"Its receiver verifies deliveries with this secret, which is not shown again: {webhook.secret}"


def _delivery(delivery: WebhookDelivery) -> str:
    about = "" if delivery.image_id is None else f"  {delivery.image_id}"
    last = _attempt(delivery.attempts[-1]) if delivery.attempts else "not sent yet"
    when = f"{delivery.created_at:%Y-%m-%d %H:%M:%S}"
    return f"{delivery.id}  {when}  {delivery.event_type}{about}  {delivery.status}  {last}"


def _attempt(attempt: DeliveryAttempt) -> str:
    return f"{attempt.error or f'status {attempt.status}'} in {attempt.milliseconds} ms"
