"""Notifications of what happens, for metrics."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Protocol

from image_service.domain.image import Claim, Original
from image_service.domain.lane import Lane


class AttemptOutcome(StrEnum):
    """What became of an attempt."""

    DONE = "done"
    ERROR = "error"
    """The image ended in ERROR."""
    RETRY = "retry"
    """Another attempt follows."""
    GIVEN_BACK = "given-back"
    """Ended by an outage or a drain, at no cost to the image."""
    LOST = "lost"
    """The image was given to another worker, or deleted."""


class Observer(Protocol):
    """Is told what happens, for whoever counts it. No method raises, blocks, or has a say in anything."""

    def accepted(self, original: Original, *, queued: bool) -> None:
        """An upload is safe; ``queued`` unless the queue is away."""
        ...

    def claimed(self, lane: Lane, claim: Claim | None) -> None:
        """A worker asked for an image; None where there was nothing to do."""
        ...

    def attempted(self, claim: Claim, ending: AttemptOutcome, code: str | None = None) -> None:
        """An attempt ended; with an error's code if one ended it."""
        ...

    def probed(self, answers: Mapping[str, bool], waiting: Mapping[Lane, int] | None) -> None:
        """Parts of the service were asked how they are; ``waiting`` is what the queue told."""
        ...

    def backlog_measured(self, unfinished: int, oldest: float | None) -> None:
        """So many images are unfinished. The oldest was accepted so many seconds ago; None if none waits."""
        ...

    def job_ended(self, name: str, *, succeeded: bool) -> None:
        """A round of a periodic job is over."""
        ...


class NullObserver:
    """The ``Observer`` that lets everything pass."""

    def accepted(self, original: Original, *, queued: bool) -> None:
        """Nothing is counted."""

    def claimed(self, lane: Lane, claim: Claim | None) -> None:
        """Nothing is counted."""

    def attempted(self, claim: Claim, ending: AttemptOutcome, code: str | None = None) -> None:
        """Nothing is counted."""

    def probed(self, answers: Mapping[str, bool], waiting: Mapping[Lane, int] | None) -> None:
        """Nothing is counted."""

    def backlog_measured(self, unfinished: int, oldest: float | None) -> None:
        """Nothing is counted."""

    def job_ended(self, name: str, *, succeeded: bool) -> None:
        """Nothing is counted."""


NULL_OBSERVER: Final[Observer] = NullObserver()
