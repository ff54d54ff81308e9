"""Defines the metrics of those who wait for events; a part of ``Metrics``."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds, from an event until it is read."""


class FeedMetrics:
    """The metrics of event streams, of requests that wait, and of what is read for them.

    Args:
        namespace: Begins their names.
        registry: What they are added to.
    """

    def __init__(self, namespace: str, registry: CollectorRegistry) -> None:
        self._waiting = Gauge(
            "waiting_requests",
            "Requests whose answer waits for an image to end.",
            namespace=namespace,
            registry=registry,
        )
        self._streams = Gauge("event_streams", "Open event streams.", namespace=namespace, registry=registry)
        self._events = Counter(
            "events_read",
            "Events read for requests and streams that wait for them.",
            namespace=namespace,
            registry=registry,
        )
        self._lag = Histogram(
            "event_lag_seconds",
            "Time from an event until it is read for those who wait for it.",
            namespace=namespace,
            registry=registry,
            buckets=_LAG_BUCKETS,
        )

    def events_read(self, number: int, *, lag: float) -> None:
        """See ``Observer``."""
        self._events.inc(number)
        self._lag.observe(lag)

    def track_event_streams(self, number: Callable[[], int]) -> None:
        """Show the number of open event streams, read at every scrape; the function must not block."""
        self._streams.set_function(number)

    def track_waiting_requests(self, number: Callable[[], int]) -> None:
        """Show the requests that wait for an image to end, read at every scrape; the function must not block."""
        self._waiting.set_function(number)
