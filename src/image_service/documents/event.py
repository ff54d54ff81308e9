"""An event as clients, receivers of webhooks and other services see it."""

from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from image_service.documents.image import ImageStatus, image_status
from image_service.documents.urls import Urls
from image_service.domain.event import Event, EventType
from image_service.domain.recipe import Recipes

EXAMPLE_EVENT_ID: Final = "evt_6b7c8d9e_731_42"


class EventImage(ImageStatus):
    """An image as the event left it, which may have changed since."""

    metadata: str | None = Field(description="What was given with the upload; null: nothing.")


class EventWebhook(BaseModel):
    """A webhook endpoint that an event tells of."""

    model_config = ConfigDict(extra="ignore")

    id: UUID
    url: str


class DisabledWebhook(EventWebhook):
    """One that gets no events any more."""

    reason: str = Field(description="Why, for people.")


class EventDocument(BaseModel):
    """What happened; the payload of a webhook (Standard Webhooks 1.0)."""

    type: EventType
    timestamp: datetime = Field(description="When it happened.")
    data: EventImage | DisabledWebhook | EventWebhook


def event_document(event: Event, urls: Urls, recipes: Recipes) -> EventDocument:
    """Returns the document of an event.

    Args:
        event: The event.
        urls: The URLs to use.
        recipes: The recipes that this process knows.
    """
    data: EventImage | EventWebhook
    if event.image is None:
        kind = DisabledWebhook if event.type is EventType.WEBHOOK_DISABLED else EventWebhook
        data = kind.model_validate(event.facts)
    else:
        shown = image_status(event.image, urls, recipes)
        data = EventImage.model_construct(**shown.__dict__, metadata=event.metadata)
    return EventDocument.model_construct(type=event.type, timestamp=event.happened_at, data=data)


def encode_event(event: Event, urls: Urls, recipes: Recipes) -> bytes:
    """Returns the document of an event as JSON."""
    return event_document(event, urls, recipes).model_dump_json(by_alias=True).encode()
