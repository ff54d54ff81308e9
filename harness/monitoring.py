"""A real Prometheus that monitors the service by the files in ``deploy``, with all durations sixty times shorter."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.servers import PrometheusServer, new_folder

DEPLOY = Path(__file__).parents[1] / "deploy"
ALERTS = DEPLOY / "prometheus/alerts.yml"
DASHBOARD = DEPLOY / "grafana/dashboard.json"
RUNBOOK = Path(__file__).parents[1] / "docs/runbook.md"
INTERVAL = "500ms"
WINDOW = "15s"
"""Replaces Grafana's ``$__rate_interval``."""
SHORTER_AGES = {"> 900": "> 4", "> 120": "> 4"}
"""Ages in seconds in the rules, and their replacements."""
FAST_METRICS = {"METRICS_INTERVAL": "0.5"}
"""Settings for processes monitored like this."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One query of the dashboard."""

    title: str
    query: str


def panels() -> Iterator[Panel]:
    """Every query of the dashboard."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield Panel(title=f"{panel['title']}: {target['legendFormat']}", query=target["expr"])


def rules() -> list[dict[str, Any]]:
    """Every alert rule."""
    groups: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def accelerated(text: str) -> str:
    """The rules with seconds for minutes, and half a second for each minute of ``for``."""
    text = re.sub(r"\bfor: (\d+)m\b", lambda found: f"for: {int(found[1]) * 500}ms", text)
    text = re.sub(r"\b(\d+)([mh])\b", lambda found: found[1] + {"m": "s", "h": "m"}[found[2]], text)
    for age, shorter in SHORTER_AGES.items():
        assert age in text
        text = text.replace(age, shorter)
    return text


def prometheus(targets: Mapping[str, list[int]]) -> PrometheusServer:
    """A Prometheus that scrapes these ports of this machine, by job name."""
    folder = new_folder()
    configuration = {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [str(folder / "rules.yml")],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
            for job, ports in targets.items()
        ],
    }
    return PrometheusServer(folder, yaml.safe_dump(configuration), accelerated(ALERTS.read_text()))


def values(server: PrometheusServer, query: str) -> list[float]:
    """The current values of a query's series, without NaN."""
    found = server.ask("query", query=query.replace("$__rate_interval", WINDOW))["result"]
    return [number for sample in found if (number := float(sample["value"][1])) == number]


def firing(server: PrometheusServer) -> set[str]:
    """The names of the alerts that fire now."""
    return {alert["labels"]["alertname"] for alert in server.ask("alerts")["alerts"] if alert["state"] == "firing"}


def fired(server: PrometheusServer, seconds: float) -> set[str]:
    """The names of the alerts that fired within the last ``seconds``."""
    history = f'count_over_time(ALERTS{{alertstate="firing"}}[{max(1, int(seconds))}s])'
    return {sample["metric"]["alertname"] for sample in server.ask("query", query=history)["result"]}
