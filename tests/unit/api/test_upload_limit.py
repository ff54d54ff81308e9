"""The limit of concurrent uploads, how slow one may be, and which one gives way to another."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from harness.waiting import eventually, wait_for
from image_service.api.upload_limit import Upload, UploadLimit
from image_service.errors import ServiceError, TooManyUploads, UploadDisplaced, UploadStalled

LONG = 600.0
"""Seconds that no test lasts."""


def limit_of(limit: int, *, late: float = LONG) -> UploadLimit:
    return UploadLimit(limit, idle_timeout=LONG, min_rate=1, late=late, first=1)


def upload_of(*, idle_timeout: float = LONG, min_rate: float = 1) -> Upload:
    return Upload("", idle_timeout=idle_timeout, min_rate=min_rate, take_slot=lambda _: None)


@contextmanager
def slot(limit: UploadLimit, client: str = "") -> Iterator[Upload]:
    with limit.upload(client) as upload:
        upload.take_slot()
        yield upload


async def pieces(*chunks: bytes, pause: float = 0.0, then: str = "end") -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(pause)
        yield chunk
    if then == "silence":
        await asyncio.Event().wait()


async def received(upload: Upload, chunks: AsyncIterator[bytes]) -> bytes:
    collected = bytearray()
    while (chunk := await upload.receive(chunks)) is not None:
        collected += chunk
    return bytes(collected)


class Uploads:
    """Uploads that hold a slot and send nothing more until they are ended; the names of those that were, in order."""

    def __init__(self, limit: UploadLimit) -> None:
        self._limit = limit
        self._tasks: list[asyncio.Task[None]] = []
        self.displaced: list[str] = []

    async def start(self, name: str, client: str, sent: bytes = b"-") -> None:
        waits = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield sent
            waits.set()
            await asyncio.Event().wait()

        async def run() -> None:
            try:
                with self._limit.upload(client) as upload:
                    await received(upload, body())
            except UploadDisplaced:
                self.displaced.append(name)
            finally:
                waits.set()

        self._tasks.append(asyncio.create_task(run()))
        await wait_for(waits.wait())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_limit_bounds_the_slots_in_use() -> None:
    limit = limit_of(2)
    with slot(limit), slot(limit):
        with pytest.raises(TooManyUploads), slot(limit):
            pytest.fail("a third upload got a slot")
        # The refused upload has not released a slot that it did not occupy.
        with pytest.raises(TooManyUploads), slot(limit):
            pytest.fail("a third upload got a slot")
    with slot(limit), slot(limit):
        pass


@pytest.mark.parametrize("failure", [ValueError, asyncio.CancelledError])
async def test_slot_is_released_when_the_upload_fails(failure: type[BaseException]) -> None:
    limit = limit_of(1)
    for _ in range(3):
        with pytest.raises(failure), slot(limit):
            raise failure
    with slot(limit):
        pass


async def test_body_is_passed_on() -> None:
    upload = upload_of()
    assert await received(upload, pieces(b"a", b"", b"bc")) == b"abc"


async def test_silence_ends_an_upload_whatever_it_has_sent() -> None:
    upload = upload_of(idle_timeout=0.05)
    with pytest.raises(UploadStalled):
        await wait_for(received(upload, pieces(bytes(1_000_000), then="silence")))


async def test_bytes_below_the_least_rate_do_not_keep_an_upload() -> None:
    upload = upload_of(idle_timeout=0.3, min_rate=1_000_000)
    endless = pieces(bytes(10_000_000), *[b"-"] * 100_000, pause=0.01)
    with pytest.raises(UploadStalled):
        await wait_for(received(upload, endless))


async def test_rate_is_measured_while_the_service_waits_only() -> None:
    upload = upload_of(idle_timeout=0.2, min_rate=1_000_000)
    chunks = pieces(*[b"-"] * 10)
    for _ in range(10):
        assert await upload.receive(chunks) == b"-"
        await asyncio.sleep(0.1)  # as a slow disk does
    assert await upload.receive(chunks) is None


async def test_bytes_at_the_least_rate_keep_an_upload() -> None:
    """Each piece earns more seconds than pass before the next one, on however slow a machine."""
    upload = upload_of(min_rate=0.001)
    assert len(await received(upload, pieces(*[b"-"] * 100, pause=0.001))) == 100
    assert upload.behind(upload._waits_since) == 0


async def test_late_upload_gives_way() -> None:
    limit = limit_of(1, late=0.05)
    uploads = Uploads(limit)
    await uploads.start("slow", "192.0.2.1")
    await eventually(lambda: _accepts(limit, "192.0.2.1"))
    await eventually(lambda: uploads.displaced == ["slow"])
    # It has not released the slot of the upload that it gave way to.
    with slot(limit), pytest.raises(TooManyUploads), slot(limit):
        pytest.fail("two uploads in one slot")


async def test_upload_that_is_not_late_does_not_give_way() -> None:
    limit = limit_of(1)
    uploads = Uploads(limit)
    await uploads.start("good", "192.0.2.1")
    assert not _accepts(limit, "192.0.2.1")
    assert not _accepts(limit, "192.0.2.2")
    await uploads.stop()


async def test_upload_whose_body_has_arrived_does_not_give_way() -> None:
    limit = limit_of(1, late=0)
    with slot(limit) as upload:
        await received(upload, pieces(b"all", pause=0.01))
        assert not _accepts(limit, "192.0.2.2")


async def test_late_upload_of_the_network_with_most_slots_gives_way_first() -> None:
    limit = limit_of(4, late=0)
    uploads = Uploads(limit)
    for name, client in (("other", "192.0.2.1"), ("first", "192.0.2.2"), ("second", "192.0.2.2")):
        await uploads.start(name, client)
        await asyncio.sleep(0.01)  # each is later than the next
    await uploads.start("last", "192.0.2.3")
    with held(limit, ["192.0.2.9"]):
        await eventually(lambda: uploads.displaced)
    assert uploads.displaced == ["first"]
    await uploads.stop()


async def test_latest_upload_gives_way_first() -> None:
    limit = limit_of(3, late=0)
    uploads = Uploads(limit)
    for name, sent in (("a", bytes(10)), ("b", b"-"), ("c", bytes(10))):
        await uploads.start(name, "192.0.2.1", sent)
        await asyncio.sleep(0.01)
    with held(limit, ["192.0.2.1"] * 3):
        await eventually(lambda: len(uploads.displaced) == 3)
    assert uploads.displaced == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("many", "other", "gives_way"),
    [
        (["192.0.2.1"] * 3, "192.0.2.2", True),
        (["192.0.2.1"] * 3, "192.0.2.1", False),
        (["192.0.2.1"] * 2, "192.0.2.2", False),
        ([""] * 3, "", False),
        (["2001:db8::1", "2001:db8::2", "2001:db8::ffff"], "2001:db8:0:1::1", True),
        (["2001:db8::1", "2001:db8::2", "2001:db8::ffff"], "2001:db8::3", False),
        (["::ffff:192.0.2.1"] * 3, "::ffff:192.0.2.2", True),
        (["::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"], "192.0.2.2", True),
        (["not:an:address"] * 3, "another", True),
    ],
)
async def test_network_with_more_than_half_of_the_slots_gives_one_to_another(
    many: list[str], other: str, *, gives_way: bool
) -> None:
    limit = limit_of(4)
    uploads = Uploads(limit)
    for number in range(4 - len(many)):
        await uploads.start("else", f"198.51.100.{number}")
    for number, client in enumerate(many):
        await uploads.start(str(number), client)
    assert _accepts(limit, other) is gives_way
    await asyncio.sleep(0)
    await eventually(lambda: uploads.displaced == ([str(len(many) - 1)] if gives_way else []))
    await uploads.stop()


async def test_upload_that_is_displaced_as_its_bytes_arrive_ends() -> None:
    limit = limit_of(1, late=0)
    arrived = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        await arrived.wait()
        yield b"bytes"

    with slot(limit) as upload:
        receiving = asyncio.create_task(upload.receive(body()))
        await asyncio.sleep(0.01)
        arrived.set()
        upload.displace()
        with pytest.raises(UploadDisplaced):
            await receiving


async def test_displacement_after_the_wait_ends_the_next_one() -> None:
    upload = upload_of()
    upload.displace()
    with pytest.raises(UploadDisplaced):
        await upload.receive(pieces(b"bytes"))


async def test_slot_is_taken_after_the_first_bytes_or_at_the_end() -> None:
    limit = UploadLimit(1, idle_timeout=LONG, min_rate=1, first=10)
    with limit.upload() as upload, limit.upload() as small:
        chunks = pieces(bytes(9), b"-", b"-")
        assert await upload.receive(chunks) == bytes(9)
        assert _accepts(limit, "")
        assert await received(small, pieces(b"all")) == b"all"
        with pytest.raises(TooManyUploads):
            await upload.receive(chunks)
    with limit.upload() as upload:
        await received(upload, pieces(bytes(10), b"-"))
        assert not _accepts(limit, "")
    assert _accepts(limit, "")


async def test_uploads_without_a_slot_give_way_to_new_ones_the_latest_first() -> None:
    limit = UploadLimit(9, idle_timeout=LONG, min_rate=1, first=10, max_without_slot=3)
    uploads = Uploads(limit)
    for name, client in (("other", "192.0.2.1"), ("first", "192.0.2.2"), ("second", "192.0.2.2")):
        await uploads.start(name, client)
        await asyncio.sleep(0.01)  # each is later than the next
    for number in range(3):
        await uploads.start("new", f"198.51.100.{number}")
    await eventually(lambda: len(uploads.displaced) == 3)
    assert uploads.displaced == ["first", "other", "second"]
    await uploads.stop()


async def test_upload_is_refused_if_all_without_a_slot_are_being_worked_on() -> None:
    limit = UploadLimit(9, idle_timeout=LONG, min_rate=1, max_without_slot=1)
    with limit.upload(), pytest.raises(TooManyUploads), limit.upload():
        pytest.fail("a second upload was begun")
    with limit.upload():
        pass


@contextmanager
def held(limit: UploadLimit, clients: Iterable[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for client in clients:
            stack.enter_context(slot(limit, client))
        yield


def _accepts(limit: UploadLimit, client: str) -> bool:
    try:
        with slot(limit, client):
            return True
    except ServiceError:
        return False
