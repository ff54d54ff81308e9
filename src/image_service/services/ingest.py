"""Accepting an upload: received, judged, stored, recorded, queued, in that order and no other."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from image_service.database import Database
from image_service.domain.image import Image, ImageHeader, Original
from image_service.domain.keys import original_key
from image_service.domain.lane import lane_of
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable, EmptyUpload, IdempotencyKeyReused, Outage, UploadTooLarge
from image_service.ports import NULL_OBSERVER, Delivery, Inspector, ObjectAttributes, Observer, Storage
from image_service.services.outage_retry import retry_on_outage
from image_service.services.queueing import Queueing

_HEAD: Final = 4096
"""Bytes that decide about the format; see ``Inspector.sniff``."""
_BUFFERED: Final = 16 * 1024 * 1024
"""Bytes that all uploads together collect before a thread writes them: memory stays flat, and visits to threads few."""
_LEAST_BUFFER: Final = 128 * 1024
_LARGEST_BUFFER: Final = 512 * 1024
_RECORD_BUDGET: Final = 2.0
_ANSWER_WITHIN: Final = 5.0
"""Seconds from the last byte to the answer, whatever is away: clients and proxies give up soon after."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An upload that will be processed, whatever happens from here on."""

    id: UUID
    status: Status
    """PROCESSING, or NEW while the queue is away; any state if it was accepted before."""
    replayed: bool = False
    """Whether it was accepted before, under the same idempotency key."""


class Ingest:
    """The use case of ``POST /images``."""

    def __init__(
        self,
        *,
        database: Database,
        storage: Storage,
        queueing: Queueing,
        inspector: Inspector,
        max_file_size: int,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        self._database = database
        self._storage = storage
        self._queueing = queueing
        self._inspector = inspector
        self._max_file_size = max_file_size
        self._observer = observer
        self._receiving = 0

    async def accept(
        self, content: AsyncIterator[bytes], *, request_id: str | None = None, idempotency_key: str | None = None
    ) -> Accepted:
        """Take in one file.

        Args:
            content: The file's bytes. It is read no further once the file is known to be unacceptable.
            request_id: Follows the image into the worker's log.
            idempotency_key: However often the same file comes under it, it is one image.

        Raises:
            UploadRejected: the file is unacceptable; nothing of it is kept.
            IdempotencyKeyReused: the same, because another file came under the key before.
            Outage: the file could not be stored or recorded.
        """
        async with self._storage.scratch() as scratch:
            path = scratch / "original"
            original = await self._receive(content, path)
            answer_by = asyncio.get_running_loop().time() + _ANSWER_WITHIN
            if idempotency_key is not None:
                known = await _by(answer_by, lambda: self._known(idempotency_key))
                if known is not None:
                    return _again(known, original.sha256)
            await self._storage.adopt({original_key(original.id): path}, _attributes(original))
        # A file whose recording fails stays: the commit may have happened after all. If not, the sweeper takes it.
        holder = await _by(answer_by, lambda: self._record(original, idempotency_key))
        if holder is not None:
            with suppress(Outage):  # then the sweeper takes it
                await self._storage.delete([original_key(original.id)])
            return _again(holder, original.sha256)
        header = original.header
        delivery = Delivery(image_id=original.id, lane=lane_of(header), request_id=request_id)
        queued = await self._queueing.enqueue(delivery, until=answer_by)
        _log.info(
            "image accepted",
            image_id=str(original.id),
            format=header.format.value,
            width=header.width,
            height=header.height,
            size_bytes=original.size_bytes,
            queued=queued,
        )
        self._observer.accepted(original, queued=queued)
        return Accepted(id=original.id, status=Status.PROCESSING if queued else Status.NEW)

    async def _receive(self, content: AsyncIterator[bytes], path: Path) -> Original:
        """Write the content to a file, and judge it."""
        file = _Incoming(path)
        buffer = bytearray()
        size = 0
        sniffed = False
        self._receiving += 1
        try:
            async for piece in content:
                size += len(piece)
                if size > self._max_file_size:
                    raise UploadTooLarge(
                        f"The file is too large: this service accepts files of up to {self._max_file_size:,} bytes. "
                        "Send a smaller one."
                    )
                buffer += piece
                if not sniffed and size >= _HEAD:
                    self._inspector.sniff(bytes(buffer[:_HEAD]))
                    sniffed = True
                if len(buffer) >= self._buffer_size():
                    await asyncio.to_thread(file.write, buffer)
                    buffer = bytearray()
            if not size:
                raise EmptyUpload
            header = await asyncio.to_thread(self._end, file, buffer)
        finally:
            self._receiving -= 1
            file.close()
        return Original(id=uuid7(), header=header, size_bytes=size, sha256=file.sha256)

    def _buffer_size(self) -> int:
        return max(_LEAST_BUFFER, min(_LARGEST_BUFFER, _BUFFERED // self._receiving))

    def _end(self, file: "_Incoming", rest: bytearray) -> ImageHeader:
        """What is left to do with a file once all of it is there; of most files this is the only visit to a thread."""
        file.write(rest)
        return self._inspector.inspect(file.path)

    async def _known(self, idempotency_key: str) -> Image | None:
        async with self._database.statement() as repositories:
            return await repositories.images.by_idempotency_key(idempotency_key)

    async def _record(self, original: Original, idempotency_key: str | None) -> Image | None:
        """Record an upload; returns the image that has its idempotency key instead, if another was faster."""
        due_in = self._queueing.timing.unqueued_after
        lane = lane_of(original.header)
        if idempotency_key is None:
            async with self._database.statement() as repositories:
                await repositories.images.add(original, lane=lane, due_in=due_in)
            return None
        async with self._database.transaction() as repositories:
            while True:
                await repositories.images.add(original, lane=lane, due_in=due_in, idempotency_key=idempotency_key)
                holder = await repositories.images.by_idempotency_key(idempotency_key)
                if holder is not None:
                    return None if holder.id == original.id else holder
                # The one that was faster has been deleted since: then it is ours.


def _attributes(original: Original) -> dict[str, ObjectAttributes]:
    """How an original presents itself: what a stranger uploaded is for browsers to save, never to show."""
    return {
        original_key(original.id): ObjectAttributes(content_type=original.header.format.content_type, attachment=True)
    }


def _again(known: Image, sha256: str) -> Accepted:
    """The answer to an upload under a key that an image has already."""
    if known.sha256 != sha256:
        raise IdempotencyKeyReused
    return Accepted(id=known.id, status=known.status, replayed=True)


async def _by(deadline: float, work: Callable[[], Awaitable[T]]) -> T:
    """The result of a transaction, tried through short outages until the event loop's time is ``deadline``."""
    try:
        async with asyncio.timeout_at(deadline):
            return await retry_on_outage(work, budget=_RECORD_BUDGET)
    except TimeoutError:
        raise DatabaseUnavailable from None


class _Incoming:
    """The file that an upload is written to. What touches the disk is for a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = hashlib.sha256()
        self._file: FileIO | None = None

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hexadecimal digits."""
        return self._digest.hexdigest()

    def write(self, data: bytearray) -> None:
        """Add to the file, which comes into being with the first piece."""
        if self._file is None:
            self._file = self.path.open("wb", buffering=0)
        self._digest.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            self._file.close()
