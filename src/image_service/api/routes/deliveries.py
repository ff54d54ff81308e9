"""``/webhooks/…/deliveries``: what was sent to a webhook endpoint, and sending it again."""

from typing import Annotated, Final

from fastapi import Path, Query, Request, Response

from image_service import errors
from image_service.api.caching import NO_STORE
from image_service.api.dependencies import context_of
from image_service.api.json_body import JsonRoute
from image_service.api.problems import documented
from image_service.api.routes.webhooks import CHANGES, READS, WITH_BODY, WebhookId
from image_service.api.routing import Router
from image_service.api.webhook_documents import DeliveryList, ReplayAccepted, ReplayRequest, delivery_document

router: Final = Router(prefix="/webhooks/{webhook_id}", tags=["webhooks"], route_class=JsonRoute)

_MAX_PAGE: Final = 200
_MAX_ID: Final = 2**63 - 1


@router.get(
    "/deliveries",
    summary="List the deliveries to a webhook endpoint",
    description="Lists deliveries with each attempt: when, what was answered, how long it took. That of the newest "
    "event comes first. They are kept as long as their events.",
    responses=documented(*READS),
)
async def list_deliveries(
    request: Request,
    response: Response,
    webhook_id: WebhookId,
    *,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE, description="Deliveries per page.")] = 50,
    before: Annotated[
        int | None, Query(ge=1, le=_MAX_ID, description="Only deliveries after this one in the list.")
    ] = None,
) -> DeliveryList:
    """Returns one page; one delivery more is read to know whether another page follows."""
    context = context_of(request)
    deliveries = await context.services.webhook_replay.deliveries(webhook_id, limit=limit + 1, before=before)
    page = deliveries[:limit]
    response.headers["Cache-Control"] = NO_STORE
    return DeliveryList(
        deliveries=[delivery_document(delivery) for delivery in page],
        next=context.urls(request).deliveries(webhook_id, before=page[-1].id, limit=limit)
        if len(deliveries) > limit
        else None,
    )


@router.post(
    "/deliveries/{delivery_id}/replay",
    status_code=202,
    summary="Make a delivery again",
    description="Sends an event again, whether it was delivered or not, with the same `webhook-id`.",
    responses=documented(*CHANGES, errors.DeliveryNotFound, errors.WebhookDisabled),
)
async def replay_delivery(
    request: Request,
    webhook_id: WebhookId,
    delivery_id: Annotated[int, Path(ge=1, le=_MAX_ID, description="The `id` from the list of deliveries.")],
) -> ReplayAccepted:
    """Has one delivery made again."""
    await context_of(request).services.webhook_replay.one(webhook_id, delivery_id)
    return ReplayAccepted(deliveries=1)


@router.post(
    "/replay",
    status_code=202,
    summary="Send events again",
    description="Sends all events of the endpoint's types again that happened since a time, also those that happened "
    "while it was disabled, the newest first. Events are kept for EVENTS_RETENTION_HOURS.",
    responses=documented(*WITH_BODY, errors.WebhookNotFound, errors.WebhookDisabled),
)
async def replay_since(request: Request, webhook_id: WebhookId, asked: ReplayRequest) -> ReplayAccepted:
    """Has all deliveries since a time made again."""
    made = await context_of(request).services.webhook_replay.since(webhook_id, asked.since)
    return ReplayAccepted(deliveries=made)
