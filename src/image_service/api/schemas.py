"""What the API says, as JSON. Names and shapes are a promise: fields may be added, never changed."""

from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from image_service.domain.image import MetadataKind
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.services.health import Condition

_ID: Final = "01932b5c-8f2a-7c3e-9d41-5a6b7c8d9e0f"
_IMAGE_URL: Final = f"http://localhost:8000/images/{_ID}"

QUEUED_MESSAGE: Final = "Image uploaded successfully and queued for processing"
REPEATED_MESSAGE: Final = "Image was uploaded before, under the same Idempotency-Key"
AGAIN_MESSAGE: Final = "Image is queued to be processed again"
KEPT_MESSAGE: Final = "Image uploaded successfully; it is queued for processing as soon as the queue is back"


class UploadAccepted(BaseModel):
    """The answer to an upload, or to a wish to process an image again: it will end DONE or ERROR."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": _ID, "status": "PROCESSING", "message": QUEUED_MESSAGE}]}
    )

    id: UUID
    status: Status = Field(
        description="PROCESSING; or NEW while the queue is away, which delays the image only. Any state where the same "
        "upload was accepted before."
    )
    message: str


class ImageProblem(BaseModel):
    """Why an image ended in ERROR."""

    code: str = Field(description="Stable, in kebab-case.", examples=["corrupt-image"])
    detail: str = Field(description="A sentence for people.")


class ImageStatus(BaseModel):
    """Everything about an image."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": _ID,
                    "status": "DONE",
                    "original_url": f"{_IMAGE_URL}/original",
                    "thumbnails": {
                        name: f"{_IMAGE_URL}/thumbnails/{name}?v=9f86d081884c7d65"
                        for name in ("100x100", "300x300", "1200x1200")
                    },
                    "content_type": "image/jpeg",
                    "size_bytes": 4213345,
                    "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
                    "width": 3024,
                    "height": 4032,
                    "placeholder": "k0oGLQaSVsN0BVhn2oq2Z5SQUQcZ",
                    "dominant_colour": "#8b5a2b",
                    "metadata_removed": ["exif", "gps", "icc", "thumbnail"],
                    "created_at": "2026-11-25T07:30:00.120000Z",
                    "updated_at": "2026-11-25T07:30:00.215000Z",
                    "finished_at": "2026-11-25T07:30:00.215000Z",
                    "original_removed_at": None,
                    "error": None,
                }
            ]
        }
    )

    id: UUID
    status: Status
    original_url: str = Field(description="Serves the bytes that were uploaded.")
    thumbnails: dict[str, str] = Field(
        description="URLs by size; empty until the image is DONE. While it is processed again, those it had before."
    )
    content_type: str = Field(description="Of the original, told by its content.")
    size_bytes: int = Field(description="Of the original.")
    sha256: str = Field(description="Of the original, in hexadecimal.")
    width: int = Field(description="Of the original in pixels; upright, once the image is DONE.")
    height: int
    placeholder: str | None = Field(
        description="A ThumbHash in base64: a blurred picture to show while the real one loads. "
        "This and the next two are null until the image is DONE."
    )
    dominant_colour: str | None = Field(
        description="As #rrggbb; null also where nothing of the image can be seen.", pattern="^#[0-9a-f]{6}$"
    )
    metadata_removed: list[MetadataKind] | None = Field(
        description="What the original carries and the thumbnails do not."
    )
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = Field(description="When the image became DONE or ERROR.")
    original_removed_at: datetime | None = Field(
        description="When the original was removed, because the time ended for which originals are kept; else null."
    )
    error: ImageProblem | None = Field(description="Why the image is in ERROR; else null.")


class ImageList(BaseModel):
    """A page of images, from the newest to the oldest."""

    images: list[ImageStatus]
    next: str | None = Field(description="The URL of the next page; null on the last one.")


class ServicesHealth(BaseModel):
    """Which parts answered when they were asked a moment ago."""

    database: bool
    rabbitmq: bool = Field(description="The queue: RabbitMQ, or in standalone mode the one in the process.")
    storage: bool


class HealthReport(BaseModel):
    """Whether the service can do its work."""

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

    status: Condition = Field(description="degraded: uploads are accepted, but wait for the queue.")
    services: ServicesHealth
    waiting: dict[Lane, int] | None = Field(
        default=None, description="Messages by lane that no worker has taken yet; null while the queue is away."
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
