"""Reads metrics as Prometheus receives them."""

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from image_service.observability.metrics import Metrics

PREFIX = "image_service_"


def counted(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Returns the value of a series, by its name without the prefix; None if the series does not exist."""
    return metrics.registry.get_sample_value(PREFIX + name, labels)


def series(metrics: Metrics) -> dict[str, set[tuple[tuple[str, str], ...]]]:
    """Returns the labels of every series, by its name."""
    found: dict[str, set[tuple[tuple[str, str], ...]]] = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).add(tuple(sorted(sample.labels.items())))
    return found
