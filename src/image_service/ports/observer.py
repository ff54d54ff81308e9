"""The observer: notified of what happens, for metrics."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Protocol

from image_service.domain.image import Claim, Original
from image_service.domain.lane import Lane


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    DONE = "done"
    ERROR = "error"
    """The image ended in ERROR."""
    RETRY = "retry"
    """Another attempt follows."""
    GIVEN_BACK = "given-back"
    """Ended by an outage or a drain; does not count against the image."""
    LEFT_OUT = "left-out"
    """Outputs that a DONE image lacked cannot be made; it stays DONE without them."""
    UNKNOWN_RECIPE = "unknown-recipe"
    """This worker does not know the image's recipe, and left it to another; does not count against the image."""
    LOST = "lost"
    """The image was claimed by another worker, or deleted."""


class Observer(Protocol):
    """Counts and measures. Its methods never raise or block, and have no effect on the caller."""

    def accepted(self, original: Original, *, queued: bool) -> None:
        """An upload was recorded; ``queued`` says whether it was published too."""
        ...

    def claimed(self, lane: Lane, claim: Claim | None) -> None:
        """A worker tried to claim an image; ``claim`` is None if there was nothing to do."""
        ...

    def attempted(self, claim: Claim, outcome: AttemptOutcome, code: str | None = None) -> None:
        """An attempt ended; ``code`` is that of the error that ended it."""
        ...

    def probed(self, answers: Mapping[str, bool], waiting: Mapping[Lane, int] | None) -> None:
        """The dependencies were probed.

        Args:
            answers: Whether each dependency answered, by its name.
            waiting: Messages that wait in each lane; None if the queue did not answer.
        """
        ...

    def backlog_measured(self, unfinished: int, oldest_age: float | None) -> None:
        """The backlog was measured.

        Args:
            unfinished: How many images are unfinished.
            oldest_age: Seconds since the oldest of them was accepted; None if there is none.
        """
        ...

    def job_ended(self, name: str, *, succeeded: bool) -> None:
        """A run of a periodic job ended."""
        ...

    def relayed(self, events: int, *, lag: float) -> None:
        """Events were published to the exchange for other services.

        Args:
            events: How many; 0 if they could not be, or there were none.
            lag: Seconds since the oldest one that is still to be published happened; 0 if there is none, or another
                process publishes them.
        """
        ...

    def events_read(self, number: int, *, lag: float) -> None:
        """Events were read for those who wait for them.

        Args:
            number: How many.
            lag: Seconds since the oldest of them happened, by the clocks of two machines.
        """
        ...

    def webhook_attempted(self, outcome: str, status: int | None, seconds: float) -> None:
        """An event was sent to a webhook endpoint.

        Args:
            outcome: The status of the delivery: ``delivered``, ``pending`` or ``failed``.
            status: Of the answer; None: there was none.
            seconds: How long that took.
        """
        ...

    def webhooks_measured(self, endpoints: Mapping[str, int], *, pending: int, overdue: float) -> None:
        """Webhook endpoints and deliveries were counted.

        Args:
            endpoints: How many are ``working``, ``failing`` and ``disabled``.
            pending: Deliveries that are to be sent, up to a limit.
            overdue: Seconds for which the first delivery to a working endpoint waits.
        """
        ...


class NullObserver:
    """An ``Observer`` that does nothing."""

    def accepted(self, original: Original, *, queued: bool) -> None:
        """Do nothing."""

    def claimed(self, lane: Lane, claim: Claim | None) -> None:
        """Do nothing."""

    def attempted(self, claim: Claim, outcome: AttemptOutcome, code: str | None = None) -> None:
        """Do nothing."""

    def probed(self, answers: Mapping[str, bool], waiting: Mapping[Lane, int] | None) -> None:
        """Do nothing."""

    def backlog_measured(self, unfinished: int, oldest_age: float | None) -> None:
        """Do nothing."""

    def job_ended(self, name: str, *, succeeded: bool) -> None:
        """Do nothing."""

    def relayed(self, events: int, *, lag: float) -> None:
        """Do nothing."""

    def events_read(self, number: int, *, lag: float) -> None:
        """Do nothing."""

    def webhook_attempted(self, outcome: str, status: int | None, seconds: float) -> None:
        """Do nothing."""

    def webhooks_measured(self, endpoints: Mapping[str, int], *, pending: int, overdue: float) -> None:
        """Do nothing."""


NULL_OBSERVER: Final[Observer] = NullObserver()
