"""Defines the metrics, by the conventions of Prometheus.

Every label has few values, known in advance: no ids, no paths, nothing that a client can choose.
``docs/observability.md`` describes each metric.
"""

import time
from collections.abc import Callable, Iterable, Mapping
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
    ObjectChanged,
    ObjectMissing,
    ObjectUnreadable,
    UnsupportedFormat,
)
from image_service.observability.exchange_metrics import ExchangeMetrics
from image_service.observability.feed_metrics import FeedMetrics
from image_service.observability.webhook_metrics import WebhookMetrics
from image_service.ports import AttemptOutcome

_STEP_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds, for one step of the work."""
_REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds, for a request, a message or a rendering."""
_IMAGE_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Seconds, from an image's acceptance to DONE, including the time in the queue."""
_SIZE_BUCKETS: Final = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000)
_NAMESPACE: Final = "image_service"
_TIMED_UUID: Final = 7
"""The UUID version that starts with the milliseconds since 1970."""
_BITS_AFTER_TIME: Final = 80
_FAILURES: Final = (
    UnsupportedFormat,
    CorruptImage,
    ImageTooLarge,
    DecoderCrashed,
    DecoderTimeout,
    DecoderOutOfMemory,
    AttemptsExhausted,
    ObjectMissing,
    ObjectChanged,
    ObjectUnreadable,
)
"""Reasons for which images end in ERROR. Shown as 0 from the start: Prometheus sees no increase in a new series."""


class Metrics:
    """The metrics of one process, API or worker; the ``Observer`` of the use cases.

    Labelled metrics that do not apply to the process are not shown.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = self._gauge("build_info", "Always 1; the label is the running version.", "version")
        build.labels(__version__).set(1)

        self._requests = self._histogram(
            "http_request_duration_seconds",
            "Time from a request's header to the end of its response.",
            _REQUEST_BUCKETS,
            "method",
            "route",
            "status",
        )
        self._problems = self._counter("http_problems", "Requests answered with a problem document.", "route", "code")
        self._received = self._counter("http_received_bytes", "Bytes of request bodies.", "route")
        self._sent = self._counter("http_sent_bytes", "Bytes of response bodies.", "route")
        self.requests_in_progress = self._gauge("http_requests_in_progress", "Requests in progress.")

        self._http_connections = self._gauge("http_connections", "Open connections of clients.")
        self._http_connection_limit = self._gauge(
            "http_connection_limit", "Connections above which idle ones are closed and new ones refused; 0 if no API."
        )
        self._http_connections_closed = self._counter(
            "http_connections_closed", "Connections that the server closed, by reason; idle ones left out.", "reason"
        )

        self._uploads = self._counter("uploads", "Stored uploads, by whether they were queued.", "queued")
        self._upload_sizes = self._histogram(
            "upload_size_bytes", "Sizes of accepted originals, by format.", _SIZE_BUCKETS, "format"
        )

        self._claims = self._counter(
            "claims", "Images that a worker tried to claim: claimed, or skipped.", "lane", "outcome"
        )
        self._attempts = self._counter("attempts", "Attempts that ended, by outcome.", "outcome")
        self._failures = self._counter(
            "attempt_failures", "Attempts that an error ended, by its code and by outcome.", "code", "outcome"
        )
        self._done = self._histogram(
            "image_done_seconds", "Time from an image's acceptance until it is first DONE.", _IMAGE_BUCKETS
        )

        self._up = self._gauge("dependency_up", "Whether a dependency answered the last probe.", "dependency")
        self._waiting = self._gauge("queue_waiting_messages", "Messages that no worker holds.", "lane")
        self._unfinished = self._gauge(
            "unfinished_images", "Images that are neither DONE nor in ERROR, counted up to the backlog limit."
        )
        self._backlog_limit = self._gauge(
            "backlog_limit_images", "Unfinished images above which this process refuses uploads; 0 if it is no API."
        )
        self._dead_letters = self._gauge("dead_letters", "Messages in the dead-letter queue.")
        self._oldest = self._gauge(
            "oldest_unfinished_age_seconds", "Age of the oldest image that was never DONE or in ERROR; 0 if none."
        )
        self._measured = self._gauge("backlog_measured_timestamp_seconds", "When unfinished images were last counted.")
        # Not "job": Prometheus sets that label itself.
        self._task_runs = self._counter("task_runs", "Runs of periodic tasks, by outcome.", "task", "outcome")
        self._task_succeeded = self._gauge(
            "task_last_success_timestamp_seconds", "When a periodic task last succeeded.", "task"
        )

        self._webhooks = WebhookMetrics(_NAMESPACE, self.registry)
        self.webhook_attempted = self._webhooks.attempted
        self.webhooks_measured = self._webhooks.measured

        self.storage = self._histogram(
            "storage_operation_seconds", "Duration of storage operations.", _STEP_BUCKETS, "operation", "outcome"
        )
        self.publishing = self._histogram(
            "queue_publish_seconds", "Time until the broker confirms a message.", _STEP_BUCKETS, "outcome"
        )
        self.deliveries = self._histogram(
            "delivery_seconds", "Time that a worker handles a message.", _REQUEST_BUCKETS, "lane", "outcome"
        )
        self.deliveries_in_progress = self._gauge(
            "deliveries_in_progress", "Messages that the worker is handling.", "lane"
        )
        self.renders = self._histogram(
            "render_seconds",
            "Time to render an image; the outcome is ok or an error code.",
            _REQUEST_BUCKETS,
            "outcome",
        )
        self.steps = self._histogram(
            "render_step_seconds", "Duration of each rendering step.", _STEP_BUCKETS, "step", "preset"
        )

        feed = FeedMetrics(_NAMESPACE, self.registry)
        self.events_read = feed.events_read
        self.track_event_streams = feed.track_event_streams
        self.track_waiting_requests = feed.track_waiting_requests
        self.relayed = ExchangeMetrics(_NAMESPACE, self.registry).relayed

        self._lines_lost = self._counter("log_lines_lost", "Log lines dropped because nothing read them in time.")
        self._slots = self._gauge("decoder_slots", "Images that can be rendered at once.", "pool")
        self._decoders = self._gauge("decoders", "Decoder processes, by state.", "pool", "state")
        self._connections = self._gauge("database_connections", "Connections to the database, by state.", "state")

    # --- Observer ----------------------------------------------------------------------------------------------------

    def accepted(self, original: Original, *, queued: bool) -> None:
        """See ``Observer``."""
        self._uploads.labels(str(queued).lower()).inc()
        self._upload_sizes.labels(original.header.format.value).observe(original.size_bytes)

    def claimed(self, lane: Lane, claim: Claim | None) -> None:
        """See ``Observer``."""
        self._claims.labels(lane.value, "skipped" if claim is None else "claimed").inc()

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
        self._measured.set_to_current_time()

    def job_ended(self, name: str, *, succeeded: bool) -> None:
        """See ``Observer``."""
        self._task_runs.labels(name, "ok" if succeeded else "failed").inc()
        if succeeded:
            self._task_succeeded.labels(name).set_to_current_time()

    # --- HTTP requests -----------------------------------------------------------------------------------------------

    def answered(self, method: str, route: str, status: int, seconds: float, *, problem: str | None) -> None:
        """Count a finished request.

        Args:
            method: A method defined by HTTP.
            route: The path's template.
            status: The response's status.
            seconds: The request's duration.
            problem: The problem's code if the response is a problem document.
        """
        self._requests.labels(method, route, str(status)).observe(seconds)
        if problem is not None:
            self._problems.labels(route, problem).inc()

    def transferred(self, route: str, *, received: int, sent: int) -> None:
        """Count the bytes of a request's and its response's body."""
        if received:
            self._received.labels(route).inc(received)
        if sent:
            self._sent.labels(route).inc(sent)

    def connection_closed(self, reason: str) -> None:
        """Count a client's connection that the server closed, by one of few reasons."""
        self._http_connections_closed.labels(reason).inc()

    # --- the process -------------------------------------------------------------------------------------------------

    def log_lines_lost(self, lines: int) -> None:
        """Count log lines that were dropped."""
        self._lines_lost.inc(lines)

    # --- initial values, and values read at every scrape -------------------------------------------------------------

    def expect_api(self, *, backlog_limit: int) -> None:
        """Show an API process's counters as 0 from the start, and its backlog limit."""
        for queued in ("true", "false"):
            self._uploads.labels(queued)
        for kind in ImageFormat:
            self._upload_sizes.labels(kind.value)
        self._backlog_limit.set(backlog_limit)

    def expect_worker(self) -> None:
        """Show a worker's counters as 0 from the start."""
        for lane in Lane:
            for outcome in ("claimed", "skipped"):
                self._claims.labels(lane.value, outcome)
            self.deliveries_in_progress.labels(lane.value)
        self._webhooks.expect()
        for ended in AttemptOutcome:
            self._attempts.labels(ended.value)
        for failure in _FAILURES:
            self._failures.labels(failure.code, AttemptOutcome.ERROR.value)
            self._failures.labels(failure.code, AttemptOutcome.RETRY.value)
        for outcome in ("ok", *(failure.code for failure in _FAILURES)):
            self.renders.labels(outcome)

    def track_decoder_pool(self, pool: str, *, slots: int, busy: Callable[[], int], idle: Callable[[], int]) -> None:
        """Show a pool's slots, and its busy and idle processes, read at every scrape; the functions must not block."""
        self._slots.labels(pool).set(slots)
        self._decoders.labels(pool, "busy").set_function(busy)
        self._decoders.labels(pool, "idle").set_function(idle)

    def track_connections(self, state: str, number: Callable[[], int]) -> None:
        """Show the database connections in a state, read at every scrape; the function must not block."""
        self._connections.labels(state).set_function(number)

    def track_http_connections(self, number: Callable[[], int], *, limit: int, reasons: Iterable[str]) -> None:
        """Show the clients' connections, read at every scrape, and 0 for each reason; the function must not block."""
        self._http_connections.set_function(number)
        self._http_connection_limit.set(limit)
        for reason in reasons:
            self._http_connections_closed.labels(reason)

    def track_dead_letters(self, number: Callable[[], int]) -> None:
        """Show the number of dead letters, read at every scrape; the function must not block."""
        self._dead_letters.set_function(number)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=_NAMESPACE, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace=_NAMESPACE, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace=_NAMESPACE, registry=self.registry, buckets=buckets)


def _age(image_id: UUID) -> float | None:
    """Returns the seconds since an image got its id, by the clocks of two machines; None if the id has no time."""
    if image_id.version != _TIMED_UUID:
        return None
    return max(0.0, time.time() - (image_id.int >> _BITS_AFTER_TIME) / 1000)
