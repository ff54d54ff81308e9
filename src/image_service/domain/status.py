"""The states of an image and the only moves between them.

::

              queued (broker confirmed)        complete (fenced)
     POST → NEW ───────────────────▶ PROCESSING ──────────────▶ DONE
              └──── claimed ───────────▶ └─ verdict, or attempts spent ─▶ ERROR
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
    """Every thumbnail exists. Terminal."""

    ERROR = "ERROR"
    """The image cannot be processed; its error says why. Terminal."""

    @property
    def terminal(self) -> bool:
        """Whether the state never changes by itself."""
        return not TRANSITIONS[self]

    def may_become(self, other: "Status") -> bool:
        """Whether the state machine has an arrow from this state to ``other``."""
        return other in TRANSITIONS[self]


TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    Status.NEW: frozenset({Status.PROCESSING}),
    # The arrow to itself is a claim or a retry: the same state under a new attempt.
    Status.PROCESSING: frozenset({Status.PROCESSING, Status.DONE, Status.ERROR}),
    Status.DONE: frozenset(),
    Status.ERROR: frozenset(),
}

CLAIMABLE: Final = tuple(status for status in Status if not status.terminal)
"""The states from which a worker may claim an image."""
