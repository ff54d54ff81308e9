"""The JSON documents of webhook endpoints and of deliveries to them."""

import re
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, WithJsonSchema

from image_service.documents.event import EXAMPLE_EVENT_ID
from image_service.documents.image import EXAMPLE_ID
from image_service.domain.event import EventType
from image_service.domain.webhook import MAX_URL, Webhook, WebhookChange
from image_service.domain.webhook_delivery import DeliveryStatus, WebhookDelivery
from image_service.domain.webhook_signature import public_key

EXAMPLE_URL: Final = "https://hooks.example.org/images"
_MAX_TYPES: Final = 32
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
"""RFC 3339, section 5.6."""


def _time(value: object) -> object:
    if not (isinstance(value, str) and _TIME.fullmatch(value)):
        raise ValueError("Send a time with its zone, such as 2026-11-28T12:00:00Z")
    return value


Url = Annotated[str, Field(min_length=1, max_length=MAX_URL)]
Types = Annotated[list[EventType], Field(min_length=1, max_length=_MAX_TYPES)]
Time = Annotated[datetime, BeforeValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})]


class NewWebhook(BaseModel):
    """An endpoint to register."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"url": EXAMPLE_URL, "types": ["image.done", "image.failed"]}]}
    )

    url: Url = Field(
        description="Where events are sent to: `https://` and a public address, unless the setting OUTBOUND_ALLOW "
        "allows others."
    )
    types: Types | None = Field(default=None, description="The types of events to send; null: all.")


class ChangedWebhook(BaseModel):
    """What is to be changed of an endpoint. What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"types": None, "enabled": True}]})

    url: Url | None = Field(default=None, description="Where events are sent to; null: as it is.")
    types: Types | None = Field(default=None, description="The types of events to send; null: all.")
    enabled: StrictBool | None = Field(
        default=None,
        description="Whether events are sent to it; null: as it is. Events that happen while it is disabled are sent "
        "only by a replay.",
    )

    def change(self) -> WebhookChange:
        """Returns the change."""
        return WebhookChange(
            url=self.url,
            types=self.types,
            all_types="types" in self.model_fields_set and self.types is None,
            enabled=self.enabled,
        )


class WebhookDocument(BaseModel):
    """A webhook endpoint."""

    id: UUID = Field(examples=[EXAMPLE_ID])
    url: str = Field(examples=[EXAMPLE_URL])
    types: list[EventType] | None = Field(description="The types of events that it gets; null: all.")
    enabled: bool = Field(description="Whether events are sent to it.")
    disabled_reason: str | None = Field(description="Why not, for people; null while it is enabled.")
    disabled_at: datetime | None
    failing_since: datetime | None = Field(
        description="Of the first delivery that failed since the last one that succeeded; after three days it is "
        "disabled. Null: the last one succeeded."
    )
    public_key: str | None = Field(
        description="`whpk_…`: verifies its deliveries, if they are signed by v1a; null if by v1, with the secret."
    )
    previous_secret_until: datetime | None = Field(
        description="Until then the secret before the last rotation signs deliveries, too; null: it does not."
    )
    created_at: datetime
    updated_at: datetime


class WebhookWithSecret(WebhookDocument):
    """A webhook endpoint with its secret, which is shown only once."""

    secret: str | None = Field(
        description="`whsec_…`: verifies its deliveries, if they are signed by v1. Keep it: it is not shown again. "
        "Null if they are signed by v1a: with a private key, which only the service needs.",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )


class WebhookList(BaseModel):
    """All webhook endpoints, the oldest first."""

    webhooks: list[WebhookDocument]


class TestAccepted(BaseModel):
    """A test delivery that will be made."""

    message: str = "The test is sent within seconds; its result is in the endpoint's deliveries"


class AttemptDocument(BaseModel):
    """One attempt at a delivery."""

    made_at: datetime | None
    milliseconds: int
    status: int | None = Field(description="Of the answer; null: there was none.")
    error: str | None = Field(
        description="Why there was none, such as `connect-failed` or `timed-out`; null: there was one."
    )
    answer: str | None = Field(description="The beginning of the answer's body.")


class DeliveryDocument(BaseModel):
    """The delivery of one event to one endpoint."""

    id: int
    event_id: str = Field(description="The `webhook-id` that it has in each attempt.", examples=[EXAMPLE_EVENT_ID])
    type: str = Field(description="Of the event.", examples=["image.done"])
    image_id: UUID | None = Field(description="Null if the event is about no image.")
    status: DeliveryStatus = Field(description="failed: it is not sent any more, unless by a replay.")
    due_at: datetime | None = Field(description="When it is sent next; null: it is not.")
    created_at: datetime
    finished_at: datetime | None
    attempts: list[AttemptDocument] = Field(description="The oldest first.")


class DeliveryList(BaseModel):
    """A page of the deliveries to an endpoint, that of the newest event first."""

    deliveries: list[DeliveryDocument]
    next: str | None = Field(description="The URL of the next page; null on the last one.")


class ReplayRequest(BaseModel):
    """From when on events are to be sent again."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"since": "2026-11-28T12:00:00Z"}]})

    since: Time = Field(description="The time from which on the events happened (RFC 3339).")


class ReplayAccepted(BaseModel):
    """Deliveries that will be made again."""

    deliveries: int = Field(description="How many.")


def webhook_document(webhook: Webhook) -> WebhookDocument:
    """Returns the document of an endpoint."""
    return WebhookDocument(**_fields(webhook))


def webhook_with_secret(webhook: Webhook) -> WebhookWithSecret:
    """Returns the document of an endpoint with what its deliveries are verified with."""
    fields = _fields(webhook)
    return WebhookWithSecret(**fields, secret=webhook.secret if fields["public_key"] is None else None)


def delivery_document(delivery: WebhookDelivery) -> DeliveryDocument:
    """Returns the document of a delivery."""
    return DeliveryDocument(
        id=delivery.id,
        event_id=delivery.event_id,
        type=delivery.event_type,
        image_id=delivery.image_id,
        status=delivery.status,
        due_at=delivery.due_at,
        created_at=delivery.created_at,
        finished_at=delivery.finished_at,
        attempts=[
            AttemptDocument(
                made_at=attempt.made_at,
                milliseconds=attempt.milliseconds,
                status=attempt.status,
                error=attempt.error,
                answer=attempt.answer,
            )
            for attempt in delivery.attempts
        ],
    )


def _fields(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.id,
        "url": webhook.url,
        "types": None if webhook.types is None else list(webhook.types),
        "enabled": webhook.enabled,
        "disabled_reason": webhook.disabled_reason,
        "disabled_at": webhook.disabled_at,
        "failing_since": webhook.failing_since,
        "public_key": public_key(webhook.secret),
        "previous_secret_until": webhook.previous_until,
        "created_at": webhook.created_at,
        "updated_at": webhook.updated_at,
    }
