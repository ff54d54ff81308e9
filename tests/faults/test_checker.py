"""Tests the checker: a small consistent system, and for each invariant the smallest change that violates it."""

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
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
from PIL import Image, ImageOps
from sqlalchemy import Executable, delete, insert, update
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from harness.images import encoded, gradient
from harness.service import Api
from image_service.models import EventRow, ImageRow, RemovalRow, ThumbnailRow
from tests.faults.checker import Evidence, Running, violations, violations_without_workers
from tests.faults.evidence import DECODER, Row, Snapshot, moment, take_snapshot
from tests.faults.history import Exchange, Fault, Garbage, History, Operation, Picture, Seen, Sent
from tests.faults.recipes import AVATAR, DEFAULT, LATE, outputs_of
from tests.faults.rules import RECOVERY, RULES

SERVER = "api-1"
BEGAN = time.time() - 100
CONTENT = encoded(gradient(640, 480), "JPEG")
UNAVAILABLE: dict[str, Any] = {
    "status_code": 503,
    "code": "database-unavailable",
    "problem": True,
    "retry_after": True,
}
OTHER = encoded(gradient(640, 480), "PNG")
HOW = "r123456789abcdef"
"""The fingerprint of everything that is made here."""


TYPES = {"DONE": "image.done", "ERROR": "image.failed"}
"""Of the event of an end."""


class SmallSystem:
    """A few images with rows, files and history, and methods that change them."""

    def __init__(self, engine: AsyncEngine, url: str, folder: Path) -> None:
        self._engine = engine
        self.url = url
        self.storage = folder / "storage"
        self.storage.mkdir()
        self.history = History(folder / "history.jsonl")
        self._clock = BEGAN
        self.done = self.corrupt = self.poison = self.deleted = self.late = ""

    async def fill(self) -> None:
        """Add one image of each kind, each with a history."""
        self.done = await self.image(CONTENT, Picture.VALID, key="key-of-done")
        await self.recorded(self.done, status="DONE", recipe=HOW)
        self.late = await self.image(CONTENT + b"late", Picture.VALID, recipe=LATE)
        await self.recorded(self.late, status="DONE", recipe=HOW)
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

    async def image(self, content: bytes, picture: Picture, key: str | None = None, recipe: str | None = None) -> str:
        """Add an uploaded and stored image, with thumbnails if it is valid; return its id."""
        image_id = str(uuid4())
        self.asked(Operation.UPLOAD, image_id, status_code=202, sent=Sent.of(content, picture, key, recipe))
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
            "recipe_name": recipe,
            "due_at": now,
            "created_at": now,
            "updated_at": now,
        }
        await self.execute(insert(ImageRow).values(row))
        if picture is Picture.VALID:
            await self.thumbnails(image_id, content, recipe)
        return image_id

    async def thumbnails(self, image_id: str, content: bytes, recipe: str | None = None) -> None:
        for name, expected in outputs_of(recipe).items():
            picture = gradient(640, 480)
            if expected.cover:
                picture = ImageOps.fit(picture, expected.box)
            else:
                picture.thumbnail(expected.box)
            made = encoded(picture, min(expected.formats))
            key = f"thumbnails/{image_id[-2:]}/{image_id}.1.{name}"
            self.put(key, made)
            row: dict[str, Any] = {
                "image_id": _uuid(image_id),
                "output": name,
                "key": key,
                "content_type": "image/jpeg",
                "width": picture.width,
                "height": picture.height,
                "size_bytes": len(made),
                "sha256": Sent.of(made).sha256,
                "fingerprint": HOW,
            }
            await self.execute(insert(ThumbnailRow).values(row))
            self.asked(Operation.THUMBNAIL, image_id, status_code=200, seen=Seen(preset=name, sha256=row["sha256"]))
        self.asked(Operation.ORIGINAL, image_id, status_code=200, seen=Seen(sha256=Sent.of(content).sha256))

    async def recorded(self, image_id: str, **values: Any) -> None:  # noqa: ANN401  (columns' own values)
        """Record an image as finished, and a status read that shows it."""
        await self.change(image_id, due_at=None, finished_at=datetime.fromtimestamp(BEGAN, UTC), **values)
        self.saw(image_id, str(values["status"]), code=values.get("error_code"))

    def saw(self, image_id: str, state: str, *, code: str | None = None, finished: float | None = BEGAN) -> None:
        """Record a read of an image's status."""
        at = None if finished is None else datetime.fromtimestamp(finished, UTC).isoformat().replace("+00:00", "Z")
        self.asked(Operation.STATUS, image_id, status_code=200, seen=Seen(state=state, finished_at=at, code=code))

    def asked(self, operation: Operation, image_id: str | None = None, **answer: Any) -> Exchange:  # noqa: ANN401  (an exchange's own fields)
        """Record a request and its answer, one second after the previous one."""
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

    def thumbnail(self, output: str, of: str | None = None) -> Path:
        return next(path for path in self.files(of or self.done) if path.name.endswith(f".1.{output}"))

    async def replace(self, output: str, content: bytes) -> None:
        """Put other content in the place of an output of the image with late outputs, and record it."""
        path = self.thumbnail(output, self.late)
        path.write_bytes(content)
        with Image.open(path) as picture:
            width, height = picture.size
        values = {"width": width, "height": height, "size_bytes": len(content), "sha256": Sent.of(content).sha256}
        key = path.relative_to(self.storage).as_posix()
        await self.execute(update(ThumbnailRow).where(ThumbnailRow.key == key).values(**values))

    async def lose(self, image_id: str, output: str) -> None:
        """Remove an output with its row."""
        path = self.thumbnail(output, image_id)
        path.unlink()
        await self.execute(delete(ThumbnailRow).where(ThumbnailRow.key == path.relative_to(self.storage).as_posix()))

    @property
    def evidence(self) -> Evidence:
        return Evidence(history=self.history, database_url=self.url, storage=self.storage, grace=0)

    async def violated(self) -> set[str]:
        """Return the names of the violated invariants."""
        return {violation.invariant for violation in await violations(await self.told())}

    async def told(self, **changes: Any) -> Evidence:  # noqa: ANN401  (the evidence's own fields)
        """Record the events of all that was uploaded, seen and recorded; return the evidence, changed."""
        snapshot = await take_snapshot(self.evidence)
        uploads = {each.image_id: each.sent for each in self.history.of(Operation.UPLOAD) if each.image_id}
        await self.execute(delete(EventRow))
        for image_id in {**uploads, **snapshot.images}:
            row, sent = snapshot.images.get(image_id), uploads.get(image_id)
            shown: dict[str, Any] = {"client_metadata": None, "webhook_id": None, "thumbnails": []}
            shown["sha256"] = sent.sha256 if sent else snapshot.images[image_id]["sha256"]
            await self._tell(image_id, "image.accepted", {**shown, "status": "NEW"})
            ends: list[tuple[Any, Any]] = [*self._ends(image_id)]
            if row is not None:
                ends.append((row["status"], row["finished_at"]))
                shown |= {"sha256": row["sha256"], "thumbnails": _shown(snapshot.thumbnails[image_id])}
            known = dict.fromkeys((state, moment(finished)) for state, finished in ends if state in TYPES)
            for number, (state, finished) in enumerate(known):
                end = {**shown, "status": state, "finished_at": finished.isoformat() if finished else None}
                if number:
                    await self._tell(image_id, "image.reprocessing", {**shown, "status": "NEW"})
                await self._tell(image_id, TYPES[state], end)
                if row is not None and row["recipe_name"] == LATE and state == "DONE":
                    await self._tell(image_id, "image.output", end)
            if row is None:
                await self._tell(image_id, "image.deleted", {**shown, "status": "DONE"})
        return replace(self.evidence, **changes)

    def _ends(self, image_id: str) -> Iterator[tuple[str | None, str | None]]:
        for each in self.history.of(Operation.STATUS):
            if each.image_id == image_id and each.seen is not None:
                yield each.seen.state, each.seen.finished_at

    async def _tell(self, image_id: str, kind: str, shown: dict[str, Any]) -> None:
        now = datetime.now(UTC)
        values = {"transaction_id": 1, "type": kind, "image_id": _uuid(image_id), "happened_at": now, "snapshot": shown}
        await self.execute(insert(EventRow).values(values))


@pytest.fixture
async def system(database_url: str, tmp_path: Path) -> AsyncIterator[SmallSystem]:
    engine = create_async_engine(database_url)
    system = SmallSystem(engine, database_url, tmp_path)
    await system.fill()
    yield system
    system.history.close()
    await engine.dispose()


async def test_consistent_system_has_no_violations(system: SmallSystem) -> None:
    assert await violations(await system.told()) == []


async def lost_row(system: SmallSystem) -> None:
    await system.execute(delete(ThumbnailRow).where(ThumbnailRow.image_id == _uuid(system.done)))
    await system.execute(delete(ImageRow).where(ImageRow.id == _uuid(system.done)))


async def stuck(system: SmallSystem) -> None:
    await system.change(system.done, status="PROCESSING", due_at=datetime.now(UTC))


async def denied(system: SmallSystem) -> None:
    system.asked(Operation.STATUS, system.done, status_code=404, code="image-not-found", problem=True)


async def never_sent(system: SmallSystem) -> None:
    image_id = await system.image(b"unknown", Picture.CORRUPT)
    await system.recorded(image_id, status="ERROR", error_code="corrupt-image")
    uploads = [each for each in system.history.of(Operation.UPLOAD) if each.image_id == image_id]
    system.history.exchanges = [each for each in system.history.exchanges if each not in uploads]


async def refused_and_kept(system: SmallSystem) -> None:
    image_id = await system.image(OTHER + b"refused", Picture.CORRUPT)
    await system.recorded(image_id, status="ERROR", error_code="corrupt-image")
    system.history.exchanges = [
        replace(each, status_code=422, code="corrupt-image", problem=True, image_id=None)
        if each.operation is Operation.UPLOAD and each.image_id == image_id
        else each
        for each in system.history.exchanges
    ]


async def two_answers_to_a_key(system: SmallSystem) -> None:
    system.asked(
        Operation.UPLOAD, system.poison, status_code=202, sent=Sent.of(b"poison", Picture.POISON, key="key-of-done")
    )


async def two_rows_of_a_key(system: SmallSystem) -> None:
    system.asked(Operation.UPLOAD, error="gone", sent=Sent.of(CONTENT, key="key-of-done"))
    system.history.append(Fault(kind="kill-api", subject=SERVER, began=BEGAN, ended=BEGAN + 99))
    twin = await system.image(CONTENT, Picture.VALID)
    system.history.exchanges = [
        each for each in system.history.exchanges if each.operation is not Operation.UPLOAD or each.image_id != twin
    ]
    await system.recorded(twin, status="DONE", recipe=HOW)


async def other_original(system: SmallSystem) -> None:
    content = OTHER + b"changed"
    system.original(system.done).write_bytes(content)
    await system.change(system.done, sha256=Sent.of(content).sha256, size_bytes=len(content))


async def damaged_original(system: SmallSystem) -> None:
    system.original(system.done).write_bytes(CONTENT[:-1])


async def lost_original(system: SmallSystem) -> None:
    system.original(system.corrupt).unlink()


async def lost_thumbnail(system: SmallSystem) -> None:
    system.thumbnail("300x300").unlink()


async def damaged_thumbnail(system: SmallSystem) -> None:
    path = system.thumbnail("300x300")
    path.write_bytes(path.read_bytes()[:-30] + bytes(30))


async def missing_preset(system: SmallSystem) -> None:
    await system.lose(system.done, "1200x1200")


async def required_output_left_out(system: SmallSystem) -> None:
    await system.lose(system.late, "100x100")
    await system.change(system.late, left_out={"100x100": HOW})


async def optional_output_forgotten(system: SmallSystem) -> None:
    await system.lose(system.late, "wide")


async def other_format(system: SmallSystem) -> None:
    await system.replace("wide", encoded(gradient(427, 320), "PNG"))


async def not_covered(system: SmallSystem) -> None:
    await system.replace("tile", encoded(gradient(200, 149), "WEBP"))


async def wrong_size(system: SmallSystem) -> None:
    await system.replace("100x100", encoded(gradient(100, 100), "JPEG"))


async def no_picture(system: SmallSystem) -> None:
    path = system.thumbnail("100x100")
    path.write_bytes(b"text")
    key = path.relative_to(system.storage).as_posix()
    values = {"size_bytes": 4, "sha256": Sent.of(b"text").sha256}
    await system.execute(update(ThumbnailRow).where(ThumbnailRow.key == key).values(**values))


async def wrong_original_served(system: SmallSystem) -> None:
    system.asked(Operation.ORIGINAL, system.done, status_code=200, seen=Seen(sha256=Sent.of(OTHER).sha256))


async def wrong_thumbnail_served(system: SmallSystem) -> None:
    seen = Seen(preset="100x100", sha256=Sent.of(OTHER).sha256)
    system.asked(Operation.THUMBNAIL, system.done, status_code=200, seen=seen)


async def orphaned_original(system: SmallSystem) -> None:
    image_id = str(uuid4())
    system.put(f"originals/{image_id[-2:]}/{image_id}")


async def orphaned_thumbnail(system: SmallSystem) -> None:
    system.put(f"thumbnails/{system.done[-2:]}/{system.done}.2.100x100")


async def overdue_removal(system: SmallSystem) -> None:
    system.put("thumbnails/00/replaced")
    past = datetime.now(UTC) - timedelta(seconds=1)
    await system.execute(insert(RemovalRow).values(key="thumbnails/00/replaced", due_at=past))


async def scratch_left(system: SmallSystem) -> None:
    system.put("scratch/0123/original")


async def changed_back(system: SmallSystem) -> None:
    system.saw(system.done, "PROCESSING", finished=None)


async def changed_verdict(system: SmallSystem) -> None:
    await system.change(system.corrupt, error_code="attempts-exhausted")


async def done_twice(system: SmallSystem) -> None:
    await system.change(system.done, finished_at=datetime.fromtimestamp(BEGAN + 50, UTC))


async def valid_in_error(system: SmallSystem) -> None:
    image_id = await system.image(CONTENT + b"valid", Picture.VALID)
    await system.recorded(image_id, status="ERROR", error_code="decoder-crashed")


async def valid_refused(system: SmallSystem) -> None:
    system.asked(Operation.UPLOAD, status_code=422, code="corrupt-image", problem=True, sent=Sent.of(CONTENT))


async def corrupt_done(system: SmallSystem) -> None:
    image_id = await system.image(CONTENT + b"corrupt", Picture.CORRUPT)
    await system.thumbnails(image_id, CONTENT + b"corrupt")
    await system.recorded(image_id, status="DONE", recipe=HOW)


async def corrupt_for_the_wrong_reason(system: SmallSystem) -> None:
    image_id = await system.image(b"also corrupt", Picture.CORRUPT)
    await system.recorded(image_id, status="ERROR", error_code="decoder-timeout")


async def poison_done(system: SmallSystem) -> None:
    image_id = await system.image(CONTENT + b"poison", Picture.POISON)
    await system.thumbnails(image_id, CONTENT + b"poison")
    await system.recorded(image_id, status="DONE", recipe=HOW)


async def poison_for_the_wrong_reason(system: SmallSystem) -> None:
    image_id = await system.image(b"also poison", Picture.POISON)
    await system.recorded(image_id, status="ERROR", error_code="decoder-crashed")


async def deleted_and_there(system: SmallSystem) -> None:
    system.asked(Operation.DELETE, system.done, status_code=204)


async def deleted_and_stored(system: SmallSystem) -> None:
    system.put(f"originals/{system.deleted[-2:]}/{system.deleted}")


async def deleted_and_seen(system: SmallSystem) -> None:
    system.saw(system.deleted, "DONE")


async def late_answer(system: SmallSystem) -> None:
    system.asked(Operation.STATUS, system.done, **UNAVAILABLE, waited=7.0)


async def no_answer(system: SmallSystem) -> None:
    system.asked(Operation.STATUS, system.done, error="connection reset")


async def internal_error(system: SmallSystem) -> None:
    system.asked(Operation.STATUS, system.done, status_code=500, code="internal-error", problem=True)


async def no_problem_document(system: SmallSystem) -> None:
    system.asked(Operation.STATUS, system.done, status_code=503)


async def no_time_to_try_again(system: SmallSystem) -> None:
    system.asked(Operation.STATUS, system.done, **{**UNAVAILABLE, "retry_after": False})


async def refused_after_the_faults(system: SmallSystem) -> None:
    over = BEGAN - RECOVERY
    system.history.append(Fault(kind="serve-standby", subject="database", began=over, ended=over))
    system.asked(Operation.UPLOAD, sent=Sent.of(CONTENT), **UNAVAILABLE)


async def held(system: SmallSystem) -> None:
    await system.change(system.done, lease_until=datetime.now(UTC))


async def outputs_held(system: SmallSystem) -> None:
    await system.change(system.late, outputs_lease_until=datetime.now(UTC))


async def outputs_due(system: SmallSystem) -> None:
    await system.change(system.late, outputs_due_at=datetime.now(UTC))


async def outputs_pending(system: SmallSystem) -> None:
    await system.lose(system.late, "wide")
    await system.change(system.late, pending=["wide"])


async def never_complete(system: SmallSystem) -> None:
    await system.change(system.late, recipe=None)


async def other_recipe(system: SmallSystem) -> None:
    await system.change(system.done, recipe_name=AVATAR)


async def no_longer_the_requested_recipe(system: SmallSystem) -> None:
    """Of two requests one after the other, the first decides."""
    for recipe in (LATE, DEFAULT):
        system.asked(Operation.REPROCESS, system.late, status_code=202, recipe=recipe)


async def output_of_another_recipe(system: SmallSystem) -> None:
    await system.execute(
        update(ThumbnailRow)
        .where(ThumbnailRow.image_id == _uuid(system.done), ThumbnailRow.output == "300x300")
        .values(output="square")
    )


async def made_differently(system: SmallSystem) -> None:
    twin = await system.image(CONTENT + b"twin", Picture.VALID, recipe=LATE)
    await system.recorded(twin, status="DONE", recipe="r-another")


VIOLATIONS: list[tuple[str, Callable[[SmallSystem], Awaitable[None]]]] = [
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
    ("done-is-complete", required_output_left_out),
    ("done-is-complete", optional_output_forgotten),
    ("done-is-complete", other_format),
    ("done-is-complete", not_covered),
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
    ("answer-is-clean", no_time_to_try_again),
    ("uploads-are-accepted-again", refused_after_the_faults),
    ("leases-return-to-zero", held),
    ("leases-return-to-zero", outputs_held),
    ("outputs-follow", outputs_held),
    ("outputs-follow", outputs_due),
    ("outputs-follow", outputs_pending),
    ("outputs-follow", never_complete),
    ("recipe-is-kept", other_recipe),
    ("recipe-is-kept", no_longer_the_requested_recipe),
    ("recipe-is-kept", output_of_another_recipe),
    ("recipe-is-kept", made_differently),
]
TESTED_BELOW = {
    "served-is-stored",
    "queues-return-to-zero",
    "dead-letters-are-garbage",
    "decoders-return-to-zero",
}
"""Invariants that need a server or a process; their tests are below."""
ABOUT_EVENTS = {
    "every-change-has-its-event",
    "no-event-of-nothing",
    "events-show-the-image",
    "answers-agree-with-the-log",
    "streams-miss-nothing",
    "webhooks-miss-nothing",
    "exchange-misses-nothing",
    "what-is-sent-is-genuine",
    "delivered-is-true",
    "deliveries-return-to-zero",
}
"""Invariants about events; their tests are in ``test_event_rules``."""


@pytest.mark.parametrize(
    ("invariant", "corruption"),
    VIOLATIONS,
    ids=[f"{corruption.__name__}-{invariant}" for invariant, corruption in VIOLATIONS],
)
async def test_violation_is_detected(
    system: SmallSystem, invariant: str, corruption: Callable[[SmallSystem], Awaitable[None]]
) -> None:
    await corruption(system)
    assert invariant in await system.violated()


def test_every_invariant_has_a_violation_test() -> None:
    assert {invariant for invariant, _ in VIOLATIONS} | TESTED_BELOW | ABOUT_EVENTS == RULES.keys()


async def test_checker_waits_until_the_service_is_idle(system: SmallSystem) -> None:
    system.put("scratch/0123/original")

    async def look_and_repair(evidence: Evidence) -> Snapshot:
        seen = await take_snapshot(evidence)
        rmtree(system.storage / "scratch/0123", ignore_errors=True)
        return seen

    assert await violations(await system.told(grace=30), observe=look_and_repair) == []


async def test_replaced_thumbnail_may_stay_until_its_removal_is_due(system: SmallSystem) -> None:
    system.put("thumbnails/00/replaced")
    future = datetime.now(UTC) + timedelta(minutes=1)
    await system.execute(insert(RemovalRow).values(key="thumbnails/00/replaced", due_at=future))
    assert await system.violated() == set()


async def test_requested_reprocessing_may_change_a_terminal_state(system: SmallSystem) -> None:
    system.asked(Operation.REPROCESS, system.done, status_code=202)
    system.saw(system.done, "PROCESSING", finished=None)
    system.saw(system.done, "DONE", finished=BEGAN + 60)
    await system.change(system.done, finished_at=datetime.fromtimestamp(BEGAN + 60, UTC))
    assert await system.violated() == set()


async def test_output_that_is_not_required_may_be_left_out(system: SmallSystem) -> None:
    await system.lose(system.late, "wide")
    await system.change(system.late, left_out={"wide": HOW})
    assert await system.violated() == set()


async def test_requested_recipe_replaces_the_one_of_the_upload(system: SmallSystem) -> None:
    content = CONTENT + b"changed"
    image_id = await system.image(content, Picture.VALID)
    await system.execute(delete(ThumbnailRow).where(ThumbnailRow.image_id == _uuid(image_id)))
    await system.thumbnails(image_id, content, AVATAR)
    for path in [path for path in system.files(image_id) if path.name.endswith("0")]:
        path.unlink()
    await system.recorded(image_id, status="DONE", recipe="r-of-avatars", recipe_name=AVATAR)
    assert await system.violated() == {"recipe-is-kept"}
    system.asked(Operation.REPROCESS, image_id, status_code=202, recipe=AVATAR)
    assert await system.violated() == set()


async def test_upload_without_answer_may_or_may_not_create_an_image(system: SmallSystem) -> None:
    down = Fault(kind="kill-api", subject=SERVER, began=BEGAN, ended=BEGAN + 99)
    system.history.append(down)
    image_id = await system.image(CONTENT + b"in doubt", Picture.VALID)
    await system.recorded(image_id, status="DONE", recipe=HOW)
    system.history.exchanges = [
        replace(each, status_code=None, image_id=None, error="gone")
        if each.operation is Operation.UPLOAD and each.image_id == image_id
        else each
        for each in system.history.exchanges
    ]
    system.asked(Operation.UPLOAD, error="gone", sent=Sent.of(CONTENT + b"lost"))
    assert await system.violated() == set()


async def test_missing_answer_of_a_killed_process_is_no_violation(system: SmallSystem) -> None:
    each = system.asked(Operation.STATUS, system.done, error="connection reset", waited=9.0)
    assert await system.violated() == {"answer-in-time", "answer-is-clean"}
    system.history.append(Fault(kind="kill-api", subject=SERVER, began=each.began, ended=each.began))
    assert await system.violated() == set()


async def test_repeated_deletion_counts_as_deleted(system: SmallSystem) -> None:
    image_id = await system.image(CONTENT + b"deleted", Picture.VALID)
    system.asked(Operation.DELETE, image_id, **UNAVAILABLE)
    system.asked(Operation.DELETE, image_id, status_code=404, code="image-not-found", problem=True)
    assert "deleted-stays-deleted" in await system.violated()
    await system.execute(delete(ThumbnailRow).where(ThumbnailRow.image_id == _uuid(image_id)))
    await system.execute(delete(ImageRow).where(ImageRow.id == _uuid(image_id)))
    for path in system.files(image_id):
        path.unlink()
    assert await system.violated() == set()


async def test_violation_details_contain_history_rows_files_and_logs(system: SmallSystem, tmp_path: Path) -> None:
    log = tmp_path / "worker-1" / "server.log"
    log.parent.mkdir()
    log.write_text(f'{{"event": "image done", "image_id": "{system.done}"}}\n{{"event": "other"}}\n')
    system.history.append(Fault(kind="kill-worker", subject="worker-1", began=BEGAN, ended=BEGAN + 1))
    system.thumbnail("100x100").unlink()
    running = Running(name="worker-1", pid=0, log=log)
    (violation,) = await violations(await system.told(processes=[running]))
    assert violation.subject == system.done
    for known in ("kill-worker", "upload at api-1: 202", "key-of-done", "'status': 'DONE'", "300x300", "image done"):
        assert known in violation.details
    assert "other" not in violation.details


def test_history_round_trips_through_its_file(tmp_path: Path) -> None:
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


async def test_served_files_are_compared_with_stored_files(system: SmallSystem, tmp_path: Path) -> None:
    env = {
        "DATABASE_URL": system.url,
        "STORAGE_PATH": str(system.storage),
        "RABBITMQ_URL": "amqp://127.0.0.1:1/",
        "LIVENESS_FILE": str(tmp_path / "alive"),
    }
    with Api(tmp_path, env) as api:
        evidence = await system.told(api_url=api.url)
        assert await violations(evidence) == []
        system.thumbnail("100x100").write_bytes(system.thumbnail("300x300").read_bytes())
        system.original(system.corrupt).write_bytes(b"CORRUPT")
        wrong = {each.subject for each in await violations(evidence) if each.invariant == "served-is-stored"}
    assert wrong == {system.done, system.corrupt}


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
    """The private queues of one test."""

    def __init__(self, url: str, name: str, channel: aio_pika.abc.AbstractChannel) -> None:
        self.url = url
        self.name = name
        self.channel = channel

    async def put(self, body: str, suffix: str = "") -> None:
        await self.channel.default_exchange.publish(aio_pika.Message(body.encode()), self.name + suffix)


async def test_waiting_messages_are_detected(system: SmallSystem, queue: Queue) -> None:
    evidence = await system.told(rabbitmq_url=queue.url, queue=queue.name)
    assert await violations(evidence) == []
    await queue.put("{}")
    for found in (await violations(evidence), await violations_without_workers(evidence)):
        assert [violation.invariant for violation in found] == ["queues-return-to-zero"]


async def test_dead_letters_are_detected_unless_injected_as_garbage(system: SmallSystem, queue: Queue) -> None:
    evidence = await system.told(rabbitmq_url=queue.url, queue=queue.name)
    system.history.append(Garbage(body="garbage"))
    await queue.put("garbage", ".dead")
    assert await violations(evidence) == []
    await queue.put(f'{{"v":1,"image_id":"{system.done}"}}', ".dead")
    (violation,) = await violations(evidence)
    assert (violation.invariant, violation.subject) == ("dead-letters-are-garbage", system.done)


@contextmanager
def decoder(folder: Path, program: str) -> Iterator[None]:
    """Run a process that looks like a decoder process."""
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
async def test_busy_or_orphaned_decoders_are_detected(
    system: SmallSystem, tmp_path: Path, program: str, owner: int, *, noticed: bool
) -> None:
    log = tmp_path / "server.log"
    log.touch()
    evidence = await system.told(processes=[Running(name="worker-1", pid=owner, log=log)])
    with decoder(tmp_path, f"print(flush=True)\n{program}"):
        found = await violations(evidence)
    assert [violation.invariant for violation in found] == ["decoders-return-to-zero"] * noticed


def _shown(thumbnails: Iterable[Row]) -> list[dict[str, Any]]:
    return [{**each, "output": each["preset"], "image_id": str(each["image_id"])} for each in thumbnails]


def _uuid(image_id: str) -> UUID:
    return UUID(image_id)
