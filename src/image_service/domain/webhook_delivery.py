"""Deliveries of events to webhook endpoints, and the attempts at them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from image_service.domain.event import Event
from image_service.domain.webhook import Webhook

MAX_ANSWER: Final = 1024
"""Bytes of an answer's body that are kept."""


class DeliveryStatus(StrEnum):
    """The result of a delivery, if it has one."""

    PENDING = "pending"
    """It is to be sent, for the first time or again."""
    DELIVERED = "delivered"
    FAILED = "failed"
    """It is not sent again, unless a client asks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDelivery:
    """A delivery that this process alone makes, until its lease ends."""

    id: int
    attempt: int
    """For fencing."""
    tries: int
    """Attempts that were made before."""
    webhook: Webhook
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """One attempt at a delivery."""

    milliseconds: int
    status: int | None = None
    """Of the answer; None: there was none."""
    error: str | None = None
    """Why there was none, such as ``connect-failed``; None: there was one."""
    answer: str | None = None
    """The beginning of the answer's body."""
    made_at: datetime | None = None
    """When it ended, by the database's clock; None before it is recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryResult:
    """What follows from an attempt."""

    status: DeliveryStatus
    retry_in: float | None = None
    """Seconds until the next attempt, if it is still pending."""
    pause: float | None = None
    """Seconds for which nothing at all is sent to the endpoint; None: it need not pause."""
    gone: bool = False
    """Whether the endpoint wants no events any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDelivery:
    """A delivery as operators see it."""

    id: int
    event_id: str
    event_type: str
    image_id: UUID | None
    status: DeliveryStatus
    tries: int
    due_at: datetime | None
    """When it is sent next; None: it is not."""
    created_at: datetime
    finished_at: datetime | None
    attempts: Sequence[DeliveryAttempt]
    """The oldest first."""


def readable(body: bytes) -> str:
    """Returns the beginning of an answer's body as text, with a replacement for all that is not printable."""
    text = body[:MAX_ANSWER].decode("utf-8", errors="replace")
    return "".join(each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in text)
