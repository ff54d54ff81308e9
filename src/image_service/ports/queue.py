"""The task queue, and its dead letters."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from image_service.domain.lane import Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One queue message: it names an image, and nothing else in it matters."""

    image_id: UUID
    lane: Lane = Lane.NORMAL
    """Where it waits."""
    request_id: str | None = None
    """Ties the worker's log lines to the upload's; absent where the reconciler published."""
    trace: str | None = None
    """Ties the worker's spans to the upload's: a ``traceparent`` (W3C Trace Context), where anything is traced."""


Handler = Callable[[Delivery], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Drain:
    """How a consumer is asked to stop."""

    requested: Callable[[], Awaitable[object]]
    """Returns once the consumer should take nothing more."""
    grace: float
    """Seconds that running handlers then have to finish before they are cancelled."""


class TaskQueue(Protocol):
    """Makes work fast; the database stays the truth, so a duplicate or a lost message is a nuisance, never a loss."""

    async def start(self) -> None:
        """Begin connecting. Returns without waiting for the broker: it may be away."""
        ...

    async def close(self) -> None:
        """Disconnect. Safe to call twice."""
        ...

    async def publish(self, delivery: Delivery) -> None:
        """Hand a message over.

        When this returns, a broker has the message durably and can route it. It never waits longer than the
        adapter's time limit.

        Raises:
            QueueUnavailable: not known to be handed over; it may still be delivered.
        """
        ...

    async def consume(self, handler: Handler, slots: int, drain: Drain, lane: Lane = Lane.NORMAL) -> None:
        """Feed a lane's deliveries to ``handler``, at most ``slots`` at once, until the drain; reconnects by itself.

        A handler that returns acknowledges; one that raises gives the message back for a later try. On the drain,
        deliveries not yet started go back to the queue at once, running handlers get their grace, and nothing is
        left unacknowledged. Cancelling gives back everything at once.
        """
        ...

    async def depth(self) -> Mapping[Lane, int]:
        """How many messages wait in each lane that no consumer holds.

        Raises:
            QueueUnavailable: the broker did not answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that the queue has given up on. No image is lost with it, for the database is the truth."""

    image_id: UUID | None
    """None where the body names no image: no version of the service can do anything with it."""
    body: bytes
    """The body, or the beginning of a long one."""
    queue: str | None
    """The broker's name for the lane it came from; None if it got here in another way."""
    reason: str | None
    """Why, in the broker's words: ``rejected`` for one that names no image, ``delivery_limit`` after too many tries."""
    died_at: datetime | None
    """When, by the broker's clock."""
    times: int
    """How often: once, and once more for each time that it was retried in vain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryResult:
    """What became of the dead letters."""

    handed_over: int
    remaining: int
    """Those that name no image."""


class DeadLetters(Protocol):
    """What an operator can do about the messages that the queue has given up on.

    Every method raises ``QueueUnavailable`` when the broker does not answer in time. Nothing is lost then.
    """

    async def list(self, limit: int) -> Sequence[DeadLetter]:
        """The oldest ``limit`` of them, oldest first. They stay where they are."""
        ...

    async def retry(self) -> RetryResult:
        """Put each one that names an image back into the lane it came from, and only then take it away from here.

        One that is interrupted halfway may be delivered twice.
        """
        ...

    async def discard_unreadable(self) -> int:
        """Throw away those that name no image; returns how many."""
        ...
