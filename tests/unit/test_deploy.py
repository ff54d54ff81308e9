"""Dashboard and alerts match the metrics and the runbook."""

import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from harness.monitoring import ALERTS, DASHBOARD, DEPLOY, RUNBOOK, panels, rules
from harness.servers import promtool
from image_service.observability.metrics import Metrics
from tests.unit.test_reliability_docs import anchors_of

NAME = re.compile(r"\bimage_service_\w+")


def everything() -> Metrics:
    """Metrics with every series that a process can show."""
    metrics = Metrics()
    metrics.expect_api(backlog_limit=1)
    metrics.expect_worker()
    metrics.track_decoder_pool("main", slots=1, busy=lambda: 0, idle=lambda: 0)
    return metrics


def test_every_alert_rule_is_valid_and_has_a_promtool_test() -> None:
    promtool("check", "rules", ALERTS)
    promtool("test", "rules", DEPLOY / "prometheus/alerts_test.yml")
    tested = re.findall(r"- alertname: (\w+)", (DEPLOY / "prometheus/alerts_test.yml").read_text())
    assert tested == [rule["alert"] for rule in rules()]


def test_example_scrapes_the_services_of_the_compose_file() -> None:
    promtool("check", "config", DEPLOY / "prometheus/prometheus.yml")
    example = (DEPLOY / "prometheus/prometheus.yml").read_text()
    compose = (DEPLOY.parent / "docker-compose.yml").read_text()
    assert set(re.findall(r"port: (\d+)", example)) == set(re.findall(r"METRICS_PORT:-(\d+)", compose))
    for service in re.findall(r"names: \[(\w+)\]", example):
        assert f"\n  {service}:\n" in compose
    assert set(re.findall(r"job_name: (\S+)", example)) == {"image-service-api", "image-service-worker"}


def test_every_alert_links_to_the_runbook() -> None:
    for rule in rules():
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (page, anchor in anchors_of(RUNBOOK)) == ("docs/runbook.md", True), rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert f"`{rule['alert']}`" in RUNBOOK.read_text(), rule["alert"]


@pytest.mark.parametrize("file", [ALERTS, DASHBOARD], ids=lambda file: file.name)
def test_queries_use_existing_metrics(file: Path) -> None:
    there = {
        family.name + suffix
        for family in everything().registry.collect()
        for suffix in ("", "_total", "_bucket", "_sum", "_count")
    }
    assert set(NAME.findall(file.read_text())) - there == set()


def test_every_metric_is_documented_and_passes_promtool() -> None:
    metrics = everything()
    promtool("check", "metrics", stdin=generate_latest(metrics.registry).decode())
    page = (DEPLOY.parent / "docs/observability.md").read_text()
    for family in metrics.registry.collect():
        if family.name.startswith("image_service_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            assert f"`{name}`" in page, name
    assert set(NAME.findall(page)) <= {
        family.name + suffix for family in metrics.registry.collect() for suffix in ("", "_total")
    }


def test_panel_titles_are_unique() -> None:
    titles = [panel.title for panel in panels()]
    assert len(titles) == len(set(titles)) > 30
