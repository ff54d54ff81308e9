"""Accepting an upload: what is kept, in which order, and what is left of it whatever fails."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from itertools import repeat
from uuid import UUID

import pytest

from image_service.domain.keys import original_key
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.errors import (
    CorruptImage,
    DatabaseUnavailable,
    EmptyUpload,
    MalformedUpload,
    QueueUnavailable,
    ServiceError,
    StorageFull,
    UnsupportedFormat,
    UploadTooLarge,
)
from image_service.ports import Delivery
from image_service.services import ingest
from tests.support.fakes import DAMAGED, HEADER, IMAGE
from tests.support.stage import UNCLAIMED_AFTER, UNQUEUED_AFTER, Stage
from tests.support.waiting import eventually

PIECE = 1024
BIG = IMAGE + os.urandom(700_001)


class Upload:
    """A file on its way here, in pieces."""

    def __init__(self, content: bytes, piece: int = PIECE, failure: Exception | None = None) -> None:
        self._pieces = [content[at : at + piece] for at in range(0, len(content), piece)]
        self._failure = failure
        self.read = 0
        """How many pieces somebody has asked for."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.read += 1
            yield piece
        if self._failure is not None:
            raise self._failure


async def test_an_upload_is_stored_and_then_recorded_and_then_published_and_then_marked(stage: Stage) -> None:
    accepted = await stage.ingest().accept(aiter(Upload(IMAGE)), request_id="r-1")
    assert stage.script.done == ["adopt", "add", "publish", "mark_queued"]
    assert stage.queue.published == [Delivery(image_id=accepted.id, lane=Lane.EXPRESS, request_id="r-1")]
    assert accepted.status is Status.PROCESSING
    row = await stage.row(accepted.id)
    assert row["status"] is Status.PROCESSING
    assert row["queued_at"] is not None
    assert (row["due_at"] - row["updated_at"]).total_seconds() == pytest.approx(UNCLAIMED_AFTER, abs=1)
    assert stage.scratch() == []


@pytest.mark.parametrize("piece", [1000, 4096, len(BIG)])
async def test_the_file_is_kept_byte_for_byte_and_recorded_with_its_digest(stage: Stage, piece: int) -> None:
    accepted = await stage.ingest().accept(aiter(Upload(BIG, piece)))
    image = await stage.image(accepted.id)
    assert await stage.content(original_key(accepted.id)) == BIG
    assert (image.size_bytes, image.sha256) == (len(BIG), hashlib.sha256(BIG).hexdigest())
    assert image.header == HEADER
    assert stage.inspector.heads[0] == BIG[:4096]


async def test_when_it_is_published_everybody_can_see_the_image_and_its_file(stage: Stage) -> None:
    seen: list[object] = []

    async def look(delivery: Delivery) -> None:
        seen.append((await stage.image(delivery.image_id)).status)
        seen.append(await stage.content(original_key(delivery.image_id)))

    stage.script.before("publish", look)
    await stage.ingest().accept(aiter(Upload(IMAGE)))
    assert seen == [Status.NEW, IMAGE]


async def test_a_file_of_exactly_the_largest_size_is_accepted(sqlite_stage: Stage) -> None:
    accepted = await sqlite_stage.ingest(max_file_size=len(BIG)).accept(aiter(Upload(BIG)))
    assert await sqlite_stage.status(accepted.id) is Status.PROCESSING


async def test_a_file_that_grows_too_large_is_read_no_further(sqlite_stage: Stage) -> None:
    upload = Upload(IMAGE + bytes(100 * PIECE))
    with pytest.raises(UploadTooLarge, match="10,240 bytes"):
        await sqlite_stage.ingest(max_file_size=10 * PIECE).accept(aiter(upload))
    assert upload.read == 11


async def test_a_file_that_is_no_image_is_read_no_further_than_its_head(sqlite_stage: Stage) -> None:
    upload = Upload(b"text " * 10_000)
    with pytest.raises(UnsupportedFormat):
        await sqlite_stage.ingest().accept(aiter(upload))
    assert upload.read == 4


REFUSED = {
    "empty": (Upload(b""), EmptyUpload),
    "too large": (Upload(IMAGE + bytes(2_000_000), 300_000), UploadTooLarge),
    "no image, told by its head": (Upload(b"text" * 2000), UnsupportedFormat),
    "no image, and shorter than a head": (Upload(b"text"), UnsupportedFormat),
    "damaged": (Upload(DAMAGED), CorruptImage),
    "broken off": (Upload(IMAGE + bytes(500_000), failure=MalformedUpload()), MalformedUpload),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_nothing_is_left_of_what_is_refused(sqlite_stage: Stage, case: str) -> None:
    upload, error = REFUSED[case]
    with pytest.raises(error):
        await sqlite_stage.ingest().accept(aiter(upload))
    await nothing_is_left(sqlite_stage)


async def test_nothing_is_left_of_what_cannot_be_stored(sqlite_stage: Stage) -> None:
    sqlite_stage.script.fail("adopt", [StorageFull])
    with pytest.raises(StorageFull):
        await sqlite_stage.ingest().accept(aiter(Upload(IMAGE)))
    await nothing_is_left(sqlite_stage)


async def test_nothing_is_left_when_the_sender_goes_away(sqlite_stage: Stage) -> None:
    upload = Upload(IMAGE + bytes(500_000))
    arrived = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        async for piece in upload:
            yield piece
        arrived.set()
        await asyncio.Event().wait()

    accepting = asyncio.create_task(sqlite_stage.ingest().accept(stalling()))
    await arrived.wait()
    accepting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await accepting
    await nothing_is_left(sqlite_stage)


async def nothing_is_left(stage: Stage) -> None:
    assert await stage.files() == set()
    assert stage.scratch() == []
    assert await stage.count() == 0
    assert stage.script.done == []


async def test_while_the_queue_is_away_an_upload_is_accepted_as_new(stage: Stage) -> None:
    stage.script.fail("publish", [QueueUnavailable])
    accepted = await stage.ingest().accept(aiter(Upload(IMAGE)))
    assert accepted.status is Status.NEW
    await is_left_to_the_reconciler(stage, accepted.id)


async def test_a_queue_that_hangs_does_not_keep_the_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_ANSWER_WITHIN", 0.3)
    stage.script.before("publish", lambda _: asyncio.Event().wait())
    async with asyncio.timeout(5):
        accepted = await stage.ingest().accept(aiter(Upload(IMAGE)))
    assert accepted.status is Status.NEW
    await is_left_to_the_reconciler(stage, accepted.id)


async def test_an_image_that_cannot_be_marked_as_queued_is_accepted_as_new(stage: Stage) -> None:
    stage.script.fail("mark_queued", [DatabaseUnavailable])
    accepted = await stage.ingest().accept(aiter(Upload(IMAGE)))
    assert accepted.status is Status.NEW
    assert [delivery.image_id for delivery in stage.queue.published] == [accepted.id]
    await is_left_to_the_reconciler(stage, accepted.id)


async def is_left_to_the_reconciler(stage: Stage, image_id: UUID) -> None:
    row = await stage.row(image_id)
    assert row["status"] is Status.NEW
    assert (row["due_at"] - row["created_at"]).total_seconds() == pytest.approx(UNQUEUED_AFTER, abs=1)
    assert await stage.content(original_key(image_id)) == IMAGE


async def test_while_the_database_is_away_an_upload_fails_and_its_file_waits_for_the_sweeper(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_RECORD_PATIENCE", 0.2)
    stage.script.fail("add", repeat(DatabaseUnavailable))
    with pytest.raises(DatabaseUnavailable):
        await stage.ingest().accept(aiter(Upload(IMAGE)))
    assert stage.script.tried["add"] > 1
    assert stage.queue.published == []
    assert await stage.count() == 0
    (orphan,) = await stage.files()
    stage.grow_old(orphan, 7200)
    assert await stage.sweep() == 1
    assert await stage.files() == set()


async def test_an_upload_outlasts_a_moment_without_the_database(stage: Stage) -> None:
    stage.script.fail("add", [DatabaseUnavailable, DatabaseUnavailable])
    accepted = await stage.ingest().accept(aiter(Upload(IMAGE)))
    assert await stage.status(accepted.id) is Status.PROCESSING
    assert stage.script.done == ["adopt", "add", "publish", "mark_queued"]


async def test_when_the_reply_to_the_commit_is_lost_the_image_is_recorded_exactly_once(stage: Stage) -> None:
    stage.script.lose_replies("add", [DatabaseUnavailable])
    accepted = await stage.ingest().accept(aiter(Upload(IMAGE)))
    assert stage.script.done == ["adopt", "add", "add", "publish", "mark_queued"]
    assert await stage.count() == 1
    assert await stage.status(accepted.id) is Status.PROCESSING
    assert await stage.files() == {original_key(accepted.id)}


async def test_an_image_that_is_done_before_it_is_marked_as_queued_stays_done(stage: Stage) -> None:
    stage.script.before("publish", stage.processing().process)
    accepted = await stage.ingest().accept(aiter(Upload(IMAGE)))
    assert stage.script.done[-2:] == ["publish", "mark_queued"]
    assert await stage.status(accepted.id) is Status.DONE
    assert accepted.status is Status.PROCESSING


async def test_an_image_that_failed_before_it_is_marked_as_queued_stays_failed(stage: Stage) -> None:
    stage.script.fail("render", [CorruptImage])
    stage.script.before("publish", stage.processing().process)
    accepted = await stage.ingest().accept(aiter(Upload(IMAGE)))
    assert await stage.status(accepted.id) is Status.ERROR


async def test_a_worker_that_has_begun_keeps_its_claim_when_the_image_is_marked_as_queued(stage: Stage) -> None:
    claimed: list[object] = []

    async def claim(delivery: Delivery) -> None:
        await stage.claim(delivery.image_id)
        claimed.append(await stage.row(delivery.image_id))

    stage.script.before("publish", claim)
    accepted = await stage.ingest().accept(aiter(Upload(IMAGE)))
    assert stage.script.done[-1] == "mark_queued"
    assert claimed == [await stage.row(accepted.id)]


async def test_one_refused_upload_does_not_disturb_its_neighbours(sqlite_stage: Stage) -> None:
    service = sqlite_stage.ingest()
    outcomes = await asyncio.gather(
        *(service.accept(aiter(Upload(content))) for content in (IMAGE, DAMAGED, IMAGE, b"", IMAGE)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, ServiceError) for outcome in outcomes] == [False, True, False, True, False]
    assert await sqlite_stage.count() == 3
    assert len(await sqlite_stage.files()) == 3
    await eventually(lambda: sqlite_stage.scratch() == [])
