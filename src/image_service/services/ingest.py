"""Accepting an upload: received, judged, stored, recorded, queued, in that order and no other."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from image_service.database import Database
from image_service.domain.image import Original
from image_service.domain.keys import original_key
from image_service.domain.lane import lane_of
from image_service.domain.status import Status
from image_service.errors import EmptyUpload, Outage, UploadTooLarge
from image_service.ports import Delivery, Inspector, Storage, TaskQueue
from image_service.services.patience import through_outage
from image_service.services.timing import QueueTiming

_HEAD: Final = 4096
"""Bytes that decide about the format; see ``Inspector.sniff``."""
_BUFFER: Final = 256 * 1024
"""Bytes collected before a thread writes them: memory stays flat, and threads stay few."""
_RECORD_PATIENCE: Final = 2.0
_ANSWER_WITHIN: Final = 5.5
"""Seconds from the last byte to the answer, whatever is away: clients and proxies give up soon after."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An upload that will be processed, whatever happens from here on."""

    id: UUID
    status: Status
    """PROCESSING, or NEW while the queue is away."""


class Ingest:
    """The use case of ``POST /images``."""

    def __init__(
        self,
        *,
        database: Database,
        storage: Storage,
        queue: TaskQueue,
        inspector: Inspector,
        max_file_size: int,
        timing: QueueTiming,
    ) -> None:
        self._database = database
        self._storage = storage
        self._queue = queue
        self._inspector = inspector
        self._max_file_size = max_file_size
        self._timing = timing

    async def accept(self, content: AsyncIterator[bytes], *, request_id: str | None = None) -> Accepted:
        """Take in one file.

        Args:
            content: The file's bytes. It is read no further once the file is known to be unacceptable.
            request_id: Follows the image into the worker's log.

        Raises:
            UploadRejected: the file is unacceptable; nothing of it is kept.
            Outage: the file could not be stored or recorded.
        """
        async with self._storage.scratch() as scratch:
            path = scratch / "original"
            size, sha256 = await self._receive(content, path)
            answer_by = asyncio.get_running_loop().time() + _ANSWER_WITHIN
            header = await asyncio.to_thread(self._inspector.inspect, path)
            original = Original(id=uuid7(), header=header, size_bytes=size, sha256=sha256)
            await self._storage.adopt({original_key(original.id): path})
        # A file whose recording fails stays: the commit may have happened after all. If not, the sweeper takes it.
        await through_outage(lambda: self._record(original), patience=_RECORD_PATIENCE)
        delivery = Delivery(image_id=original.id, lane=lane_of(header), request_id=request_id)
        queued = await self._enqueue(delivery, answer_by)
        _log.info(
            "image accepted",
            image_id=str(original.id),
            format=header.format.value,
            width=header.width,
            height=header.height,
            size_bytes=size,
            queued=queued,
        )
        return Accepted(id=original.id, status=Status.PROCESSING if queued else Status.NEW)

    async def _receive(self, content: AsyncIterator[bytes], path: Path) -> tuple[int, str]:
        """Write the content to a file; returns its size in bytes and its SHA-256."""
        digest = hashlib.sha256()
        buffer = bytearray()
        size = 0
        sniffed = False
        file = await asyncio.to_thread(path.open, "wb", buffering=0)
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
                if len(buffer) >= _BUFFER:
                    await asyncio.to_thread(_write, file, buffer, digest)
                    buffer = bytearray()
            if not size:
                raise EmptyUpload
            await asyncio.to_thread(_write, file, buffer, digest)
        finally:
            file.close()
        return size, digest.hexdigest()

    async def _record(self, original: Original) -> None:
        async with self._database.transaction() as repositories:
            await repositories.images.add(original, due_in=self._timing.unqueued_after)

    async def _enqueue(self, delivery: Delivery, answer_by: float) -> bool:
        """Whether the image is known to be queued. If not, it waits as NEW, and the reconciler queues it."""
        try:
            async with asyncio.timeout_at(answer_by):
                await self._queue.publish(delivery)
                async with self._database.transaction() as repositories:
                    # False means that a worker was faster: the image is queued all the more.
                    await repositories.images.mark_queued(delivery.image_id, due_in=self._timing.unclaimed_after)
        except (Outage, TimeoutError) as error:
            reason = str(error) or "no answer in time"
            _log.warning("image waits to be queued", image_id=str(delivery.image_id), reason=reason)
            return False
        return True


def _write(file: BinaryIO, data: bytearray, digest: "hashlib._Hash") -> None:
    digest.update(data)
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
