"""The tables of events: the log, how far it has been passed on, webhook endpoints and deliveries to them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, Text, UniqueConstraint, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from image_service.models.base import Base, UtcDateTime

_NUMBER = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only if they are plain integers."""

_UNDELIVERED = text("due_at IS NOT NULL")


class EventRow(Base):
    """One event. It is recorded in the statement, or the transaction, that makes the change it tells of."""

    __tablename__ = "events"

    number: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=True)
    transaction_id: Mapped[int] = mapped_column(BigInteger)
    """Of the transaction that recorded it; 0 on SQLite. Together with the number, its position."""
    type: Mapped[str] = mapped_column(String(32))
    image_id: Mapped[UUID | None] = mapped_column(Uuid)
    """Of an image that may be deleted since. Empty: it is about no image."""
    happened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    snapshot: Mapped[dict[str, Any]] = mapped_column(JSON)
    """The image as the event left it, or what else the event tells: see ``database.snapshots``."""

    __table_args__ = (
        Index("ix_events_position", "transaction_id", "number"),
        Index("ix_events_image", "image_id", "number"),
        {"sqlite_autoincrement": True},
    )


class PositionRow(Base):
    """How far the log has been passed on or purged; see ``domain.event.Position``."""

    __tablename__ = "event_positions"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    transaction_id: Mapped[int] = mapped_column(BigInteger)
    number: Mapped[int] = mapped_column(BigInteger)
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The end of the lease of the process that passes events on; empty: there is none."""
    lease: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """For fencing: grows with every lease."""


class WebhookRow(Base):
    """One webhook endpoint."""

    __tablename__ = "webhooks"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    types: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """The types of events that it wants; empty: all."""
    secret: Mapped[str] = mapped_column(Text)
    """Signs deliveries: ``whsec_…`` (v1) or ``whsk_…`` (v1a)."""
    previous_secret: Mapped[str | None] = mapped_column(Text)
    """The one before the last rotation; signs as well until ``previous_until``."""
    previous_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    failing_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Of the first of the deliveries that failed since the last successful one."""
    paused_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Nothing is sent to it until then, because it said that it is busy."""
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DeliveryRow(Base):
    """The delivery of one event to one endpoint."""

    __tablename__ = "deliveries"

    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True, autoincrement=True)
    webhook_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("webhooks.id", ondelete="CASCADE"))
    event_number: Mapped[int] = mapped_column(_NUMBER, ForeignKey("events.number", ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(String(16))
    """``pending``, ``delivered`` or ``failed``."""
    attempt: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """For fencing: grows with every claim; it never falls."""
    tries: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Attempts that count; the schedule of retries goes by it."""
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When it is sent next. Empty: it is delivered, or has failed for good."""
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        UniqueConstraint("webhook_id", "event_number"),
        Index("ix_deliveries_due", "webhook_id", "due_at", postgresql_where=_UNDELIVERED, sqlite_where=_UNDELIVERED),
        Index("ix_deliveries_event", "event_number"),
        {"sqlite_autoincrement": True},
    )


class DeliveryAttemptRow(Base):
    """One attempt at a delivery, and what came of it."""

    __tablename__ = "delivery_attempts"

    delivery_id: Mapped[int] = mapped_column(_NUMBER, ForeignKey("deliveries.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    made_at: Mapped[datetime] = mapped_column(UtcDateTime)
    milliseconds: Mapped[int] = mapped_column(Integer)
    status: Mapped[int | None] = mapped_column(Integer)
    """Of the answer; empty: there was none."""
    error: Mapped[str | None] = mapped_column(String(64))
    """Why there was no answer; empty: there was one."""
    answer: Mapped[str | None] = mapped_column(Text)
    """The beginning of the answer's body."""
