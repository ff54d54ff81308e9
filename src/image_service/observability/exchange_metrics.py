"""Defines the metrics of the exchange for other services; a part of ``Metrics``."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class ExchangeMetrics:
    """The metrics of the exchange.

    Args:
        namespace: Begins their names.
        registry: What they are added to.
    """

    def __init__(self, namespace: str, registry: CollectorRegistry) -> None:
        self._events = Counter(
            "exchange_events", "Events published to the exchange.", namespace=namespace, registry=registry
        )
        self._lag = Gauge(
            "exchange_lag_seconds",
            "Age of the oldest event still to be published; 0 if none.",
            namespace=namespace,
            registry=registry,
        )

    def relayed(self, events: int, *, lag: float) -> None:
        """See ``Observer``."""
        self._events.inc(events)
        self._lag.set(lag)
