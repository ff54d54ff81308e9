"""The JSON documents of the API. Names and shapes are stable: fields may be added, never changed."""

from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from image_service.documents.event import EXAMPLE_EVENT_ID, EventDocument
from image_service.documents.image import EXAMPLE_ID, ImageStatus
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.services.health import Condition

QUEUED_MESSAGE: Final = "Image uploaded successfully and queued for processing"
REPLAYED_MESSAGE: Final = "Image was uploaded before, under the same Idempotency-Key"
REPROCESS_MESSAGE: Final = "Image is queued to be processed again"
UNQUEUED_MESSAGE: Final = "Image uploaded successfully; it is queued for processing as soon as the queue is back"


class UploadAccepted(BaseModel):
    """An image accepted for processing, after an upload or a request to reprocess it: it will become DONE or ERROR."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": EXAMPLE_ID, "status": "PROCESSING", "message": QUEUED_MESSAGE}]}
    )

    id: UUID
    status: Status = Field(
        description="PROCESSING; or NEW while the queue is unavailable, which only delays the image. For a repeated "
        "upload, the image's present state."
    )
    message: str


class ImageList(BaseModel):
    """A page of images, from the newest to the oldest."""

    images: list[ImageStatus]
    next: str | None = Field(description="The URL of the next page; null on the last one.")


class ListedEvent(EventDocument):
    """An event in a page."""

    id: str = Field(description="The same wherever the event is sent.", examples=[EXAMPLE_EVENT_ID])


class EventList(BaseModel):
    """A page of events, from the oldest to the newest."""

    events: list[ListedEvent]
    next: str = Field(
        description="The URL of the page that follows. After the newest event it is empty: ask for it again later."
    )


class ServicesHealth(BaseModel):
    """Which dependencies are available, checked for this response."""

    database: bool
    rabbitmq: bool = Field(description="The queue: RabbitMQ, or the embedded queue in standalone mode.")
    storage: bool


class HealthReport(BaseModel):
    """The state of the service and its dependencies."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "healthy",
                    "services": {"database": True, "rabbitmq": True, "storage": True},
                    "waiting": {"normal": 0, "express": 2, "backfill": 0},
                    "timestamp": "2026-11-25T07:30:00.120000Z",
                    "mode": "distributed",
                }
            ]
        }
    )

    status: Condition = Field(description="degraded: uploads are accepted, but wait until the queue is available.")
    services: ServicesHealth
    waiting: dict[Lane, int] | None = Field(
        default=None,
        description="Messages per lane that no worker has received yet; null while the queue is unavailable.",
    )
    timestamp: datetime
    mode: Literal["standalone", "distributed"]


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = Field(description="Identifies the kind of problem.")
    title: str
    status: int
    detail: str = Field(description="What is wrong and what to do, for people.")
    code: str = Field(description="Stable, in kebab-case: for programs.")
