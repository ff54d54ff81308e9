"""Ingest: what is stored and recorded, in which order, and what failures leave."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from itertools import count, repeat
from pathlib import Path
from unittest.mock import AsyncMock
from uuid import UUID

import pytest

from harness.fakes import DAMAGED, HEADER, IMAGE, ScriptedStorage
from harness.pace import slowness
from harness.service_harness import GRACE, UNCLAIMED_AFTER, UNQUEUED_AFTER, ServiceHarness
from harness.waiting import eventually
from image_service.domain.keys import original_key
from image_service.domain.lane import Lane
from image_service.domain.status import Status
from image_service.errors import (
    CorruptImage,
    DatabaseUnavailable,
    EmptyUpload,
    IdempotencyKeyReused,
    MalformedUpload,
    QueueUnavailable,
    ServiceError,
    StorageFull,
    StorageUnavailable,
    UnsupportedFormat,
    UploadTooLarge,
)
from image_service.ports import Delivery
from image_service.services.ingest import Accepted

PIECE = 1024
BIG = IMAGE + os.urandom(700_001)


class Upload:
    """The content of an upload, in pieces."""

    def __init__(self, content: bytes, piece: int = PIECE, failure: Exception | None = None) -> None:
        self._pieces = [content[at : at + piece] for at in range(0, len(content), piece)]
        self._failure = failure
        self.read = 0
        """The number of pieces read."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.read += 1
            yield piece
        if self._failure is not None:
            raise self._failure


async def test_an_upload_is_stored_recorded_published_and_marked_in_this_order(env: ServiceHarness) -> None:
    accepted = await env.ingest().accept(aiter(Upload(IMAGE)), request_id="r-1")
    assert env.script.done == ["adopt", "add", "publish", "mark_queued"]
    assert env.queue.published == [Delivery(image_id=accepted.id, lane=Lane.EXPRESS, request_id="r-1")]
    assert accepted.status is Status.PROCESSING
    row = await env.row(accepted.id)
    assert row["status"] is Status.PROCESSING
    assert row["queued_at"] is not None
    assert (row["due_at"] - row["updated_at"]).total_seconds() == pytest.approx(UNCLAIMED_AFTER, abs=1)
    assert env.scratch() == []


async def test_a_received_file_is_kept_in_scratch_until_it_is_committed(env: ServiceHarness) -> None:
    ingest = env.ingest()
    staged = await ingest.receive(aiter(Upload(IMAGE)))
    assert env.script.done == []
    assert [path.name for path in env.scratch()] == [staged.path.parent.name]
    accepted = await ingest.commit(staged)
    assert accepted.id == staged.original.id
    assert await env.content(original_key(accepted.id)) == IMAGE
    assert env.scratch() == []


@pytest.mark.parametrize("piece", [1000, 4096, len(BIG)])
async def test_the_file_is_stored_unchanged_and_recorded_with_its_digest(env: ServiceHarness, piece: int) -> None:
    accepted = await env.ingest().accept(aiter(Upload(BIG, piece)))
    image = await env.image(accepted.id)
    assert await env.content(original_key(accepted.id)) == BIG
    assert (image.size_bytes, image.sha256) == (len(BIG), hashlib.sha256(BIG).hexdigest())
    assert image.header == HEADER
    assert env.inspector.heads[0] == BIG[:4096]


async def test_the_image_and_its_file_are_visible_before_publishing(env: ServiceHarness) -> None:
    seen: list[object] = []

    async def look(delivery: Delivery) -> None:
        seen.append((await env.image(delivery.image_id)).status)
        seen.append(await env.content(original_key(delivery.image_id)))

    env.script.before("publish", look)
    await env.ingest().accept(aiter(Upload(IMAGE)))
    assert seen == [Status.NEW, IMAGE]


async def test_a_file_of_exactly_the_size_limit_is_accepted(sqlite_env: ServiceHarness) -> None:
    accepted = await sqlite_env.ingest(max_file_size=len(BIG)).accept(aiter(Upload(BIG)))
    assert await sqlite_env.status(accepted.id) is Status.PROCESSING


async def test_reading_stops_at_the_size_limit(sqlite_env: ServiceHarness) -> None:
    upload = Upload(IMAGE + bytes(100 * PIECE))
    with pytest.raises(UploadTooLarge, match="10,240 bytes"):
        await sqlite_env.ingest(max_file_size=10 * PIECE).accept(aiter(upload))
    assert upload.read == 11


async def test_reading_stops_after_the_head_of_an_unsupported_file(sqlite_env: ServiceHarness) -> None:
    upload = Upload(b"text " * 10_000)
    with pytest.raises(UnsupportedFormat):
        await sqlite_env.ingest().accept(aiter(upload))
    assert upload.read == 4


REFUSED = {
    "empty": (Upload(b""), EmptyUpload),
    "too large": (Upload(IMAGE + bytes(2_000_000), 300_000), UploadTooLarge),
    "no image, detected by its head": (Upload(b"text" * 2000), UnsupportedFormat),
    "no image, and shorter than a head": (Upload(b"text"), UnsupportedFormat),
    "damaged": (Upload(DAMAGED), CorruptImage),
    "aborted": (Upload(IMAGE + bytes(500_000), failure=MalformedUpload()), MalformedUpload),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refused_upload_leaves_nothing(sqlite_env: ServiceHarness, case: str) -> None:
    upload, error = REFUSED[case]
    with pytest.raises(error):
        await sqlite_env.ingest().accept(aiter(upload))
    await nothing_is_left(sqlite_env)


async def test_an_upload_that_cannot_be_stored_leaves_nothing(sqlite_env: ServiceHarness) -> None:
    sqlite_env.script.fail("adopt", [StorageFull])
    with pytest.raises(StorageFull):
        await sqlite_env.ingest().accept(aiter(Upload(IMAGE)))
    await nothing_is_left(sqlite_env)


async def test_an_upload_is_refused_unread_while_little_space_is_left(
    sqlite_env: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedStorage, "check_space", AsyncMock(side_effect=StorageFull))
    upload = Upload(IMAGE)
    with pytest.raises(StorageFull):
        await sqlite_env.ingest().accept(aiter(upload))
    assert upload.read == 0
    await nothing_is_left(sqlite_env)


async def test_an_upload_is_ended_when_little_space_is_left(
    sqlite_env: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedStorage, "check_space", AsyncMock(side_effect=[None, None, StorageFull]))
    upload = Upload(IMAGE + bytes(10_000_000))
    with pytest.raises(StorageFull):
        await sqlite_env.ingest(max_file_size=20_000_000).accept(aiter(upload))
    await nothing_is_left(sqlite_env)


async def test_an_aborted_upload_leaves_nothing(sqlite_env: ServiceHarness) -> None:
    upload = Upload(IMAGE + bytes(500_000))
    arrived = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        async for piece in upload:
            yield piece
        arrived.set()
        await asyncio.Event().wait()

    accepting = asyncio.create_task(sqlite_env.ingest().accept(stalling()))
    await arrived.wait()
    accepting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await accepting
    await nothing_is_left(sqlite_env)


async def nothing_is_left(env: ServiceHarness) -> None:
    assert await env.files() == set()
    assert env.scratch() == []
    assert await env.count() == 0
    assert env.script.done == []


async def test_without_the_queue_an_upload_is_accepted_as_new(env: ServiceHarness) -> None:
    env.script.fail("publish", [QueueUnavailable])
    accepted = await env.ingest().accept(aiter(Upload(IMAGE)))
    assert accepted.status is Status.NEW
    await is_due_for_the_reconciler(env, accepted.id)


async def test_a_queue_that_hangs_does_not_delay_the_answer(env: ServiceHarness) -> None:
    env.script.before("publish", lambda _: asyncio.Event().wait())
    async with asyncio.timeout(60):
        # Enough time to record the image also on a busy machine.
        accepted = await env.ingest(answer_within=slowness()).accept(aiter(Upload(IMAGE)))
    assert accepted.status is Status.NEW
    await is_due_for_the_reconciler(env, accepted.id)


async def test_an_image_that_cannot_be_marked_as_queued_is_accepted_as_new(env: ServiceHarness) -> None:
    env.script.fail("mark_queued", [DatabaseUnavailable])
    accepted = await env.ingest().accept(aiter(Upload(IMAGE)))
    assert accepted.status is Status.NEW
    assert [delivery.image_id for delivery in env.queue.published] == [accepted.id]
    await is_due_for_the_reconciler(env, accepted.id)


async def is_due_for_the_reconciler(env: ServiceHarness, image_id: UUID) -> None:
    row = await env.row(image_id)
    assert row["status"] is Status.NEW
    assert (row["due_at"] - row["created_at"]).total_seconds() == pytest.approx(UNQUEUED_AFTER, abs=1)
    assert await env.content(original_key(image_id)) == IMAGE


async def test_without_the_database_an_upload_fails_and_its_file_is_swept(
    env: ServiceHarness,
) -> None:
    env.script.fail("add", repeat(DatabaseUnavailable))
    with pytest.raises(DatabaseUnavailable):
        await env.ingest(record_budget=0.2).accept(aiter(Upload(IMAGE)))
    assert env.queue.published == []
    assert await env.count() == 0
    (orphan,) = await env.files()
    env.grow_old(orphan, 7200)
    assert await env.sweep() == 1
    assert await env.files() == set()


async def test_an_upload_that_certainly_is_not_recorded_leaves_nothing(env: ServiceHarness) -> None:
    refused = DatabaseUnavailable(unchanged=True)
    for key in (None, KEY):
        env.script.fail("add", repeat(refused))
        with pytest.raises(DatabaseUnavailable):
            await accept(env, key=key, record_budget=0.2)
        assert env.script.tried["add"] > 1
        assert await env.files() == set()
        assert env.scratch() == []


async def test_an_upload_that_may_be_recorded_keeps_its_file(env: ServiceHarness) -> None:
    env.script.lose_replies("add", [DatabaseUnavailable])  # the image is recorded
    calls = count()

    async def refuse_from_the_second_on(*_: object) -> None:
        if next(calls):
            raise DatabaseUnavailable(unchanged=True)

    env.script.before("add", refuse_from_the_second_on)
    with pytest.raises(DatabaseUnavailable):
        await accept(env, key=None, record_budget=0.2)
    assert await env.count() == 1
    assert len(await env.files()) == 1


async def test_a_file_that_cannot_be_removed_leaves_the_error_as_it_is(sqlite_env: ServiceHarness) -> None:
    sqlite_env.script.fail("add", repeat(DatabaseUnavailable(unchanged=True)))
    sqlite_env.script.fail("delete", [StorageUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await accept(sqlite_env, key=None, record_budget=0)
    assert len(await sqlite_env.files()) == 1


async def test_a_short_database_outage_does_not_fail_an_upload(env: ServiceHarness) -> None:
    env.script.fail("add", [DatabaseUnavailable, DatabaseUnavailable])
    accepted = await env.ingest().accept(aiter(Upload(IMAGE)))
    assert await env.status(accepted.id) is Status.PROCESSING
    assert env.script.done == ["adopt", "add", "publish", "mark_queued"]


async def test_after_a_lost_reply_to_the_commit_the_image_is_recorded_once(env: ServiceHarness) -> None:
    env.script.lose_replies("add", [DatabaseUnavailable])
    accepted = await env.ingest().accept(aiter(Upload(IMAGE)))
    assert env.script.done == ["adopt", "add", "add", "publish", "mark_queued"]
    assert await env.count() == 1
    assert await env.status(accepted.id) is Status.PROCESSING
    assert await env.files() == {original_key(accepted.id)}


async def test_an_image_done_before_it_is_marked_as_queued_stays_done(env: ServiceHarness) -> None:
    env.script.before("publish", env.processing().process)
    accepted = await env.ingest().accept(aiter(Upload(IMAGE)))
    assert env.script.done[-2:] == ["publish", "mark_queued"]
    assert await env.status(accepted.id) is Status.DONE
    assert accepted.status is Status.PROCESSING


async def test_an_image_failed_before_it_is_marked_as_queued_stays_in_error(env: ServiceHarness) -> None:
    env.script.fail("render", [CorruptImage])
    env.script.before("publish", env.processing().process)
    accepted = await env.ingest().accept(aiter(Upload(IMAGE)))
    assert await env.status(accepted.id) is Status.ERROR


async def test_marking_as_queued_does_not_change_a_claimed_image(env: ServiceHarness) -> None:
    claimed: list[object] = []

    async def claim(delivery: Delivery) -> None:
        await env.claim(delivery.image_id)
        claimed.append(await env.row(delivery.image_id))

    env.script.before("publish", claim)
    accepted = await env.ingest().accept(aiter(Upload(IMAGE)))
    assert env.script.done[-1] == "mark_queued"
    assert claimed == [await env.row(accepted.id)]


async def test_a_refused_upload_does_not_affect_concurrent_uploads(sqlite_env: ServiceHarness) -> None:
    service = sqlite_env.ingest()
    outcomes = await asyncio.gather(
        *(service.accept(aiter(Upload(content))) for content in (IMAGE, DAMAGED, IMAGE, b"", IMAGE)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, ServiceError) for outcome in outcomes] == [False, True, False, True, False]
    assert await sqlite_env.count() == 3
    assert len(await sqlite_env.files()) == 3
    await eventually(lambda: sqlite_env.scratch() == [])


KEY = "0b5e0f4c"


async def accept(
    env: ServiceHarness,
    content: bytes = IMAGE,
    key: str | None = KEY,
    **limits: float,
) -> Accepted:
    return await env.ingest(**limits).accept(aiter(Upload(content)), idempotency_key=key)


async def there_is_one_image(env: ServiceHarness, image_id: UUID, content: bytes = IMAGE) -> None:
    """Assert that the image is recorded, stored and published once."""
    assert await env.count() == 1
    assert await env.files("originals/") == {original_key(image_id)}
    assert await env.content(original_key(image_id)) == content
    assert [delivery.image_id for delivery in env.queue.published] == [image_id]
    assert env.scratch() == []


async def test_the_same_file_with_the_same_key_is_one_image(env: ServiceHarness) -> None:
    first = await accept(env)
    assert first == Accepted(id=first.id, status=Status.PROCESSING, replayed=False)
    for _ in range(3):
        assert await accept(env) == Accepted(id=first.id, status=Status.PROCESSING, replayed=True)
    assert env.script.done.count("adopt") == 1, "replays are not stored"
    await there_is_one_image(env, first.id)


async def test_without_a_key_or_with_another_key_it_is_another_image(env: ServiceHarness) -> None:
    accepted = [await accept(env, key=key) for key in (None, None, KEY, "another")]
    assert len({each.id for each in accepted}) == 4
    assert not any(each.replayed for each in accepted)
    assert await env.count() == 4


async def test_a_replay_returns_the_current_status(env: ServiceHarness) -> None:
    first = await accept(env)
    await env.render(first.id)
    assert await accept(env) == Accepted(id=first.id, status=Status.DONE, replayed=True)
    assert await env.status(first.id) is Status.DONE
    await env.reprocess(first.id)
    assert await accept(env) == Accepted(id=first.id, status=Status.NEW, replayed=True)


async def test_another_file_with_the_same_key_is_refused_and_not_kept(env: ServiceHarness) -> None:
    first = await accept(env)
    with pytest.raises(IdempotencyKeyReused):
        await accept(env, BIG)
    await there_is_one_image(env, first.id)


async def test_a_key_can_be_used_again_once_its_image_is_deleted(env: ServiceHarness) -> None:
    first = await accept(env)
    await env.deletion().delete(first.id)
    second = await accept(env, BIG)
    assert not second.replayed
    assert second.id != first.id
    assert await env.files() == {original_key(second.id)}


async def test_a_refused_file_does_not_use_up_the_key(env: ServiceHarness) -> None:
    with pytest.raises(CorruptImage):
        await accept(env, DAMAGED)
    accepted = await accept(env)
    assert not accepted.replayed
    await there_is_one_image(env, accepted.id)


async def wait_before_storing(env: ServiceHarness, uploads: int) -> None:
    """Make several uploads wait for each other before they store their file, when all have found the key unused."""
    barrier = asyncio.Barrier(uploads)
    arrivals = count(1)

    async def meet(*_: object) -> None:
        if next(arrivals) <= uploads:
            await barrier.wait()

    env.script.before("adopt", meet)


async def test_concurrent_uploads_with_one_key_record_one_image(env: ServiceHarness) -> None:
    await wait_before_storing(env, 5)
    accepted = await asyncio.gather(*(accept(env) for _ in range(5)))
    assert env.script.done.count("adopt") == 5
    (image_id,) = {each.id for each in accepted}
    assert sorted(each.replayed for each in accepted) == [False] + [True] * 4
    await there_is_one_image(env, image_id)


async def test_concurrent_different_files_with_one_key_accept_one(env: ServiceHarness) -> None:
    await wait_before_storing(env, 2)
    contents = [IMAGE, BIG]
    outcomes = await asyncio.gather(*(accept(env, content) for content in contents), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(IdempotencyKeyReused) == 1
    (kept,) = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
    await there_is_one_image(env, kept.id, contents[outcomes.index(kept)])


async def test_a_duplicate_file_that_cannot_be_deleted_is_swept(env: ServiceHarness) -> None:
    await wait_before_storing(env, 2)
    env.script.fail("delete", [StorageUnavailable])
    accepted = await asyncio.gather(*(accept(env) for _ in range(2)))
    (image_id,) = {each.id for each in accepted}
    (left,) = await env.files() - {original_key(image_id)}
    for key in await env.files():
        env.grow_old(key, GRACE + 60)
    assert await env.sweep() == 1
    assert left not in await env.files()
    await there_is_one_image(env, image_id)


async def test_after_a_lost_reply_to_the_commit_the_image_is_not_a_replay(env: ServiceHarness) -> None:
    env.script.lose_replies("add", [DatabaseUnavailable])
    accepted = await accept(env)
    assert env.script.tried["add"] == 2
    assert accepted == Accepted(id=accepted.id, status=Status.PROCESSING, replayed=False)
    await there_is_one_image(env, accepted.id)


async def test_retry_after_503_returns_recorded_image(
    env: ServiceHarness,
) -> None:
    env.script.lose_replies("add", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await accept(env, record_budget=0.0)
    replay = await accept(env)
    assert replay == Accepted(id=replay.id, status=Status.NEW, replayed=True)
    assert await env.files() == {original_key(replay.id)}
    assert await env.count() == 1


async def test_a_short_outage_during_the_key_lookup_does_not_fail_an_upload(
    env: ServiceHarness,
) -> None:
    first = await accept(env)
    env.script.fail("by_idempotency_key", [DatabaseUnavailable, DatabaseUnavailable])
    assert (await accept(env)).replayed
    await there_is_one_image(env, first.id)


async def test_without_the_key_lookup_nothing_is_stored(env: ServiceHarness) -> None:
    env.script.fail("by_idempotency_key", repeat(DatabaseUnavailable))
    with pytest.raises(DatabaseUnavailable):
        await accept(env, record_budget=0.2)
    await nothing_is_left(env)


async def test_a_database_that_hangs_does_not_delay_the_answer(env: ServiceHarness) -> None:
    env.script.before("by_idempotency_key", lambda *_: asyncio.Event().wait())
    async with asyncio.timeout(10):
        with pytest.raises(DatabaseUnavailable):
            await accept(env, answer_within=0.3)


@pytest.fixture
async def postgres_env(postgres_database_url: str, tmp_path: Path) -> AsyncIterator[ServiceHarness]:
    """PostgreSQL only: on SQLite nothing can happen between two statements of a transaction that writes."""
    async with ServiceHarness.on(postgres_database_url, tmp_path / "storage") as env:
        yield env


async def test_a_key_whose_image_is_deleted_while_recording_is_used(
    postgres_env: ServiceHarness,
) -> None:
    env = postgres_env
    other = await env.new()

    async def assign_key(*_: object) -> None:
        if env.script.tried["add"] == 1:
            await env.change(other, idempotency_key=KEY)

    async def delete_the_other(*_: object) -> None:
        if env.script.tried["add"] == 1:
            await env.ask(lambda r: r.images.remove([other]))

    env.script.before("add", assign_key)
    env.script.before("by_idempotency_key", delete_the_other)
    accepted = await accept(env)
    assert env.script.tried["add"] == 2
    assert not accepted.replayed
    assert await env.count() == 1
    assert (await env.row(accepted.id))["idempotency_key"] == KEY
