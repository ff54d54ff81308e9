"""When the reconciler looks after an image again."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueTiming:
    """How long an image may be without anybody's care."""

    unqueued_after: float
    """Seconds from its recording, should nobody have queued it."""
    unclaimed_after: float
    """Seconds from its queueing, should no worker have taken it and its message be missing; doubles each time."""
