"""The commands on webhook endpoints, on the data of a standalone service."""

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from typer.testing import Result

from harness.logs import logging_kept
from harness.service_harness import ServiceHarness
from image_service.config import Settings
from image_service.database import Repositories
from image_service.domain.webhook import Webhook
from image_service.domain.webhook_delivery import DeliveryAttempt, DeliveryResult, DeliveryStatus
from tests.integration.test_admin import DataFolder, lines, run

URL = "https://hooks.example.org/images"
UNKNOWN = "image-service: There is no webhook endpoint with this id. Look at those that GET /webhooks lists."


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    with logging_kept():
        yield


@pytest.fixture
def data(tmp_path: Path, sqlite_template: Path) -> DataFolder:
    return DataFolder(tmp_path / "data", sqlite_template)


def webhooks(data: DataFolder, *arguments: str, **environment: str) -> Result:
    return run("webhooks", *arguments, "--data", data.folder, **environment)


def added(data: DataFolder, *arguments: str) -> UUID:
    outcome = webhooks(data, "add", URL, *arguments)
    assert outcome.exit_code == 0, outcome.output
    return UUID(outcome.stdout.split()[0])


def recorded(data: DataFolder, webhook_id: UUID) -> Webhook:
    webhook = data.run(lambda env: env.ask(lambda r: r.webhooks.get(webhook_id)))
    assert webhook is not None
    return webhook


def deliver(data: DataFolder, status: DeliveryStatus) -> None:
    """Do what a worker does."""

    async def work(repositories: Repositories) -> None:
        await repositories.deliveries.dispatch()
        for claim in await repositories.deliveries.claim({}, each=10, lease=60):
            attempt = DeliveryAttempt(milliseconds=12, status=200 if status is DeliveryStatus.DELIVERED else 500)
            await repositories.deliveries.finish(claim, attempt, DeliveryResult(status=status))

    data.run(lambda env: env.ask(work))


def test_added_endpoint_is_listed_and_its_secret_shown_once(data: DataFolder) -> None:
    outcome = webhooks(data, "add", URL, "--type", "image.failed", "--type", "image.done")
    line, secret = lines(outcome)
    webhook = recorded(data, UUID(line.split()[0]))
    assert line == f"{webhook.id}  enabled  image.done,image.failed  {URL}"
    assert secret == f"Its receiver verifies deliveries with this secret, which is not shown again: {webhook.secret}"
    other = added(data)
    assert lines(webhooks(data, "list")) == [line, f"{other}  enabled  all types  {URL}", "2 webhook endpoints."]
    shown = webhooks(data, "show", str(webhook.id))
    assert lines(shown)[0] == line
    assert webhook.secret not in shown.output


def test_endpoint_with_a_public_key_shows_it(data: DataFolder) -> None:
    outcome = webhooks(data, "add", URL, WEBHOOK_SIGNATURES="v1a")
    key = re.fullmatch(r"Its receiver verifies deliveries with the public key (whpk_\S+)", lines(outcome)[1])
    assert key is not None
    assert f"public key {key[1]}" in webhooks(data, "show", outcome.stdout.split()[0]).stdout


def test_endpoint_is_changed_disabled_enabled_and_removed(data: DataFolder) -> None:
    webhook = str(added(data, "--type", "image.done"))
    other = "https://other.example.org/"
    assert lines(webhooks(data, "change", webhook, "--url", other)) == [f"{webhook}  enabled  image.done  {other}"]
    assert lines(webhooks(data, "change", webhook, "--all-types")) == [f"{webhook}  enabled  all types  {other}"]
    assert lines(webhooks(data, "disable", webhook)) == [f"{webhook}  disabled  all types  {other}"]
    assert ": It was disabled by a request." in webhooks(data, "show", webhook).stdout
    assert lines(webhooks(data, "enable", webhook)) == [f"{webhook}  enabled  all types  {other}"]
    assert lines(webhooks(data, "remove", webhook)) == [f"{webhook}  deleted"]
    assert lines(webhooks(data, "list")) == ["0 webhook endpoints."]


def test_rotation_shows_the_new_secret(data: DataFolder) -> None:
    webhook_id = added(data)
    before = recorded(data, webhook_id)
    secret, until = lines(webhooks(data, "rotate", str(webhook_id)))
    rotated = recorded(data, webhook_id)
    assert rotated.secrets == (secret.rpartition(" ")[2], before.secret)
    assert until == f"The one before signs deliveries, too, until {rotated.previous_until:%Y-%m-%d %H:%M:%S} UTC."


def test_deliveries_are_listed_and_made_again(data: DataFolder) -> None:
    webhook = str(added(data))
    assert lines(webhooks(data, "deliveries", webhook)) == ["0 deliveries."]
    assert lines(webhooks(data, "test", webhook)) == [
        f"A worker sends it within seconds; the result: image-service webhooks deliveries {webhook}"
    ]
    deliver(data, DeliveryStatus.FAILED)
    line, count = lines(webhooks(data, "deliveries", webhook))
    assert re.fullmatch(r"1  \S+ \S+  webhook\.test  failed  status 500 in 12 ms", line)
    assert count == "1 deliveries."
    assert "failing" in webhooks(data, "show", webhook).stdout
    assert lines(webhooks(data, "replay", webhook, "--delivery", "1")) == ["1 deliveries are made again."]
    deliver(data, DeliveryStatus.DELIVERED)
    assert "delivered  status 200" in webhooks(data, "deliveries", webhook).stdout
    assert lines(webhooks(data, "replay", webhook, "--since", "2026-01-01T00:00:00")) == [
        "1 deliveries are made again."
    ]


def test_image_of_a_delivery_is_named(data: DataFolder) -> None:
    webhook = str(added(data))
    image_id = data.run(ServiceHarness.queued)
    deliver(data, DeliveryStatus.DELIVERED)
    assert f"image.accepted  {image_id}  delivered" in webhooks(data, "deliveries", webhook, "--limit", "1").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "http://10.0.0.1/"), "image-service: Nothing is sent to this address. Send a URL with https://"),
        (("show", str(uuid4())), UNKNOWN),
        (("change", str(uuid4()), "--url", URL), UNKNOWN),
        (("rotate", str(uuid4())), UNKNOWN),
        (("remove", str(uuid4())), UNKNOWN),
        (("test", str(uuid4())), UNKNOWN),
        (("deliveries", str(uuid4())), UNKNOWN),
        (("replay", str(uuid4()), "--delivery", "1"), UNKNOWN),
    ],
)
def test_failure_is_reported_in_one_sentence(data: DataFolder, arguments: tuple[str, ...], said: str) -> None:
    outcome = webhooks(data, *arguments)
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    [line] = outcome.stderr.splitlines()
    assert line.startswith(said)


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", URL, "--type", "image.lost"),
        ("show", "x"),
        ("change", str(uuid4())),
        ("change", str(uuid4()), "--all-types", "--type", "image.done"),
        ("replay", str(uuid4())),
        ("replay", str(uuid4()), "--delivery", "1", "--since", "2026-01-01"),
        ("replay", str(uuid4()), "--delivery", "0"),
    ],
)
def test_arguments_that_make_no_sense_are_usage_errors(data: DataFolder, arguments: tuple[str, ...]) -> None:
    outcome = webhooks(data, *arguments)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert "Usage: " in outcome.stderr
