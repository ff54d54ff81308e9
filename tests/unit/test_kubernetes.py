"""The rendered manifests match the program's settings, beyond what their schemas check."""

import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from image_service.config import Settings
from image_service.domain.lane import Lane
from image_service.queue.rabbitmq import RabbitMQQueue
from image_service.queue.rabbitmq.topology import Topology
from image_service.worker.lanes import BACKFILL_SLOTS, EXPRESS_SLOTS

ROOT = Path(__file__).parents[2]
KUBECTL = Path(sys.executable).with_name("kubectl")
OVERLAYS = sorted(folder.name for folder in (ROOT / "k8s/overlays").iterdir())
PARTS = {"image-api", "image-worker", "image-keeper", "image-migrate"}
NAMES = {name.upper() for name in Settings.model_fields}
CREDENTIALS = {"DATABASE_URL", "RABBITMQ_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
OBJECT_STORAGE_VARIABLES = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"}
"""Variables that obstore reads."""
COMPONENT = "app.kubernetes.io/component"
MEBIBYTE = 1024**2
PROCESS_BYTES = 256 * MEBIBYTE
"""More than the measured memory of an API, or of a worker without its decoders."""

Manifest = dict[str, Any]

pytestmark = pytest.mark.parametrize("overlay", OVERLAYS)


@cache
def rendered(overlay: str) -> list[Manifest]:
    return kustomized(ROOT / "k8s/overlays" / overlay)


def kustomized(folder: Path) -> list[Manifest]:
    command: list[str | Path] = [KUBECTL, "kustomize", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603  (a fixed command)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, *kinds: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in rendered(overlay) if each["kind"] in kinds}


def pods(overlay: str) -> dict[str, Manifest]:
    """The pod specification of each part."""
    return {name: each["spec"]["template"]["spec"] for name, each in of_kind(overlay, "Deployment", "Job").items()}


def containers(overlay: str) -> dict[str, Manifest]:
    """The container of each part."""
    found = {}
    for name, pod in pods(overlay).items():
        (found[name],) = pod["containers"]
    return found


def settings_of(overlay: str, part: str) -> dict[str, str]:
    """The environment of a part, without secrets."""
    container = containers(overlay)[part]
    shared: dict[str, str] = {}
    for source in container["envFrom"]:
        shared |= of_kind(overlay, "ConfigMap")[source["configMapRef"]["name"]]["data"]
    return shared | {each["name"]: each["value"] for each in container["env"] if "value" in each}


def number_of_bytes(quantity: str) -> int:
    unit = {"Mi": MEBIBYTE, "Gi": 1024 * MEBIBYTE}[quantity[-2:]]
    return int(quantity[:-2]) * unit


def references(value: object) -> Iterator[Manifest]:
    """Every reference to a secret, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from [inner] if key == "secretKeyRef" else inner if key == "secretTargetRef" else references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(
        each["operator"] == "In" and labels.get(each["key"]) in each["values"]
        for each in selector.get("matchExpressions", [])
    )


def test_all_workloads_are_rendered(overlay: str) -> None:
    assert set(pods(overlay)) == PARTS


def test_pods_are_unprivileged_and_read_only(overlay: str) -> None:
    for name, pod in pods(overlay).items():
        account = pod["securityContext"]
        assert account["runAsNonRoot"] is True, name
        assert account["runAsUser"] == account["runAsGroup"] == account["fsGroup"] == 10001, name
        assert account["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert containers(overlay)[name]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name


def test_pods_run_as_the_user_of_the_image(overlay: str) -> None:
    for image in ("api", "worker"):
        assert "USER 10001:10001\n" in (ROOT / f"Dockerfile.{image}").read_text(), overlay


def test_every_container_has_requests_and_limits(overlay: str) -> None:
    for name, container in containers(overlay).items():
        for kind in ("requests", "limits"):
            assert set(container["resources"][kind]) == {"cpu", "memory"}, name


def test_decoders_fit_the_memory_limit(overlay: str) -> None:
    for part in ("image-worker", "image-keeper"):
        settings = Settings.model_validate({name.lower(): each for name, each in settings_of(overlay, part).items()})
        slots = settings.decode_slots
        decoders = slots + EXPRESS_SLOTS + BACKFILL_SLOTS if slots else 0
        limit = number_of_bytes(containers(overlay)[part]["resources"]["limits"]["memory"])
        assert limit >= PROCESS_BYTES + decoders * settings.decode_memory, part


def test_workers_are_scaled_and_the_keeper_is_not(overlay: str) -> None:
    deployments = of_kind(overlay, "Deployment")
    assert settings_of(overlay, "image-worker")["DECODE_SLOTS"] != "0"
    assert settings_of(overlay, "image-keeper")["DECODE_SLOTS"] == "0"
    assert deployments["image-keeper"]["spec"]["replicas"] == 1
    for scaled in ("image-api", "image-worker"):  # or each `kubectl apply` would undo the autoscaler's changes
        assert "replicas" not in deployments[scaled]["spec"]


def test_credentials_come_from_secrets_only(overlay: str) -> None:
    assert not of_kind(overlay, "Secret")
    for name, container in containers(overlay).items():
        by_reference = {each["name"] for each in container["env"] if "secretKeyRef" in each.get("valueFrom", {})}
        assert by_reference == {each["name"] for each in container["env"]} & CREDENTIALS, name
        assert not settings_of(overlay, name).keys() & CREDENTIALS, name
    named = {(each["name"], each["key"]) for manifest in rendered(overlay) for each in references(manifest)}
    kept = {("image-service", key) for key in ("DATABASE_URL", "MIGRATION_DATABASE_URL", "RABBITMQ_URL")}
    if overlay == "s3":
        kept |= {("image-storage", key) for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    assert named == kept


def test_every_variable_is_a_setting_with_a_valid_value(overlay: str) -> None:
    for part in PARTS:
        given = settings_of(overlay, part)
        assert given.keys() <= NAMES | OBJECT_STORAGE_VARIABLES, part
        Settings.model_validate({name.lower(): value for name, value in given.items()})
        assert {each["name"] for each in containers(overlay)[part]["env"]} <= NAMES | OBJECT_STORAGE_VARIABLES, part


def test_grace_period_covers_the_drain(overlay: str) -> None:
    for part in PARTS - {"image-migrate"}:
        settings = Settings.model_validate({"drain_timeout": settings_of(overlay, part)["DRAIN_TIMEOUT"]})
        before = containers(overlay)[part].get("lifecycle", {"preStop": {"sleep": {"seconds": 0}}})
        spent = before["preStop"]["sleep"]["seconds"] + settings.drain_timeout
        assert pods(overlay)[part]["terminationGracePeriodSeconds"] >= spent + 5, part


def test_scaling_has_a_trigger_for_every_lane(overlay: str) -> None:
    (scaling,) = of_kind(overlay, "ScaledObject").values()
    topology = Topology(inspect.signature(RabbitMQQueue).parameters["queue_name"].default)
    triggers = scaling["spec"]["triggers"]
    assert {each["name"]: each["metadata"]["queueName"] for each in triggers} == {
        lane.value: topology.queue_of(lane) for lane in Lane
    }
    assert scaling["spec"]["scaleTargetRef"]["name"] in of_kind(overlay, "Deployment")
    assert {each["authenticationRef"]["name"] for each in triggers} == set(of_kind(overlay, "TriggerAuthentication"))


def test_cooldown_exceeds_the_longest_processing_time(overlay: str) -> None:
    (scaling,) = of_kind(overlay, "ScaledObject").values()
    defaults = Settings()
    assert scaling["spec"]["minReplicaCount"] == 0
    assert scaling["spec"]["cooldownPeriod"] > defaults.lease_seconds + 2 * defaults.decode_timeout


def test_probes_match_the_health_endpoints(overlay: str) -> None:
    api = containers(overlay)["image-api"]
    assert {kind: api[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")} == {
        "startupProbe": "/health/live",
        "livenessProbe": "/health/live",
        "readinessProbe": "/health/ready",
    }
    ports = {each["name"]: each["containerPort"] for each in api["ports"]}
    assert ports["http"] == Settings.model_fields["api_port"].default
    for part in ("image-worker", "image-keeper"):
        probes = [containers(overlay)[part][kind] for kind in ("startupProbe", "livenessProbe", "readinessProbe")]
        assert {tuple(each["exec"]["command"]) for each in probes} == {("image-service", "healthcheck", "worker")}
        # An outage of the database must not restart every worker.
        assert probes[1]["periodSeconds"] * probes[1]["failureThreshold"] >= 600


def test_selectors_match_the_intended_pods(overlay: str) -> None:
    templates = of_kind(overlay, "Deployment", "Job")
    labels = {name: each["spec"]["template"]["metadata"]["labels"] for name, each in templates.items()}
    for name, deployment in of_kind(overlay, "Deployment").items():
        assert [each for each in labels if selects(deployment["spec"]["selector"], labels[each])] == [name]
    for name, budget in of_kind(overlay, "PodDisruptionBudget").items():
        assert [each for each in labels if selects(budget["spec"]["selector"], labels[each])] == [name]
    (service,) = of_kind(overlay, "Service").values()
    assert [each for each in labels if service["spec"]["selector"].items() <= labels[each].items()] == ["image-api"]
    policies = of_kind(overlay, "NetworkPolicy")
    chosen = {
        name: {each for each in labels if selects(policy["spec"]["podSelector"], labels[each])}
        for name, policy in policies.items()
    }
    assert chosen["image-service"] == PARTS
    assert chosen["image-broker"] == PARTS - {"image-migrate"}
    assert chosen["image-api"] == {"image-api"}
    dns = policies["image-service"]["spec"]["egress"][0]["to"]
    assert [each["podSelector"] for each in dns] == [{"matchLabels": {"k8s-app": "kube-dns"}}]


def test_webhooks_component_lets_the_workers_reach_public_addresses_only(overlay: str, tmp_path: Path) -> None:
    parts = {"resources": [f"overlays/{overlay}"], "components": ["components/webhooks"]}
    places = {
        kind: [os.path.relpath(ROOT / "k8s" / each, tmp_path.resolve()) for each in parts[kind]] for kind in parts
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(places))
    manifests = kustomized(tmp_path)
    (policy,) = (each for each in manifests if each["metadata"]["name"] == "image-webhooks")
    selector = policy["spec"]["podSelector"]
    templates = [each["spec"]["template"]["metadata"] for each in manifests if each["kind"] in {"Deployment", "Job"}]
    assert {each["labels"][COMPONENT] for each in templates if selects(selector, each["labels"])} == {
        "worker",
        "keeper",
    }
    (rule,) = policy["spec"]["egress"]
    every, public = (each["ipBlock"] for each in rule["to"])
    assert not any(ip_network(network).is_global for network in every["except"])
    assert ip_network(public["cidr"]) == ip_network("2000::/3")
    assert [each["port"] for each in rule["ports"]] == [443]


def test_documented_first_step_has_what_the_migration_needs(overlay: str) -> None:
    documented = re.findall(r"component in \(([a-z, ]+)\)", (ROOT / "docs/kubernetes.md").read_text())
    parts = {part for each in documented for part in each.split(", ")}
    first = {each["kind"] for each in rendered(overlay) if each["metadata"]["labels"].get(COMPONENT) in parts}
    assert first == {"Namespace", "ConfigMap", "NetworkPolicy", "Job"}


def test_metrics_ports_match_the_monitors(overlay: str) -> None:
    (service,) = of_kind(overlay, "Service").values()
    assert {"name": "metrics", "port": 9100, "targetPort": "metrics"} in service["spec"]["ports"]
    (of_services,) = of_kind(overlay, "ServiceMonitor").values()
    (of_pods,) = of_kind(overlay, "PodMonitor").values()
    assert selects(of_services["spec"]["selector"], service["metadata"]["labels"])
    endpoints = of_services["spec"]["endpoints"] + of_pods["spec"]["podMetricsEndpoints"]
    assert {(each["port"], each["path"]) for each in endpoints} == {("metrics", "/metrics")}
    for part in PARTS - {"image-migrate"}:
        assert {"name": "metrics", "containerPort": 9100} in containers(overlay)[part]["ports"]
        given = settings_of(overlay, part)
        assert (given["METRICS_HOST"], given["METRICS_PORT"]) == ("0.0.0.0", "9100")  # noqa: S104  (in a pod)


def test_files_are_stored_outside_the_pods(overlay: str) -> None:
    for part in PARTS - {"image-migrate"}:
        mounts = {each["mountPath"]: each["name"] for each in containers(overlay)[part]["volumeMounts"]}
        volumes = {each["name"]: each for each in pods(overlay)[part]["volumes"]}
        storage = volumes[mounts[str(Settings.model_fields["storage_path"].default)]]
        shared = "STORAGE_URL" in settings_of(overlay, part) or "persistentVolumeClaim" in storage
        assert shared, part
        assert ("persistentVolumeClaim" in storage) == bool(of_kind(overlay, "PersistentVolumeClaim")), part


def test_recipes_reach_all_pods_but_the_migration(overlay: str) -> None:
    maps = of_kind(overlay, "ConfigMap")
    (name,) = [each for each in maps if each.startswith("image-recipes-")]  # a hash follows: a change replaces the pods
    assert maps[name]["data"] == {"recipes.toml": (ROOT / "deploy/recipes.toml").read_text()}
    for part in PARTS - {"image-migrate"}:
        volumes = [each["name"] for each in pods(overlay)[part]["volumes"] if each.get("configMap") == {"name": name}]
        (mount,) = [each for each in containers(overlay)[part]["volumeMounts"] if each["name"] in volumes]
        assert mount["readOnly"] is True
        assert settings_of(overlay, part)["RECIPES_FILE"] == f"{mount['mountPath']}/recipes.toml", part
    assert "RECIPES_FILE" not in settings_of(overlay, "image-migrate")


def test_image_tags_are_this_version(overlay: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    names = {name: container["image"].rpartition("/")[2] for name, container in containers(overlay).items()}
    assert names == {
        "image-api": f"image-processing-api:{version}",
        **dict.fromkeys(PARTS - {"image-api"}, f"image-processing-worker:{version}"),
    }
