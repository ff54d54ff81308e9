"""An event as other services get it from the exchange: CloudEvents 1.0, structured as JSON."""

from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel

from image_service.documents.event import DisabledWebhook, EventImage, EventWebhook, event_document
from image_service.documents.urls import Urls
from image_service.domain.event import Event, EventType
from image_service.domain.recipe import Recipes
from image_service.ports import EncodedEvent

CONTENT_TYPE: Final = "application/cloudevents+json"
UNNAMED_SOURCE: Final = "/image-service"
"""The source where PUBLIC_URL is unset. A relative reference, as the URLs in the data are then paths, too."""


class CloudEventDocument(BaseModel):
    """The attributes of CloudEvents 1.0, and the data of the same event sent to a webhook."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: EventType
    """The same as everywhere else. CloudEvents only recommends a domain's name before it, and the service has none."""
    subject: str
    time: datetime
    datacontenttype: Literal["application/json"]
    data: EventImage | DisabledWebhook | EventWebhook


def encode_cloudevent(event: Event, urls: Urls, recipes: Recipes, *, source: str | None) -> EncodedEvent:
    """Returns an event for the exchange.

    Args:
        event: The event.
        urls: The URLs to use.
        recipes: The recipes that this process knows.
        source: The URL at which clients reach the service; None if it is not known.
    """
    shown = event_document(event, urls, recipes)
    document = CloudEventDocument.model_construct(
        specversion="1.0",
        id=event.id,
        source=source or UNNAMED_SOURCE,
        type=shown.type,
        subject=str(shown.data.id),
        time=shown.timestamp,
        datacontenttype="application/json",
        data=shown.data,
    )
    return EncodedEvent(
        id=event.id,
        topic=event.type.value,
        subject=document.subject,
        content_type=CONTENT_TYPE,
        body=document.model_dump_json(by_alias=True).encode(),
    )
