"""The states of an image and the only moves between them.

::

              queued (broker confirmed)        complete (fenced)
     POST → NEW ───────────────────▶ PROCESSING ──────────────▶ DONE
              └──── claimed ───────────▶ └─ verdict, or attempts spent ─▶ ERROR
     DONE | ERROR ── reprocess ──▶ NEW
"""

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """Where an image is in its life."""

    NEW = "NEW"
    """Stored and recorded; not yet known to be queued. The row itself is the outbox."""

    PROCESSING = "PROCESSING"
    """Queued or being rendered."""

    DONE = "DONE"
    """Every thumbnail exists. Stays until somebody asks for another rendering."""

    ERROR = "ERROR"
    """The image cannot be processed; its error says why. Stays like DONE."""

    @property
    def terminal(self) -> bool:
        """Whether the state never changes by itself."""
        return self in {Status.DONE, Status.ERROR}

    def may_become(self, other: "Status") -> bool:
        """Whether the state machine has an arrow from this state to ``other``."""
        return other in TRANSITIONS[self]


TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    Status.NEW: frozenset({Status.PROCESSING}),
    # The arrow to itself is a claim or a retry: the same state under a new attempt.
    Status.PROCESSING: frozenset({Status.PROCESSING, Status.DONE, Status.ERROR}),
    Status.DONE: frozenset({Status.NEW}),
    Status.ERROR: frozenset({Status.NEW}),
}

CLAIMABLE: Final = tuple(status for status in Status if not status.terminal)
"""The states from which a worker may claim an image."""

TERMINAL: Final = tuple(status for status in Status if status.terminal)
"""The states that an image may be reprocessed from."""
