"""The judge itself: a little world in which all is well, and for each promise the smallest thing that breaks it."""

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import rmtree
from subprocess import PIPE
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import pytest
from sqlalchemy import Executable, delete, insert, update
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from harness.images import encoded, gradient
from harness.service import Api
from image_service.models import ImageRow, RemovalRow, ThumbnailRow
from tests.faults.checker import Evidence, Running, violations, violations_without_workers
from tests.faults.evidence import DECODER, World, look
from tests.faults.history import Exchange, Fault, Garbage, History, Operation, Picture, Seen, Sent
from tests.faults.rules import PRESETS, RULES

SERVER = "api-1"
BEGAN = time.time() - 100
CONTENT = encoded(gradient(640, 480), "JPEG")
OTHER = encoded(gradient(640, 480), "PNG")


class Little:
    """A world of a few images, and the ways to break it."""

    def __init__(self, engine: AsyncEngine, url: str, folder: Path) -> None:
        self._engine = engine
        self.url = url
        self.storage = folder / "storage"
        self.storage.mkdir()
        self.history = History(folder / "history.jsonl")
        self._clock = BEGAN
        self.done = self.corrupt = self.poison = self.deleted = ""

    async def settle(self) -> None:
        """One image of each kind, each with a history."""
        self.done = await self.image(CONTENT, Picture.VALID, key="key-of-done")
        await self.recorded(self.done, status="DONE")
        self.corrupt = await self.image(b"corrupt", Picture.CORRUPT)
        await self.recorded(self.corrupt, status="ERROR", error_code="corrupt-image", error_detail="It is.")
        self.poison = await self.image(b"poison", Picture.POISON)
        await self.recorded(self.poison, status="ERROR", error_code="decoder-timeout", error_detail="It is.")
        self.deleted = await self.image(OTHER, Picture.VALID)
        await self.execute(delete(ThumbnailRow).where(ThumbnailRow.image_id == _uuid(self.deleted)))
        await self.execute(delete(ImageRow).where(ImageRow.id == _uuid(self.deleted)))
        for path in self.files(self.deleted):
            path.unlink()
        self.asked(Operation.DELETE, self.deleted, status_code=204)
        self.asked(Operation.STATUS, self.deleted, status_code=404, code="image-not-found", problem=True)

    async def image(self, content: bytes, picture: Picture, key: str | None = None) -> str:
        """An image that was uploaded and stored, and processed if it is valid."""
        image_id = str(uuid4())
        self.asked(Operation.UPLOAD, image_id, status_code=202, sent=Sent.of(content, picture, key))
        self.put(f"originals/{image_id[-2:]}/{image_id}", content)
        now = datetime.now(UTC)
        row = {
            "id": _uuid(image_id),
            "status": "NEW",
            "format": "jpeg",
            "width": 640,
            "height": 480,
            "size_bytes": len(content),
            "sha256": Sent.of(content).sha256,
            "due_at": now,
            "created_at": now,
            "updated_at": now,
        }
        await self.execute(insert(ImageRow).values(row))
        if picture is Picture.VALID:
            await self.thumbnails(image_id, content)
        return image_id

    async def thumbnails(self, image_id: str, content: bytes) -> None:
        for preset, box in PRESETS.items():
            picture = gradient(640, 480)
            picture.thumbnail(box)
            made = encoded(picture, "JPEG")
            key = f"thumbnails/{image_id[-2:]}/{image_id}.1.{preset}"
            self.put(key, made)
            row: dict[str, Any] = {
                "image_id": _uuid(image_id),
                "preset": preset,
                "key": key,
                "content_type": "image/jpeg",
                "width": picture.width,
                "height": picture.height,
                "size_bytes": len(made),
                "sha256": Sent.of(made).sha256,
            }
            await self.execute(insert(ThumbnailRow).values(row))
            self.asked(Operation.THUMBNAIL, image_id, status_code=200, seen=Seen(preset=preset, sha256=row["sha256"]))
        self.asked(Operation.ORIGINAL, image_id, status_code=200, seen=Seen(sha256=Sent.of(content).sha256))

    async def recorded(self, image_id: str, **values: Any) -> None:  # noqa: ANN401  (columns' own values)
        """Finish an image, and have somebody see it so."""
        await self.change(image_id, due_at=None, finished_at=datetime.fromtimestamp(BEGAN, UTC), **values)
        self.saw(image_id, str(values["status"]), code=values.get("error_code"))

    def saw(self, image_id: str, state: str, *, code: str | None = None, finished: float | None = BEGAN) -> None:
        """A read of an image's status."""
        at = None if finished is None else datetime.fromtimestamp(finished, UTC).isoformat().replace("+00:00", "Z")
        self.asked(Operation.STATUS, image_id, status_code=200, seen=Seen(state=state, finished_at=at, code=code))

    def asked(self, operation: Operation, image_id: str | None = None, **answer: Any) -> Exchange:  # noqa: ANN401  (an exchange's own fields)
        """A request and its answer, a second after the one before."""
        self._clock += 1
        times = {"began": self._clock, "ended": self._clock + 0.1, "waited": 0.1}
        exchange = Exchange(**{"operation": operation, "server": SERVER, "image_id": image_id, **times, **answer})
        self.history.append(exchange)
        return exchange

    async def change(self, image_id: str, **values: object) -> None:
        await self.execute(update(ImageRow).where(ImageRow.id == _uuid(image_id)).values(**values))

    async def execute(self, statement: Executable) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(statement)

    def put(self, path: str, content: bytes = b"x") -> None:
        (self.storage / path).parent.mkdir(parents=True, exist_ok=True)
        (self.storage / path).write_bytes(content)

    def files(self, image_id: str) -> list[Path]:
        return [path for path in self.storage.rglob(f"{image_id}*") if path.is_file()]

    def original(self, image_id: str) -> Path:
        return next(path for path in self.files(image_id) if path.name == image_id)

    def thumbnail(self, preset: str) -> Path:
        return next(path for path in self.files(self.done) if path.name.endswith(preset))

    @property
    def evidence(self) -> Evidence:
        return Evidence(history=self.history, database_url=self.url, storage=self.storage, grace=0)

    async def broken(self) -> set[str]:
        """The promises that are found to be broken."""
        return {violation.invariant for violation in await violations(self.evidence)}


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[Little]:
    engine = create_async_engine(database_url)
    world = Little(engine, database_url, tmp_path)
    await world.settle()
    yield world
    world.history.close()
    await engine.dispose()


async def test_all_is_well(world: Little) -> None:
    assert await violations(world.evidence) == []


async def lost_row(world: Little) -> None:
    await world.execute(delete(ThumbnailRow).where(ThumbnailRow.image_id == _uuid(world.done)))
    await world.execute(delete(ImageRow).where(ImageRow.id == _uuid(world.done)))


async def stuck(world: Little) -> None:
    await world.change(world.done, status="PROCESSING", due_at=datetime.now(UTC))


async def denied(world: Little) -> None:
    world.asked(Operation.STATUS, world.done, status_code=404, code="image-not-found", problem=True)


async def never_sent(world: Little) -> None:
    image_id = await world.image(b"unknown", Picture.CORRUPT)
    await world.recorded(image_id, status="ERROR", error_code="corrupt-image")
    uploads = [each for each in world.history.of(Operation.UPLOAD) if each.image_id == image_id]
    world.history.exchanges = [each for each in world.history.exchanges if each not in uploads]


async def refused_and_kept(world: Little) -> None:
    image_id = await world.image(OTHER + b"refused", Picture.CORRUPT)
    await world.recorded(image_id, status="ERROR", error_code="corrupt-image")
    world.history.exchanges = [
        replace(each, status_code=422, code="corrupt-image", problem=True, image_id=None)
        if each.operation is Operation.UPLOAD and each.image_id == image_id
        else each
        for each in world.history.exchanges
    ]


async def two_answers_to_a_key(world: Little) -> None:
    world.asked(
        Operation.UPLOAD, world.poison, status_code=202, sent=Sent.of(b"poison", Picture.POISON, key="key-of-done")
    )


async def two_rows_of_a_key(world: Little) -> None:
    world.asked(Operation.UPLOAD, error="gone", sent=Sent.of(CONTENT, key="key-of-done"))
    world.history.append(Fault(kind="kill-api", subject=SERVER, began=BEGAN, ended=BEGAN + 99))
    twin = await world.image(CONTENT, Picture.VALID)
    world.history.exchanges = [
        each for each in world.history.exchanges if each.operation is not Operation.UPLOAD or each.image_id != twin
    ]
    await world.recorded(twin, status="DONE")


async def other_original(world: Little) -> None:
    content = OTHER + b"changed"
    world.original(world.done).write_bytes(content)
    await world.change(world.done, sha256=Sent.of(content).sha256, size_bytes=len(content))


async def damaged_original(world: Little) -> None:
    world.original(world.done).write_bytes(CONTENT[:-1])


async def lost_original(world: Little) -> None:
    world.original(world.corrupt).unlink()


async def lost_thumbnail(world: Little) -> None:
    world.thumbnail("300x300").unlink()


async def damaged_thumbnail(world: Little) -> None:
    path = world.thumbnail("300x300")
    path.write_bytes(path.read_bytes()[:-30] + bytes(30))


async def missing_preset(world: Little) -> None:
    path = world.thumbnail("1200x1200")
    path.unlink()
    await world.execute(delete(ThumbnailRow).where(ThumbnailRow.key == path.relative_to(world.storage).as_posix()))


async def wrong_size(world: Little) -> None:
    content = encoded(gradient(100, 100), "JPEG")
    path = world.thumbnail("100x100")
    path.write_bytes(content)
    values = {"width": 100, "height": 100, "size_bytes": len(content), "sha256": Sent.of(content).sha256}
    key = path.relative_to(world.storage).as_posix()
    await world.execute(update(ThumbnailRow).where(ThumbnailRow.key == key).values(**values))


async def no_picture(world: Little) -> None:
    path = world.thumbnail("100x100")
    path.write_bytes(b"text")
    key = path.relative_to(world.storage).as_posix()
    values = {"size_bytes": 4, "sha256": Sent.of(b"text").sha256}
    await world.execute(update(ThumbnailRow).where(ThumbnailRow.key == key).values(**values))


async def wrong_original_served(world: Little) -> None:
    world.asked(Operation.ORIGINAL, world.done, status_code=200, seen=Seen(sha256=Sent.of(OTHER).sha256))


async def wrong_thumbnail_served(world: Little) -> None:
    seen = Seen(preset="100x100", sha256=Sent.of(OTHER).sha256)
    world.asked(Operation.THUMBNAIL, world.done, status_code=200, seen=seen)


async def orphaned_original(world: Little) -> None:
    image_id = str(uuid4())
    world.put(f"originals/{image_id[-2:]}/{image_id}")


async def orphaned_thumbnail(world: Little) -> None:
    world.put(f"thumbnails/{world.done[-2:]}/{world.done}.2.100x100")


async def overdue_removal(world: Little) -> None:
    world.put("thumbnails/00/replaced")
    past = datetime.now(UTC) - timedelta(seconds=1)
    await world.execute(insert(RemovalRow).values(key="thumbnails/00/replaced", due_at=past))


async def scratch_left(world: Little) -> None:
    world.put("scratch/0123/original")


async def changed_back(world: Little) -> None:
    world.saw(world.done, "PROCESSING", finished=None)


async def changed_verdict(world: Little) -> None:
    await world.change(world.corrupt, error_code="attempts-exhausted")


async def done_twice(world: Little) -> None:
    await world.change(world.done, finished_at=datetime.fromtimestamp(BEGAN + 50, UTC))


async def valid_in_error(world: Little) -> None:
    image_id = await world.image(CONTENT + b"valid", Picture.VALID)
    await world.recorded(image_id, status="ERROR", error_code="decoder-crashed")


async def valid_refused(world: Little) -> None:
    world.asked(Operation.UPLOAD, status_code=422, code="corrupt-image", problem=True, sent=Sent.of(CONTENT))


async def corrupt_done(world: Little) -> None:
    image_id = await world.image(CONTENT + b"corrupt", Picture.CORRUPT)
    await world.thumbnails(image_id, CONTENT + b"corrupt")
    await world.recorded(image_id, status="DONE")


async def corrupt_for_the_wrong_reason(world: Little) -> None:
    image_id = await world.image(b"also corrupt", Picture.CORRUPT)
    await world.recorded(image_id, status="ERROR", error_code="decoder-timeout")


async def poison_done(world: Little) -> None:
    image_id = await world.image(CONTENT + b"poison", Picture.POISON)
    await world.thumbnails(image_id, CONTENT + b"poison")
    await world.recorded(image_id, status="DONE")


async def poison_for_the_wrong_reason(world: Little) -> None:
    image_id = await world.image(b"also poison", Picture.POISON)
    await world.recorded(image_id, status="ERROR", error_code="decoder-crashed")


async def deleted_and_there(world: Little) -> None:
    world.asked(Operation.DELETE, world.done, status_code=204)


async def deleted_and_stored(world: Little) -> None:
    world.put(f"originals/{world.deleted[-2:]}/{world.deleted}")


async def deleted_and_seen(world: Little) -> None:
    world.saw(world.deleted, "DONE")


async def late_answer(world: Little) -> None:
    world.asked(Operation.STATUS, world.done, status_code=503, code="database-unavailable", problem=True, waited=7.0)


async def no_answer(world: Little) -> None:
    world.asked(Operation.STATUS, world.done, error="connection reset")


async def internal_error(world: Little) -> None:
    world.asked(Operation.STATUS, world.done, status_code=500, code="internal-error", problem=True)


async def no_problem_document(world: Little) -> None:
    world.asked(Operation.STATUS, world.done, status_code=503)


async def held(world: Little) -> None:
    await world.change(world.done, lease_until=datetime.now(UTC))


BREAKS: list[tuple[str, Callable[[Little], Awaitable[None]]]] = [
    ("accepted-image-ends", lost_row),
    ("accepted-image-ends", stuck),
    ("accepted-image-is-known", denied),
    ("no-image-from-nothing", never_sent),
    ("no-image-from-nothing", refused_and_kept),
    ("one-key-one-image", two_answers_to_a_key),
    ("one-key-one-image", two_rows_of_a_key),
    ("original-is-what-was-sent", other_original),
    ("original-is-what-was-sent", damaged_original),
    ("original-is-what-was-sent", lost_original),
    ("done-is-complete", lost_thumbnail),
    ("done-is-complete", damaged_thumbnail),
    ("done-is-complete", missing_preset),
    ("done-is-complete", wrong_size),
    ("done-is-complete", no_picture),
    ("download-is-right", wrong_original_served),
    ("download-is-right", wrong_thumbnail_served),
    ("no-orphan-file", orphaned_original),
    ("no-orphan-file", orphaned_thumbnail),
    ("no-orphan-file", overdue_removal),
    ("no-scratch-left", scratch_left),
    ("terminal-stays", changed_back),
    ("terminal-stays", changed_verdict),
    ("terminal-stays", done_twice),
    ("valid-image-is-done", valid_in_error),
    ("valid-image-is-done", valid_refused),
    ("corrupt-image-ends-error", corrupt_done),
    ("corrupt-image-ends-error", corrupt_for_the_wrong_reason),
    ("poison-image-ends-error", poison_done),
    ("poison-image-ends-error", poison_for_the_wrong_reason),
    ("deleted-stays-deleted", deleted_and_there),
    ("deleted-stays-deleted", deleted_and_stored),
    ("deleted-stays-deleted", deleted_and_seen),
    ("answer-in-time", late_answer),
    ("answer-is-clean", no_answer),
    ("answer-is-clean", internal_error),
    ("answer-is-clean", no_problem_document),
    ("leases-return-to-zero", held),
]
ELSEWHERE = {
    "served-is-stored",
    "queues-return-to-zero",
    "dead-letters-are-garbage",
    "decoders-return-to-zero",
}
"""Those that need a server or a process have tests of their own below."""


@pytest.mark.parametrize(("invariant", "corruption"), BREAKS, ids=[corruption.__name__ for _, corruption in BREAKS])
async def test_it_is_noticed(world: Little, invariant: str, corruption: Callable[[Little], Awaitable[None]]) -> None:
    await corruption(world)
    assert invariant in await world.broken()


def test_every_promise_is_broken_once() -> None:
    assert {invariant for invariant, _ in BREAKS} | ELSEWHERE == RULES.keys()


async def test_the_service_may_take_its_time_to_come_to_rest(world: Little, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("scratch/0123/original")

    async def look_and_mend(evidence: Evidence) -> World:
        seen = await look(evidence)
        rmtree(world.storage / "scratch/0123", ignore_errors=True)
        return seen

    monkeypatch.setattr("tests.faults.checker.look", look_and_mend)
    assert await violations(replace(world.evidence, grace=30)) == []


async def test_what_was_replaced_may_stay_for_its_readers(world: Little) -> None:
    world.put("thumbnails/00/replaced")
    future = datetime.now(UTC) + timedelta(minutes=1)
    await world.execute(insert(RemovalRow).values(key="thumbnails/00/replaced", due_at=future))
    assert await world.broken() == set()


async def test_another_rendering_may_change_a_state_if_somebody_asked_for_it(world: Little) -> None:
    world.asked(Operation.REPROCESS, world.done, status_code=202)
    world.saw(world.done, "PROCESSING", finished=None)
    world.saw(world.done, "DONE", finished=BEGAN + 60)
    await world.change(world.done, finished_at=datetime.fromtimestamp(BEGAN + 60, UTC))
    assert await world.broken() == set()


async def test_an_upload_in_doubt_may_have_become_an_image_or_not(world: Little) -> None:
    down = Fault(kind="kill-api", subject=SERVER, began=BEGAN, ended=BEGAN + 99)
    world.history.append(down)
    image_id = await world.image(CONTENT + b"in doubt", Picture.VALID)
    await world.recorded(image_id, status="DONE")
    world.history.exchanges = [
        replace(each, status_code=None, image_id=None, error="gone")
        if each.operation is Operation.UPLOAD and each.image_id == image_id
        else each
        for each in world.history.exchanges
    ]
    world.asked(Operation.UPLOAD, error="gone", sent=Sent.of(CONTENT + b"lost"))
    assert await world.broken() == set()


async def test_a_process_that_was_killed_owes_no_answer(world: Little) -> None:
    each = world.asked(Operation.STATUS, world.done, error="connection reset", waited=9.0)
    assert await world.broken() == {"answer-in-time", "answer-is-clean"}
    world.history.append(Fault(kind="kill-api", subject=SERVER, began=each.began, ended=each.began))
    assert await world.broken() == set()


async def test_a_deletion_may_have_to_be_repeated(world: Little) -> None:
    image_id = await world.image(CONTENT + b"deleted", Picture.VALID)
    world.asked(Operation.DELETE, image_id, status_code=503, code="database-unavailable", problem=True)
    world.asked(Operation.DELETE, image_id, status_code=404, code="image-not-found", problem=True)
    assert "deleted-stays-deleted" in await world.broken()
    await world.execute(delete(ThumbnailRow).where(ThumbnailRow.image_id == _uuid(image_id)))
    await world.execute(delete(ImageRow).where(ImageRow.id == _uuid(image_id)))
    for path in world.files(image_id):
        path.unlink()
    assert await world.broken() == set()


async def test_the_story_tells_all_that_is_known(world: Little, tmp_path: Path) -> None:
    log = tmp_path / "worker-1" / "server.log"
    log.parent.mkdir()
    log.write_text(f'{{"event": "image done", "image_id": "{world.done}"}}\n{{"event": "other"}}\n')
    world.history.append(Fault(kind="kill-worker", subject="worker-1", began=BEGAN, ended=BEGAN + 1))
    world.thumbnail("100x100").unlink()
    running = Running(name="worker-1", pid=0, log=log)
    (violation,) = await violations(replace(world.evidence, processes=[running]))
    assert violation.subject == world.done
    for known in ("kill-worker", "upload at api-1: 202", "key-of-done", "'status': 'DONE'", "300x300", "image done"):
        assert known in violation.story
    assert "other" not in violation.story


def test_a_history_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    before = History(path)
    sent = Sent.of(CONTENT, Picture.VALID, key="key")
    times: dict[str, Any] = {"began": 1.0, "ended": 2.0, "waited": 0.5}
    before.append(Exchange(operation=Operation.UPLOAD, server=SERVER, status_code=202, sent=sent, **times))
    before.append(Exchange(operation=Operation.STATUS, server=SERVER, seen=Seen(state="DONE"), **times))
    before.append(Fault(kind="kill-api", subject=SERVER, began=1.0, ended=2.0))
    before.append(Garbage(body="\0"))
    before.close()
    after = History(path)
    after.close()
    assert (after.exchanges, after.faults, after.garbage) == (before.exchanges, before.faults, before.garbage)


async def test_what_is_served_is_compared_with_what_is_stored(world: Little, tmp_path: Path) -> None:
    env = {
        "DATABASE_URL": world.url,
        "STORAGE_PATH": str(world.storage),
        "RABBITMQ_URL": "amqp://127.0.0.1:1/",
        "LIVENESS_FILE": str(tmp_path / "alive"),
    }
    with Api(tmp_path, env) as api:
        evidence = replace(world.evidence, api_url=api.url)
        assert await violations(evidence) == []
        world.thumbnail("100x100").write_bytes(world.thumbnail("300x300").read_bytes())
        world.original(world.corrupt).write_bytes(b"CORRUPT")
        wrong = [each.subject for each in await violations(evidence) if each.invariant == "served-is-stored"]
    assert sorted(wrong) == sorted([world.done, world.corrupt])


@pytest.fixture
async def queue(rabbitmq_url: str) -> AsyncIterator["Queue"]:
    async with await aio_pika.connect(rabbitmq_url) as connection:
        queue = Queue(rabbitmq_url, f"test-{uuid4().hex}", await connection.channel())
        for suffix in ("", ".dead"):
            await queue.channel.declare_queue(queue.name + suffix, durable=True)
        yield queue
        for suffix in ("", ".dead"):
            await queue.channel.queue_delete(queue.name + suffix)


class Queue:
    """The queues of a service of this test's own."""

    def __init__(self, url: str, name: str, channel: aio_pika.abc.AbstractChannel) -> None:
        self.url = url
        self.name = name
        self.channel = channel

    async def put(self, body: str, suffix: str = "") -> None:
        await self.channel.default_exchange.publish(aio_pika.Message(body.encode()), self.name + suffix)


async def test_messages_that_wait_are_noticed(world: Little, queue: Queue) -> None:
    evidence = replace(world.evidence, rabbitmq_url=queue.url, queue=queue.name)
    assert await violations(evidence) == []
    await queue.put("{}")
    for found in (await violations(evidence), await violations_without_workers(evidence)):
        assert [violation.invariant for violation in found] == ["queues-return-to-zero"]


async def test_dead_letters_are_noticed_unless_they_are_garbage(world: Little, queue: Queue) -> None:
    evidence = replace(world.evidence, rabbitmq_url=queue.url, queue=queue.name)
    world.history.append(Garbage(body="garbage"))
    await queue.put("garbage", ".dead")
    assert await violations(evidence) == []
    await queue.put(f'{{"v":1,"image_id":"{world.done}"}}', ".dead")
    (violation,) = await violations(evidence)
    assert (violation.invariant, violation.subject) == ("dead-letters-are-garbage", world.done)


@contextmanager
def decoder(folder: Path, program: str) -> Iterator[None]:
    """A process that looks like one of a worker's decoders."""
    command = [sys.executable, "-c", program, DECODER]
    with subprocess.Popen(command, cwd=folder, stdin=PIPE, stdout=PIPE) as process:  # noqa: S603  (our own program)
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("program", "owner", "noticed"),
    [
        ("input()", os.getpid(), False),
        ("while True: pass", os.getpid(), True),
        ("input()", os.getppid(), True),
    ],
    ids=["idle", "busy", "outlived"],
)
async def test_decoders_at_work_on_nothing_are_noticed(
    world: Little, tmp_path: Path, program: str, owner: int, *, noticed: bool
) -> None:
    log = tmp_path / "server.log"
    log.touch()
    evidence = replace(world.evidence, processes=[Running(name="worker-1", pid=owner, log=log)])
    with decoder(tmp_path, f"print(flush=True)\n{program}"):
        found = await violations(evidence)
    assert [violation.invariant for violation in found] == ["decoders-return-to-zero"] * noticed


def _uuid(image_id: str) -> UUID:
    return UUID(image_id)
