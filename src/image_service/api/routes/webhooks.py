"""``/webhooks``: registers, lists, changes and tests webhook endpoints."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import Path, Request, Response

from image_service import errors
from image_service.api.caching import NO_STORE
from image_service.api.dependencies import context_of
from image_service.api.json_body import JsonRoute
from image_service.api.problems import documented
from image_service.api.routing import Router
from image_service.api.webhook_documents import (
    ChangedWebhook,
    NewWebhook,
    TestAccepted,
    WebhookDocument,
    WebhookList,
    WebhookWithSecret,
    webhook_document,
    webhook_with_secret,
)

router: Final = Router(prefix="/webhooks", tags=["webhooks"], route_class=JsonRoute)

WebhookId = Annotated[UUID, Path(description="The `id` from the answer to the registration.")]

WITH_BODY: Final = (
    errors.MalformedRequest,
    errors.NotJson,
    errors.UnsupportedEncoding,
    errors.BodyTooLarge,
    errors.BodyTimeout,
    errors.InvalidRequest,
    errors.OriginNotAllowed,
    errors.DatabaseUnavailable,
)
READS: Final = (errors.WebhookNotFound, errors.InvalidRequest, errors.DatabaseUnavailable)
CHANGES: Final = (*READS, errors.OriginNotAllowed)


@router.post(
    "",
    status_code=201,
    summary="Register a webhook endpoint",
    description="Events that happen from now on are sent to its URL as POST requests, after Standard Webhooks 1.0: "
    "signed, and again for three days until it answers with 2xx. The answer shows its secret, which is not shown "
    "again. `Location` is the URL of the endpoint.",
    response_description="The endpoint with its secret.",
    responses=documented(*WITH_BODY, errors.UrlNotAllowed, errors.TooManyWebhooks),
)
async def register_webhook(request: Request, response: Response, new: NewWebhook) -> WebhookWithSecret:
    """Registers an endpoint."""
    context = context_of(request)
    webhook = await context.services.webhooks.register(new.url, new.types)
    response.headers["Location"] = context.urls(request).webhook(webhook.id)
    response.headers["Cache-Control"] = NO_STORE
    return webhook_with_secret(webhook)


@router.get("", summary="List the webhook endpoints", responses=documented(errors.DatabaseUnavailable))
async def list_webhooks(request: Request, response: Response) -> WebhookList:
    """Lists all endpoints."""
    webhooks = await context_of(request).services.webhooks.all()
    response.headers["Cache-Control"] = NO_STORE
    return WebhookList(webhooks=[webhook_document(webhook) for webhook in webhooks])


@router.get("/{webhook_id}", summary="Get a webhook endpoint", responses=documented(*READS))
async def get_webhook(request: Request, response: Response, webhook_id: WebhookId) -> WebhookDocument:
    """Returns an endpoint."""
    webhook = await context_of(request).services.webhooks.webhook(webhook_id)
    response.headers["Cache-Control"] = NO_STORE
    return webhook_document(webhook)


@router.patch(
    "/{webhook_id}",
    summary="Change a webhook endpoint",
    description="Changes its URL or types, disables it, or enables it again. Its secret stays the same.",
    responses=documented(*WITH_BODY, errors.WebhookNotFound, errors.UrlNotAllowed),
)
async def change_webhook(
    request: Request, response: Response, webhook_id: WebhookId, changed: ChangedWebhook
) -> WebhookDocument:
    """Changes an endpoint."""
    webhook = await context_of(request).services.webhooks.change(webhook_id, changed.change())
    response.headers["Cache-Control"] = NO_STORE
    return webhook_document(webhook)


@router.post(
    "/{webhook_id}/rotate",
    summary="Replace the secret of a webhook endpoint",
    description="The answer shows the new secret, which is not shown again. For 24 hours deliveries are signed with "
    "the one before, too, so that a receiver can change it without losing any. If that one is known to others, rotate "
    "twice: only the newest two sign.",
    response_description="The endpoint with its new secret.",
    responses=documented(*CHANGES),
)
async def rotate_webhook(request: Request, response: Response, webhook_id: WebhookId) -> WebhookWithSecret:
    """Replaces the secret of an endpoint."""
    webhook = await context_of(request).services.webhooks.rotate(webhook_id)
    response.headers["Cache-Control"] = NO_STORE
    return webhook_with_secret(webhook)


@router.post(
    "/{webhook_id}/test",
    status_code=202,
    summary="Test a webhook endpoint",
    description="Sends an event of the type `webhook.test` to this endpoint, whatever its types, in the way of all "
    "events: signed, logged and repeated. `Location` is the URL of its deliveries.",
    responses=documented(*CHANGES, errors.WebhookDisabled),
)
async def send_test(request: Request, response: Response, webhook_id: WebhookId) -> TestAccepted:
    """Tests an endpoint."""
    context = context_of(request)
    await context.services.webhooks.test(webhook_id)
    response.headers["Location"] = f"{context.urls(request).webhook(webhook_id)}/deliveries"
    return TestAccepted()


@router.delete(
    "/{webhook_id}",
    status_code=204,
    summary="Delete a webhook endpoint",
    description="Deletes it with its deliveries, also those that are still to be made.",
    responses=documented(*CHANGES),
)
async def delete_webhook(request: Request, webhook_id: WebhookId) -> None:
    """Deletes an endpoint."""
    await context_of(request).services.webhooks.delete(webhook_id)
