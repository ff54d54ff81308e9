"""Images, their thumbnails, and the files that neither needs any more."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import JSON, BigInteger, CheckConstraint, Enum, ForeignKey, Index, Integer, String, Text, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from image_service.domain.image import ImageFormat
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.models.base import Base, UtcDateTime

# These indexes hold a few images only, so they stay small however many images are finished.
_OPEN = text("due_at IS NOT NULL")
_UNCLAIMED = text("status = 'PROCESSING' AND lease_until IS NULL")
_NOT_DONE = text("status <> 'DONE'")
_WITH_ORIGINAL = text("finished_at IS NOT NULL AND original_removed_at IS NULL")


def _values(enum: type[Status] | type[ImageFormat] | type[Lane]) -> list[str]:
    return [member.value for member in enum]


class ImageRow(Base):
    """One accepted original. The row is the truth about it, and while NEW it is the outbox too."""

    __tablename__ = "images"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    status: Mapped[Status] = mapped_column(
        Enum(Status, name="status", native_enum=False, create_constraint=True, length=16, values_callable=_values)
    )

    format: Mapped[ImageFormat] = mapped_column(
        Enum(ImageFormat, name="format", native_enum=False, length=16, values_callable=_values)
    )
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    """What the client chose to tell a repeated upload from a second one."""

    lane: Mapped[Lane] = mapped_column(
        Enum(Lane, name="lane", native_enum=False, length=16, values_callable=_values), server_default=Lane.NORMAL.value
    )
    """Where it waits, or waited last."""
    attempt: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """The fence: grows with every claim, and when the image begins anew; it never falls."""
    attempts_charged: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Claims that count against the image; one that ended by an outage or a drain is given back."""
    decoder_failures: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Until when a worker holds the image, or until when it rests before another try. Empty: it waits to be taken."""
    queued_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the broker last confirmed a message for it."""
    publishes: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """How often the reconciler has published it; its delays grow with this."""
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the reconciler looks at it next. Empty in terminal states."""

    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(Text)

    placeholder: Mapped[str | None] = mapped_column(String(64))
    """A ThumbHash in base64. This and the next two are known once the image is DONE."""
    dominant_colour: Mapped[str | None] = mapped_column(String(7))
    metadata_removed: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    recipe: Mapped[str | None] = mapped_column(String(16))
    """The fingerprint of the recipe that the thumbnails were made under."""

    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When it last became DONE or ERROR; kept while it is processed again."""
    original_removed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the original's retention ended. Its file is gone, or in ``removals``."""

    __table_args__ = (
        CheckConstraint("width > 0 AND height > 0 AND size_bytes > 0", name="positive"),
        CheckConstraint("(status = 'ERROR') = (error_code IS NOT NULL)", name="error_has_code"),
        CheckConstraint("(status IN ('DONE', 'ERROR')) = (due_at IS NULL)", name="open_is_due"),
        Index("ix_images_due_at", "due_at", postgresql_where=_OPEN, sqlite_where=_OPEN),
        Index("ix_images_unclaimed", "lane", "queued_at", postgresql_where=_UNCLAIMED, sqlite_where=_UNCLAIMED),
        Index("ix_images_not_done", "status", "id", postgresql_where=_NOT_DONE, sqlite_where=_NOT_DONE),
        Index("ix_images_finished_at", "finished_at"),
        Index("ix_images_with_original", "finished_at", postgresql_where=_WITH_ORIGINAL, sqlite_where=_WITH_ORIGINAL),
        # An index rather than a constraint, which SQLite could only get with a new table.
        Index("ux_images_idempotency_key", "idempotency_key", unique=True),
    )


class ThumbnailRow(Base):
    """One stored thumbnail of an image that is DONE, or was before it is processed again."""

    __tablename__ = "thumbnails"

    image_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True)
    preset: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(255))
    content_type: Mapped[str] = mapped_column(String(64))
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))


class RemovalRow(Base):
    """A file that no row names any more, written in the transaction that took the name away: the tombstone of it."""

    __tablename__ = "removals"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """From when on the file may be removed: a reader may have been sent to it a moment ago."""

    __table_args__ = (Index("ix_removals_due_at", "due_at"),)


class IdentityRow(Base):
    """What tells this database from every other; made with its tables. A storage remembers whose files it holds."""

    __tablename__ = "identity"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
