"""The tables: images, thumbnails, removals, and the database's identity."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import JSON, BigInteger, CheckConstraint, Enum, ForeignKey, Index, Integer, String, Text, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from image_service.domain.image import ImageFormat
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.models.base import Base, UtcDateTime

# Conditions of partial indexes. These hold few images, and stay small however many images are finished.
_UNFINISHED = text("due_at IS NOT NULL")
_LACKING = text("outputs_due_at IS NOT NULL")
_UNCLAIMED = text("status = 'PROCESSING' AND lease_until IS NULL")
_NOT_DONE = text("status <> 'DONE'")
_WITH_ORIGINAL = text("finished_at IS NOT NULL AND original_removed_at IS NULL")


def _values(enum: type[Status] | type[ImageFormat] | type[Lane]) -> list[str]:
    return [member.value for member in enum]


class ImageRow(Base):
    """One image. While it is NEW, its row is the outbox too: the reconciler publishes it, unless the API has."""

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
    """The client's key, by which a repeated upload is recognised."""

    lane: Mapped[Lane] = mapped_column(
        Enum(Lane, name="lane", native_enum=False, length=16, values_callable=_values), server_default=Lane.NORMAL.value
    )
    """The lane that it waits in, or waited in last."""
    attempt: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """For fencing: grows with every claim and when the image is reprocessed; it never falls."""
    attempts_charged: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Claims that count against the image; those that an outage or a drain ended do not."""
    decoder_failures: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The end of the worker's lease, or of the rest before the next attempt. Empty: it waits for a claim."""
    queued_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the broker last confirmed a message for the image."""
    publishes: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """How often the reconciler has published the image; its delays grow with this."""
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the reconciler examines the image next. Empty in terminal states."""

    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(Text)

    placeholder: Mapped[str | None] = mapped_column(String(64))
    """A ThumbHash in base64. This and the next two are set when the image becomes DONE."""
    dominant_colour: Mapped[str | None] = mapped_column(String(7))
    metadata_removed: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    recipe_name: Mapped[str | None] = mapped_column(String(64))
    """Empty: the default recipe."""
    recipe_attempt: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """The newest attempt of a version that knows recipes."""
    recipe: Mapped[str | None] = mapped_column(String(16))
    """The fingerprint of the recipe that all outputs were made with. Empty while some are still to be made."""
    pending: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """The names of outputs that follow while the image is DONE; empty: none."""
    left_out: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    """Outputs of the recipe that are not made, by name: the fingerprint that each would have. Empty: none."""
    outputs_due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When outputs that a DONE image lacks are queued next. Empty: it lacks none."""
    outputs_lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The end of the lease of the worker that makes them, or of the rest before the next attempt."""
    outputs_attempts: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Claims on them that count; see ``attempts_charged``."""
    client_metadata: Mapped[str | None] = mapped_column(Text)
    """What the client gave with the upload, for its events."""
    event_transaction: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """The largest transaction number of its events, so that a later one never comes before them in the log."""
    webhook_id: Mapped[UUID | None] = mapped_column(Uuid)
    """The only webhook endpoint that gets its events, which may be deleted since; empty: all."""

    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When it last became DONE or ERROR; kept while it is reprocessed."""
    original_removed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the original's retention ended. Its file is removed, or recorded in ``removals``."""

    __table_args__ = (
        # A version that knows no recipes would make the outputs of its built-in one. So it cannot claim an image of
        # another, and leaves the message to another worker. PostgreSQL only: versions never share an SQLite database.
        CheckConstraint(
            "recipe_name IS NULL OR status <> 'PROCESSING' OR lease_until IS NULL OR recipe_attempt = attempt",
            name="recipe_known",
        ).ddl_if(dialect="postgresql"),
        CheckConstraint("width > 0 AND height > 0 AND size_bytes > 0", name="positive"),
        CheckConstraint("(status = 'ERROR') = (error_code IS NOT NULL)", name="error_has_code"),
        CheckConstraint("(status IN ('DONE', 'ERROR')) = (due_at IS NULL)", name="open_is_due"),
        Index("ix_images_outputs_due_at", "outputs_due_at", postgresql_where=_LACKING, sqlite_where=_LACKING),
        Index("ix_images_due_at", "due_at", postgresql_where=_UNFINISHED, sqlite_where=_UNFINISHED),
        Index("ix_images_unclaimed", "lane", "queued_at", postgresql_where=_UNCLAIMED, sqlite_where=_UNCLAIMED),
        Index("ix_images_not_done", "status", "id", postgresql_where=_NOT_DONE, sqlite_where=_NOT_DONE),
        Index("ix_images_finished_at", "finished_at"),
        Index("ix_images_with_original", "finished_at", postgresql_where=_WITH_ORIGINAL, sqlite_where=_WITH_ORIGINAL),
        # An index rather than a constraint: SQLite can add a constraint only by copying the table.
        Index("ux_images_idempotency_key", "idempotency_key", unique=True),
    )


class ThumbnailRow(Base):
    """One stored thumbnail of an image that is DONE, or that is reprocessed and was DONE before."""

    __tablename__ = "thumbnails"

    image_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True)
    output: Mapped[str] = mapped_column("preset", String(64), key="output", primary_key=True)
    """Its name. The column's is from when each preset had one output."""
    key: Mapped[str] = mapped_column(String(255))
    content_type: Mapped[str] = mapped_column(String(64))
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    fingerprint: Mapped[str | None] = mapped_column(String(16))
    """Of the output that it was made with; empty: made by a version that recorded none."""


class RemovalRow(Base):
    """The tombstone of a file, written in the transaction that deletes the last reference to it."""

    __tablename__ = "removals"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When the file may be removed: a reader may have been sent to it a moment ago."""

    __table_args__ = (Index("ix_removals_due_at", "due_at"),)


class IdentityRow(Base):
    """The id of this database, created with its tables. A storage records the id of the database it belongs to."""

    __tablename__ = "identity"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
