"""The commands for operators, on what a service keeps."""

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
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    with logging_kept():
        yield


class Kept:
    """The folder of a standalone service that does not run."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder = folder
        folder.mkdir()
        shutil.copyfile(template, folder / "images.db")

    def play(self, scene: Callable[[ServiceHarness], Awaitable[Result]]) -> Result:
        async def on_stage() -> Result:
            url = f"sqlite+aiosqlite:///{self.folder / 'images.db'}"
            async with ServiceHarness.on(url, self.folder / "storage") as env:
                return await scene(env)

        return asyncio.run(on_stage())

    def path(self, key: str) -> Path:
        return self.folder / "storage" / key

    def status(self, image_id: UUID) -> Status:
        return self.play(lambda env: env.status(image_id))


@pytest.fixture
def kept(tmp_path: Path, sqlite_template: Path) -> Kept:
    return Kept(tmp_path / "data", sqlite_template)


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


def test_a_check_of_a_sound_folder_finds_nothing(kept: Kept) -> None:
    kept.play(finished)
    outcome = run("check", "--data", kept.folder)
    assert (outcome.exit_code, outcome.stdout) == (0, "Nothing is wrong.\n")


def test_a_check_lists_what_is_wrong_and_changes_nothing(kept: Kept) -> None:
    lost, changed = kept.play(finished), kept.play(finished)
    orphan = original_key(uuid4())
    kept.play(lambda env: env.put(orphan, age=GRACE * 2))
    kept.path(thumbnail_key(lost, 1, "100x100")).unlink()
    kept.path(original_key(changed)).write_bytes(b"another")
    outcome = run("check", "--data", kept.folder)
    assert outcome.exit_code == 3
    *findings, summary = lines(outcome)
    assert sorted(finding.split()[:2] for finding in findings) == [
        ["mismatched", original_key(changed)],
        ["missing", thumbnail_key(lost, 1, "100x100")],
        ["orphaned", orphan],
    ]
    assert summary == "1 mismatched, 1 missing, 1 orphaned."
    assert kept.path(orphan).exists()
    assert kept.status(lost) is Status.DONE


def test_a_quick_check_reads_no_contents(kept: Kept) -> None:
    image_id = kept.play(finished)
    kept.path(original_key(image_id)).write_bytes(b"another")
    assert run("check", "--quick", "--data", kept.folder).exit_code == 0
    kept.path(original_key(image_id)).unlink()
    assert run("check", "--quick", "--data", kept.folder).exit_code == 3


def test_a_repair_mends_what_can_be_mended_and_tells_the_rest(kept: Kept) -> None:
    renewable, lost = kept.play(finished), kept.play(finished)
    orphan = original_key(uuid4())
    kept.play(lambda env: env.put(orphan, age=GRACE * 2))
    kept.path(thumbnail_key(renewable, 1, "300x300")).unlink()
    kept.path(original_key(lost)).unlink()
    outcome = run("check", "--repair", "--data", kept.folder)
    assert outcome.exit_code == 3
    assert lines(outcome)[-1] == "2 missing, 1 orphaned; 2 mended."
    assert "restore the file from a backup, or delete the image" in outcome.stdout
    assert not kept.path(orphan).exists()
    assert kept.status(renewable) is Status.NEW
    assert kept.status(lost) is Status.DONE
    kept.path(original_key(lost)).write_bytes(b"IMAGE")
    assert run("check", "--repair", "--data", kept.folder).exit_code == 0


def test_a_check_that_cannot_be_made_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql+asyncpg://app@127.0.0.1:{free_port()}/images")
    outcome = run("check", "--data", tmp_path)
    assert outcome.exit_code == 1
    assert outcome.stdout == ""
    assert outcome.stderr.startswith("image-service: The database cannot be reached.")


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    outcome = run("check", "--data", tmp_path / "nowhere")
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    assert "does not exist" in outcome.stderr
    assert not (tmp_path / "nowhere").exists()


def test_named_images_are_processed_again_whatever_their_state(kept: Kept) -> None:
    done, broken, waiting = kept.play(finished), kept.play(failed), kept.play(ServiceHarness.queued)
    held = kept.play(ServiceHarness.claimed).image_id
    unknown = uuid4()
    outcome = run("requeue", *map(str, (done, broken, waiting, held, unknown)), "--data", kept.folder)
    assert outcome.exit_code == 0
    assert lines(outcome) == [
        f"{done}  is processed again",
        f"{broken}  is processed again",
        f"{waiting}  is queued anew within seconds",
        f"{held}  a worker has it, or it rests before its next attempt",
        f"{unknown}  there is no such image",
    ]
    assert [kept.status(image_id) for image_id in (done, broken)] == [Status.NEW] * 2
    assert {waiting, done, broken} <= {image.id for image in kept.play(_due)}


async def _due(env: ServiceHarness) -> Sequence[UnfinishedImage]:
    return await env.ask(lambda r: r.scheduling.due(limit=10))


def test_an_image_without_an_original_is_not_processed_again(kept: Kept) -> None:
    image_id = kept.play(finished)
    kept.play(lambda env: env.ask(lambda r: r.images.remove_originals([image_id])))
    outcome = run("requeue", str(image_id), "--data", kept.folder)
    assert lines(outcome) == [f"{image_id}  cannot be processed again: its original was removed"]


def test_all_failed_images_are_processed_again_or_those_with_one_code(kept: Kept) -> None:
    broken = [kept.play(failed) for _ in range(3)]
    done = kept.play(finished)
    assert lines(run("requeue", "--code", "decoder-timeout", "--data", kept.folder)) == [
        "0 images are to be processed again."
    ]
    assert lines(run("requeue", "--failed", "--data", kept.folder)) == ["3 images are to be processed again."]
    assert {kept.status(image_id) for image_id in broken} == {Status.NEW}
    assert kept.status(done) is Status.DONE


@pytest.mark.parametrize("arguments", [(), (str(uuid4()), "--failed")], ids=["nothing", "both"])
def test_what_is_to_be_processed_again_has_to_be_said_in_one_way(arguments: tuple[str, ...], kept: Kept) -> None:
    outcome = run("requeue", *arguments, "--data", kept.folder)
    assert outcome.exit_code == 2
    assert "Name images, or say --failed" in outcome.stderr


def test_a_back_fill_without_outdated_images_is_over_at_once(kept: Kept) -> None:
    kept.play(finished)
    outcome = run("backfill", "--data", kept.folder)
    assert (outcome.exit_code, outcome.stdout) == (0, "Finished: 0 images were rendered again.\n")


def test_a_back_fill_ends_when_the_workers_have_done_it(kept: Kept) -> None:
    images = [kept.play(outdated) for _ in range(3)]
    lanes: list[Lane] = []

    async def work(env: ServiceHarness) -> None:
        for image in await env.ask(lambda r: r.scheduling.due(limit=10)):
            lanes.append(image.lane)
            await env.processing().process(Delivery(image_id=image.id))

    def over() -> bool:
        """Do what a worker does, and see whether that was all."""
        kept.play(work)
        return backfill.poll() is not None

    command = (PROGRAM, "backfill", "--window", "2", "--data", kept.folder)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as backfill:  # noqa: S603  (our own program)
        try:
            assert wait_until(over, timeout=30, interval=0.1)
        finally:
            backfill.kill()
        said, _ = backfill.communicate()
    assert said.splitlines()[-1] == "Finished: 3 images were rendered again."
    assert backfill.returncode == 0
    assert lanes == [Lane.BACKFILL] * 3
    recipes = {kept.play(lambda env: env.row(image_id))["recipe"] for image_id in images}  # noqa: B023  (used at once)
    assert recipes == {DEFAULT_RECIPE.fingerprint}


def test_without_a_broker_there_are_no_dead_letters() -> None:
    for command in ("list", "retry"):
        outcome = run("dead-letters", command, RABBITMQ_URL="embedded://")
        assert outcome.exit_code == 1
        assert outcome.stderr == "image-service: The standalone service has no broker, and so no dead letters.\n"


def test_dead_letters_of_a_broker_that_is_away_are_explained() -> None:
    outcome = run("dead-letters", "list", RABBITMQ_URL=f"amqp://guest:guest@127.0.0.1:{free_port()}/")
    assert outcome.exit_code == 1
    assert outcome.stderr.splitlines()[-1].startswith("image-service: The broker cannot be asked for its dead letters")


async def _dead(url: str, *bodies: bytes) -> None:
    """Have messages in the dead-letter queue of a broker."""
    queue = RabbitMQQueue(url)
    await queue.start()
    await queue.depth()
    await queue.close()
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for body in bodies:
            await channel.default_exchange.publish(aio_pika.Message(body), "images.dead", mandatory=True)


async def _depth(url: str) -> int:
    queue = RabbitMQQueue(url)
    await queue.start()
    try:
        return sum((await queue.depth()).values())
    finally:
        await queue.close()


def test_dead_letters_are_listed_and_sent_on_again(
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
    assert lines(retried) == ["2 queued again, 1 name no image.", "1 of these thrown away."]
    assert asyncio.run(_depth(rabbitmq_virtual_host)) == 2
    assert lines(run("dead-letters", "list", **environment)) == ["0 dead letters."]
