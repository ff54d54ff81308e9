"""The commands for operators, on the data of a service."""

import asyncio
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

import aio_pika
import pytest
from sqlalchemy import update
from typer.testing import CliRunner
from typer.testing import Result as Outcome

from harness.broker import start
from harness.logs import logging_kept
from harness.processes import free_port, wait_until
from harness.service import PROGRAM
from harness.service_harness import GRACE, ServiceHarness
from image_service.cli import app
from image_service.config import Settings
from image_service.database.scheduling import UnfinishedImage
from image_service.domain.keys import original_key, thumbnail_key
from image_service.domain.lane import Lane
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.domain.status import Status
from image_service.models import ImageRow
from image_service.ports import Delivery
from image_service.queue.rabbitmq import RabbitMQQueue

Result = TypeVar("Result")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    with logging_kept():
        yield


class DataFolder:
    """The data folder of a standalone service that does not run."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder = folder
        folder.mkdir()
        shutil.copyfile(template, folder / "images.db")

    def run(self, scenario: Callable[[ServiceHarness], Awaitable[Result]]) -> Result:
        async def in_harness() -> Result:
            url = f"sqlite+aiosqlite:///{self.folder / 'images.db'}"
            async with ServiceHarness.on(url, self.folder / "storage") as env:
                return await scenario(env)

        return asyncio.run(in_harness())

    def path(self, key: str) -> Path:
        return self.folder / "storage" / key

    def status(self, image_id: UUID) -> Status:
        return self.run(lambda env: env.status(image_id))


@pytest.fixture
def data(tmp_path: Path, sqlite_template: Path) -> DataFolder:
    return DataFolder(tmp_path / "data", sqlite_template)


def run(*arguments: str | Path, **environment: str) -> Outcome:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def lines(outcome: Outcome) -> list[str]:
    return outcome.stdout.splitlines()


async def finished(env: ServiceHarness) -> UUID:
    image_id = await env.queued()
    await env.processing().process(Delivery(image_id=image_id))
    return image_id


async def failed(env: ServiceHarness) -> UUID:
    claim = await env.claimed()
    await env.fail(claim)
    return claim.image_id


async def outdated(env: ServiceHarness) -> UUID:
    image_id = await finished(env)
    statement = update(ImageRow).where(ImageRow.id == image_id).values(recipe="another")
    await env.ask(lambda r: r.connection.execute(statement))
    return image_id


def test_check_of_consistent_data_finds_nothing(data: DataFolder) -> None:
    data.run(finished)
    outcome = run("check", "--data", data.folder)
    assert (outcome.exit_code, outcome.stdout) == (0, "Nothing is wrong.\n")


def test_check_lists_findings_and_changes_nothing(data: DataFolder) -> None:
    lost, changed = data.run(finished), data.run(finished)
    orphan = original_key(uuid4())
    data.run(lambda env: env.put(orphan, age=GRACE * 2))
    data.path(thumbnail_key(lost, 1, "100x100")).unlink()
    data.path(original_key(changed)).write_bytes(b"another")
    outcome = run("check", "--data", data.folder)
    assert outcome.exit_code == 3
    *findings, summary = lines(outcome)
    assert sorted(finding.split()[:2] for finding in findings) == [
        ["mismatched", original_key(changed)],
        ["missing", thumbnail_key(lost, 1, "100x100")],
        ["orphaned", orphan],
    ]
    assert summary == "1 mismatched, 1 missing, 1 orphaned."
    assert data.path(orphan).exists()
    assert data.status(lost) is Status.DONE


def test_quick_check_reads_no_contents(data: DataFolder) -> None:
    image_id = data.run(finished)
    data.path(original_key(image_id)).write_bytes(b"another")
    assert run("check", "--quick", "--data", data.folder).exit_code == 0
    data.path(original_key(image_id)).unlink()
    assert run("check", "--quick", "--data", data.folder).exit_code == 3


def test_repair_fixes_what_it_can_and_lists_the_rest(data: DataFolder) -> None:
    renewable, lost = data.run(finished), data.run(finished)
    orphan = original_key(uuid4())
    data.run(lambda env: env.put(orphan, age=GRACE * 2))
    data.path(thumbnail_key(renewable, 1, "300x300")).unlink()
    data.path(original_key(lost)).unlink()
    outcome = run("check", "--repair", "--data", data.folder)
    assert outcome.exit_code == 3
    assert lines(outcome)[-1] == "2 missing, 1 orphaned; 2 repaired."
    assert "restore the file from a backup, or delete the image" in outcome.stdout
    assert not data.path(orphan).exists()
    assert data.status(renewable) is Status.NEW
    assert data.status(lost) is Status.DONE
    data.path(original_key(lost)).write_bytes(b"IMAGE")
    assert run("check", "--repair", "--data", data.folder).exit_code == 0


def test_check_during_database_outage_explains_the_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql+asyncpg://app@127.0.0.1:{free_port()}/images")
    outcome = run("check", "--data", tmp_path)
    assert outcome.exit_code == 1
    assert outcome.stdout == ""
    assert outcome.stderr.splitlines()[-1].startswith("image-service: The database cannot be reached.")
    assert "ECONNREFUSED" in outcome.stderr.splitlines()[-1], "an operator gets the cause"


def test_missing_folder_is_not_created(tmp_path: Path) -> None:
    outcome = run("check", "--data", tmp_path / "nowhere")
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    assert "does not exist" in outcome.stderr
    assert not (tmp_path / "nowhere").exists()


def test_requeue_of_images_in_every_state(data: DataFolder) -> None:
    done, broken, waiting = data.run(finished), data.run(failed), data.run(ServiceHarness.queued)
    held = data.run(ServiceHarness.claimed).image_id
    unknown = uuid4()
    outcome = run("requeue", *map(str, (done, broken, waiting, held, unknown)), "--data", data.folder)
    assert outcome.exit_code == 0
    assert lines(outcome) == [
        f"{done}  will be reprocessed",
        f"{broken}  will be reprocessed",
        f"{waiting}  will be queued again within seconds",
        f"{held}  unchanged: a worker is processing it, or it waits for its next attempt",
        f"{unknown}  there is no such image",
    ]
    assert [data.status(image_id) for image_id in (done, broken)] == [Status.NEW] * 2
    assert {waiting, done, broken} <= {image.id for image in data.run(_due)}


async def _due(env: ServiceHarness) -> Sequence[UnfinishedImage]:
    return await env.ask(lambda r: r.scheduling.due(limit=10))


def test_requeue_of_an_image_without_original_is_refused(data: DataFolder) -> None:
    image_id = data.run(finished)
    data.run(lambda env: env.ask(lambda r: r.images.remove_originals([image_id])))
    outcome = run("requeue", str(image_id), "--data", data.folder)
    assert lines(outcome) == [f"{image_id}  cannot be reprocessed: its original was removed"]


def test_requeue_of_failed_images_by_code(data: DataFolder) -> None:
    broken = [data.run(failed) for _ in range(3)]
    done = data.run(finished)
    assert lines(run("requeue", "--code", "decoder-timeout", "--data", data.folder)) == [
        "0 images will be reprocessed."
    ]
    assert lines(run("requeue", "--failed", "--data", data.folder)) == ["3 images will be reprocessed."]
    assert {data.status(image_id) for image_id in broken} == {Status.NEW}
    assert data.status(done) is Status.DONE


@pytest.mark.parametrize("arguments", [(), (str(uuid4()), "--failed")], ids=["nothing", "both"])
def test_requeue_requires_either_ids_or_failed(arguments: tuple[str, ...], data: DataFolder) -> None:
    outcome = run("requeue", *arguments, "--data", data.folder)
    assert outcome.exit_code == 2
    assert "Give image ids, or --failed" in outcome.stderr


def test_backfill_without_outdated_images_ends_at_once(data: DataFolder) -> None:
    data.run(finished)
    outcome = run("backfill", "--data", data.folder)
    assert (outcome.exit_code, outcome.stdout) == (0, "Finished: 0 images were rendered again.\n")


def test_backfill_ends_when_workers_have_rendered_all_images(data: DataFolder) -> None:
    images = [data.run(outdated) for _ in range(3)]
    lanes: list[Lane] = []

    async def work(env: ServiceHarness) -> None:
        await env.reconciler().run_once()
        for delivery in env.queue.published:
            lanes.append(delivery.lane)
            await env.processing().process(delivery)

    def process_until_ended() -> bool:
        """Processes the due images, as a worker does; returns whether the backfill has ended."""
        data.run(work)
        return backfill.poll() is not None

    command = (*PROGRAM, "backfill", "--window", "2", "--data", data.folder)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as backfill:  # noqa: S603  (our own program)
        try:
            assert wait_until(process_until_ended, timeout=30, interval=0.1)
        finally:
            backfill.kill()
        said, _ = backfill.communicate()
    assert said.splitlines()[-1] == "Finished: 3 images were rendered again."
    assert backfill.returncode == 0
    assert lanes == [Lane.BACKFILL] * 3
    recipes = {data.run(lambda env: env.row(image_id))["recipe"] for image_id in images}  # noqa: B023  (used at once)
    assert recipes == {DEFAULT_RECIPE.fingerprint}


def test_dead_letters_require_a_broker() -> None:
    for command in ("list", "retry"):
        outcome = run("dead-letters", command, RABBITMQ_URL="embedded://")
        assert outcome.exit_code == 1
        assert outcome.stderr == "image-service: The standalone service has no broker, and so no dead letters.\n"


def test_dead_letters_during_broker_outage_explain_the_failure() -> None:
    outcome = run("dead-letters", "list", RABBITMQ_URL=f"amqp://guest:guest@127.0.0.1:{free_port()}/")
    assert outcome.exit_code == 1
    assert outcome.stderr.splitlines()[-1].startswith("image-service: The broker cannot be asked for its dead letters")


async def _dead(url: str, *bodies: bytes) -> None:
    """Publishes messages to the dead-letter queue of a broker."""
    queue = RabbitMQQueue(url)
    await start(queue)
    await queue.close()
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for body in bodies:
            await channel.default_exchange.publish(aio_pika.Message(body), "images.dead", mandatory=True)


async def _depth(url: str) -> int:
    queue = RabbitMQQueue(url)
    await start(queue)
    try:
        return sum((await queue.depth()).values())
    finally:
        await queue.close()


def test_dead_letters_are_listed_and_retried(
    rabbitmq_virtual_host: str, postgres_database_url: str, tmp_path: Path
) -> None:
    environment = {
        "DATABASE_URL": postgres_database_url,
        "RABBITMQ_URL": rabbitmq_virtual_host,
        "STORAGE_PATH": str(tmp_path / "storage"),
    }

    async def prepare() -> UUID:
        async with ServiceHarness.on(postgres_database_url, tmp_path / "storage") as env:
            return await finished(env)

    image_id, gone = asyncio.run(prepare()), uuid4()
    bodies = [b'{"v":1,"image_id":"%s"}' % str(each).encode() for each in (image_id, gone)]
    asyncio.run(_dead(rabbitmq_virtual_host, *bodies, b"nonsense"))

    listed = run("dead-letters", "list", **environment)
    assert listed.exit_code == 0, listed.output
    said = "\n".join(lines(listed))
    assert f"{image_id}  DONE" in said
    assert f"{gone}  deleted" in said
    assert "names no image: b'nonsense'" in said
    assert lines(listed)[-1] == "3 dead letters."

    retried = run("dead-letters", "retry", "--discard-unreadable", **environment)
    assert lines(retried) == ["2 queued again, 1 name no image.", "1 of these deleted."]
    assert asyncio.run(_depth(rabbitmq_virtual_host)) == 2
    assert lines(run("dead-letters", "list", **environment)) == ["0 dead letters."]
