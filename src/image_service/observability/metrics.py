"""What is counted and measured, by the names and rules of Prometheus.

Every label has few values, known beforehand: no ids, no paths, nothing that a client can choose. What each metric is
for stands in ``docs/observability.md``.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final
from uuid import UUID

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from image_service import __version__
from image_service.domain.image import Claim, ImageFormat, Original
from image_service.domain.lane import Lane
from image_service.errors import (
    AttemptsExhausted,
    CorruptImage,
    DecoderCrashed,
    DecoderOutOfMemory,
    DecoderTimeout,
    ImageTooLarge,
    ObjectMissing,
    UnsupportedFormat,
)
from image_service.ports import AttemptOutcome

_QUICK: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds: for one step of the work."""
_REQUEST: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PATIENT: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Seconds: for an image's whole way, which includes waiting."""
_SIZES: Final = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000)
_NAMESPACE: Final = "image_service"
_TIMED_UUID: Final = 7
"""The version of UUIDs that begin with the milliseconds since 1970."""
_BITS_BEHIND_TIME: Final = 80
_FAILURES: Final = (
    UnsupportedFormat,
    CorruptImage,
    ImageTooLarge,
    DecoderCrashed,
    DecoderTimeout,
    DecoderOutOfMemory,
    AttemptsExhausted,
    ObjectMissing,
)
"""What images end in ERROR of. Prometheus sees no increase in a series that begins with its first event."""


class Metrics:
    """Everything that one process counts; the ``Observer`` behind the use cases, API and worker alike.

    What a process has no part in, it does not show.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = self._gauge("build_info", "Always 1; the label tells the version that runs.", "version")
        build.labels(__version__).set(1)

        self._requests = self._histogram(
            "http_request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            _REQUEST,
            "method",
            "route",
            "status",
        )
        self._problems = self._counter("http_problems", "Requests that were answered with a problem.", "route", "code")
        self._received = self._counter("http_received_bytes", "Bytes of request bodies.", "route")
        self._sent = self._counter("http_sent_bytes", "Bytes of answers' bodies.", "route")
        self.requests_in_progress = self._gauge("http_requests_in_progress", "Requests that are being answered.")

        self._uploads = self._counter("uploads", "Uploads that are safe, by whether they were queued.", "queued")
        self._upload_sizes = self._histogram(
            "upload_size_bytes", "Sizes of accepted originals, by their format.", _SIZES, "format"
        )

        self._claims = self._counter(
            "claims", "Times that a worker asked for an image: claimed, or nothing to do.", "lane", "result"
        )
        self._attempts = self._counter("attempts", "Attempts that ended, by how.", "ending")
        self._failures = self._counter(
            "attempt_failures", "Attempts that an error ended, by its code, and by how they ended.", "code", "ending"
        )
        self._done = self._histogram(
            "image_done_seconds", "Time from an image's acceptance until it is DONE, for the first time.", _PATIENT
        )

        self._up = self._gauge("dependency_up", "Whether a part answered when it was last asked.", "dependency")
        self._waiting = self._gauge("queue_waiting_messages", "Messages that no worker has taken.", "lane")
        self._unfinished = self._gauge(
            "unfinished_images", "Images that are neither DONE nor in ERROR, up to the limit of the backlog."
        )
        self._backlog_limit = self._gauge(
            "backlog_limit_images", "Unfinished images beyond which this process refuses uploads; 0 if it takes none."
        )
        self._dead_letters = self._gauge("dead_letters", "Messages in the dead-letter queue.")
        self._oldest = self._gauge(
            "oldest_unfinished_age_seconds", "Age of the oldest image that never was DONE or in ERROR; 0 without one."
        )
        self._surveyed = self._gauge(
            "survey_timestamp_seconds", "When unfinished images were last counted: how stale their gauges are."
        )
        self._rounds = self._counter("task_rounds", "Rounds of periodic tasks, by their outcome.", "task", "outcome")
        self._task_succeeded = self._gauge(
            "task_last_success_timestamp_seconds", "When a round of a periodic task last succeeded.", "task"
        )

        self.storage = self._histogram(
            "storage_operation_seconds", "Time that operations of the storage take.", _QUICK, "operation", "outcome"
        )
        self.publishing = self._histogram(
            "queue_publish_seconds", "Time until the broker has confirmed a message.", _QUICK, "outcome"
        )
        self.deliveries = self._histogram(
            "delivery_seconds", "Time that a worker is busy with a message.", _REQUEST, "lane", "outcome"
        )
        self.deliveries_in_progress = self._gauge(
            "deliveries_in_progress", "Messages that the worker is busy with.", "lane"
        )
        self.renders = self._histogram(
            "render_seconds", "Time that decoders take for an image, by ok or the error's code.", _REQUEST, "outcome"
        )
        self.steps = self._histogram(
            "render_step_seconds", "Time that each step of a rendering takes.", _QUICK, "step", "preset"
        )

        self._slots = self._gauge("decoder_slots", "Images that can be rendered at once.", "pool")
        self._decoders = self._gauge("decoders", "Decoder processes, by what they do.", "pool", "state")
        self._connections = self._gauge("database_connections", "Connections to the database, by state.", "state")

    # --- what the use cases tell -------------------------------------------------------------------------------------

    def accepted(self, original: Original, *, queued: bool) -> None:
        """See ``Observer``."""
        self._uploads.labels(str(queued).lower()).inc()
        self._upload_sizes.labels(original.header.format.value).observe(original.size_bytes)

    def claimed(self, lane: Lane, claim: Claim | None) -> None:
        """See ``Observer``."""
        self._claims.labels(lane.value, "nothing-to-do" if claim is None else "claimed").inc()

    def attempted(self, claim: Claim, outcome: AttemptOutcome, code: str | None = None) -> None:
        """See ``Observer``."""
        self._attempts.labels(outcome.value).inc()
        if code is not None:
            self._failures.labels(code, outcome.value).inc()
        if outcome is AttemptOutcome.DONE and not claim.reprocessing and (age := _age(claim.image_id)) is not None:
            self._done.observe(age)

    def probed(self, answers: Mapping[str, bool], waiting: Mapping[Lane, int] | None) -> None:
        """See ``Observer``."""
        for part, answered in answers.items():
            self._up.labels(part).set(answered)
        for lane, messages in (waiting or {}).items():
            self._waiting.labels(lane.value).set(messages)

    def backlog_measured(self, unfinished: int, oldest_age: float | None) -> None:
        """See ``Observer``."""
        self._unfinished.set(unfinished)
        self._oldest.set(oldest_age or 0)
        self._surveyed.set_to_current_time()

    def job_ended(self, name: str, *, succeeded: bool) -> None:
        """See ``Observer``."""
        self._rounds.labels(name, "ok" if succeeded else "failed").inc()
        if succeeded:
            self._task_succeeded.labels(name).set_to_current_time()

    # --- what the API tells ------------------------------------------------------------------------------------------

    def answered(self, method: str, route: str, status: int, seconds: float, *, problem: str | None) -> None:
        """A request is over.

        Args:
            method: One that HTTP knows.
            route: The path's template.
            status: Of the answer.
            seconds: In all.
            problem: The code of the problem that was the answer.
        """
        self._requests.labels(method, route, str(status)).observe(seconds)
        if problem is not None:
            self._problems.labels(route, problem).inc()

    def transferred(self, route: str, *, received: int, sent: int) -> None:
        """So many bytes of bodies went each way in a request."""
        if received:
            self._received.labels(route).inc(received)
        if sent:
            self._sent.labels(route).inc(sent)

    # --- what is looked up when somebody asks ------------------------------------------------------------------------

    def expect_api(self, *, backlog_limit: int) -> None:
        """Show what an API process will count as 0 before it has happened, and the bound that uploads are held to."""
        for queued in ("true", "false"):
            self._uploads.labels(queued)
        for kind in ImageFormat:
            self._upload_sizes.labels(kind.value)
        self._backlog_limit.set(backlog_limit)

    def expect_worker(self, slots: Mapping[str, int]) -> None:
        """Show what a worker will count as 0 before it has happened, and how many decoders each of its pools has."""
        for lane in Lane:
            for result in ("claimed", "nothing-to-do"):
                self._claims.labels(lane.value, result)
            self.deliveries_in_progress.labels(lane.value)
        for ending in AttemptOutcome:
            self._attempts.labels(ending.value)
        for failure in _FAILURES:
            self._failures.labels(failure.code, AttemptOutcome.ERROR.value)
            self._failures.labels(failure.code, AttemptOutcome.RETRY.value)
        for outcome in ("ok", *(failure.code for failure in _FAILURES)):
            self.renders.labels(outcome)
        for pool, number in slots.items():
            self._slots.labels(pool).set(number)

    def watch_decoders(self, state: str, pool: str, number: Callable[[], int]) -> None:
        """Show how many decoder processes of a pool are in a state, whenever it is asked for. Must not wait."""
        self._decoders.labels(pool, state).set_function(number)

    def watch_connections(self, state: str, number: Callable[[], int]) -> None:
        """Show how many connections to the database are in a state, whenever it is asked for. Must not wait."""
        self._connections.labels(state).set_function(number)

    def watch_dead_letters(self, number: Callable[[], int]) -> None:
        """Show how many dead letters there were when the broker was last asked. Must not wait."""
        self._dead_letters.set_function(number)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=_NAMESPACE, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace=_NAMESPACE, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace=_NAMESPACE, registry=self.registry, buckets=buckets)


def _age(image_id: UUID) -> float | None:
    """Seconds since an image was given its id, by the clocks of the two machines; None where the id does not tell."""
    if image_id.version != _TIMED_UUID:
        return None
    return max(0.0, time.time() - (image_id.int >> _BITS_BEHIND_TIME) / 1000)
