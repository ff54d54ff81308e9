"""The task queue and its dead letters."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from image_service.domain.lane import Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A queue message: it names an image to process."""

    image_id: UUID
    lane: Lane = Lane.NORMAL
    """The lane it is published to."""
    request_id: str | None = None
    """The id of the request that caused it, for the worker's log; None if the reconciler published it."""
    trace: str | None = None
    """The trace it belongs to, as a ``traceparent`` (W3C Trace Context); None without tracing."""


Handler = Callable[[Delivery], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Drain:
    """How a consumer stops."""

    requested: Callable[[], Awaitable[object]]
    """Returns when the consumer should start no more deliveries."""
    grace: float
    """Seconds for which running handlers may then continue before they are cancelled."""


class TaskQueue(Protocol):
    """Delivers messages to workers.

    The database is the source of truth, so lost and duplicate messages cost time but lose no image.
    """

    async def start(self) -> None:
        """Start connecting. Returns without waiting for the broker, which may be unavailable."""
        ...

    async def close(self) -> None:
        """Disconnect. Safe to call twice."""
        ...

    async def publish(self, delivery: Delivery) -> None:
        """Publish a message.

        When this returns, the broker has stored the message durably in the lane's queue. Takes no longer than the
        adapter's timeout.

        Raises:
            QueueUnavailable: the broker did not confirm the message; it may still be delivered.
        """
        ...

    async def consume(self, handler: Handler, slots: int, drain: Drain, lane: Lane = Lane.NORMAL) -> None:
        """Call ``handler`` with the lane's deliveries, at most ``slots`` at once, until the drain.

        Reconnects by itself. When a handler returns, its delivery is acknowledged; when it raises, the message is
        delivered again later. On the drain, deliveries that are not started return to the queue at once, and running
        handlers have their grace to finish; none is left unacknowledged. Cancelling returns all of them at once.
        """
        ...

    async def depth(self) -> Mapping[Lane, int]:
        """Returns the number of messages in each lane that no consumer holds.

        Raises:
            QueueUnavailable: the broker did not answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that the queue gave up on. No image is lost with it: the database is the source of truth."""

    image_id: UUID | None
    """None if the body names no image, so that it cannot be processed."""
    body: bytes
    """The body, cut off if it is long."""
    queue: str | None
    """The broker's name of the queue it came from; None if it was published here directly."""
    reason: str | None
    """The broker's reason: ``rejected`` if it names no image, ``delivery_limit`` after too many deliveries."""
    died_at: datetime | None
    """When it became a dead letter, by the broker's clock."""
    times: int
    """How often it became a dead letter: once, and again after each failed retry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryResult:
    """How many dead letters were retried."""

    handed_over: int
    """Messages that were published to their lanes again."""
    remaining: int
    """Messages that name no image, and stay."""


class DeadLetters(Protocol):
    """The messages that the queue gave up on.

    Every method raises ``QueueUnavailable`` if the broker does not answer in time; no message is lost then.
    """

    async def list(self, limit: int) -> Sequence[DeadLetter]:
        """Returns at most ``limit`` dead letters, oldest first, without removing them."""
        ...

    async def retry(self) -> RetryResult:
        """Publish every dead letter that names an image to its lane again, then remove it.

        If this is interrupted, a message may be delivered twice.
        """
        ...

    async def discard_unreadable(self) -> int:
        """Delete the dead letters that name no image; returns how many."""
        ...
