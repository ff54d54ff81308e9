"""The states of an image and the transitions between them.

::

              queued (broker confirmed)        complete (fenced)
     POST → NEW ───────────────────▶ PROCESSING ──────────────▶ DONE
              └──── claimed ───────────▶ └─ rejected, or attempts spent ▶ ERROR
     DONE | ERROR ── reprocess ──▶ NEW
"""

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """The state of an image."""

    NEW = "NEW"
    """Stored and recorded, not known to be queued. The row itself is the outbox."""

    PROCESSING = "PROCESSING"
    """Queued, or being rendered."""

    DONE = "DONE"
    """All required outputs exist. Final until the image is reprocessed."""

    ERROR = "ERROR"
    """The image cannot be processed; its error says why. Final until the image is reprocessed."""

    @property
    def terminal(self) -> bool:
        """Whether the state changes only by reprocessing."""
        return self in {Status.DONE, Status.ERROR}

    def may_become(self, other: "Status") -> bool:
        """Whether the transition from this state to ``other`` exists."""
        return other in TRANSITIONS[self]


TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    Status.NEW: frozenset({Status.PROCESSING}),
    # To itself: a claim or a retry, which is the same state under a new attempt.
    Status.PROCESSING: frozenset({Status.PROCESSING, Status.DONE, Status.ERROR}),
    Status.DONE: frozenset({Status.NEW}),
    Status.ERROR: frozenset({Status.NEW}),
}

CLAIMABLE: Final = tuple(status for status in Status if not status.terminal)
"""The states from which a worker may claim an image."""

TERMINAL: Final = tuple(status for status in Status if status.terminal)
"""The states from which an image may be reprocessed."""
