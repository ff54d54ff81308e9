"""Defines the metrics of webhooks; a part of ``Metrics``."""

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0)
"""Seconds, for the answer of an endpoint: at most WEBHOOK_TIMEOUT."""
_CLASSES: Final = range(1, 6)
"""Of statuses that HTTP defines, by their first digit."""


class WebhookMetrics:
    """The metrics of webhooks.

    Args:
        namespace: Begins their names.
        registry: What they are added to.
    """

    def __init__(self, namespace: str, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "webhook_attempts",
            "Attempts to send an event to a webhook endpoint, by the class of the answer's status and by outcome.",
            ("status", "outcome"),
            namespace=namespace,
            registry=registry,
        )
        self._seconds = Histogram(
            "webhook_attempt_seconds",
            "Time until a webhook endpoint answered, or the attempt failed.",
            namespace=namespace,
            registry=registry,
            buckets=_BUCKETS,
        )
        self._endpoints = Gauge(
            "webhook_endpoints", "Webhook endpoints, by state.", ("state",), namespace=namespace, registry=registry
        )
        self._pending = Gauge(
            "webhook_pending_deliveries",
            "Deliveries to webhook endpoints that are to be sent, counted up to 10,000.",
            namespace=namespace,
            registry=registry,
        )
        self._overdue = Gauge(
            "webhook_overdue_seconds",
            "How long the first delivery to a webhook endpoint that works waits beyond its time; 0 if none does.",
            namespace=namespace,
            registry=registry,
        )

    def expect(self) -> None:
        """Show the counters as 0 from the start."""
        self._attempts.labels("2xx", "delivered")
        for status in ("3xx", "4xx", "5xx", "none"):
            for outcome in ("pending", "failed"):
                self._attempts.labels(status, outcome)

    def attempted(self, outcome: str, status: int | None, seconds: float) -> None:
        """See ``Observer.webhook_attempted``."""
        self._attempts.labels(_class_of(status), outcome).inc()
        self._seconds.observe(seconds)

    def measured(self, endpoints: Mapping[str, int], *, pending: int, overdue: float) -> None:
        """See ``Observer.webhooks_measured``."""
        for state, number in endpoints.items():
            self._endpoints.labels(state).set(number)
        self._pending.set(pending)
        self._overdue.set(overdue)


def _class_of(status: int | None) -> str:
    """Returns ``2xx`` and so on; ``none`` without an answer."""
    if status is None:
        return "none"
    return f"{status // 100}xx" if status // 100 in _CLASSES else "other"
