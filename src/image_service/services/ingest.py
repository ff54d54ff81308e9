"""Accepts uploads: receives, checks, stores, records and publishes, in this order."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from image_service.database import Database
from image_service.domain.image import Image, ImageHeader, Original
from image_service.domain.keys import original_key
from image_service.domain.lane import Lane, lane_of
from image_service.domain.recipe import DEFAULT_NAME, Recipes
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable, EmptyUpload, IdempotencyKeyReused, Outage, UploadTooLarge
from image_service.ports import (
    NULL_OBSERVER,
    NULL_SIGNAL,
    Delivery,
    EventSignal,
    Inspector,
    ObjectAttributes,
    Observer,
    Storage,
)
from image_service.services.outage_retry import retry_on_outage
from image_service.services.publishing import Publisher
from image_service.services.recipes import recipe_named
from image_service.services.scratch_file import ScratchFile
from image_service.services.upload_options import CheckedOptions, OptionsChoice, UploadOptions, registered

_HEAD: Final = 4096
"""Bytes from which the format is detected; see ``Inspector.sniff``."""
_TOTAL_BUFFER: Final = 16 * 1024 * 1024
"""Bytes that all uploads together buffer before a thread writes them. Bounds memory, with few switches to threads."""
_MIN_BUFFER: Final = 128 * 1024
_MAX_BUFFER: Final = 512 * 1024

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A received and checked upload in a scratch directory."""

    original: Original
    lane: Lane
    """The lane to queue it in."""
    path: Path
    scratch: AsyncExitStack
    """Removes the scratch directory at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestLimits:
    """Limits on one upload."""

    max_file_size: int
    """Size of the file in bytes."""
    answer_within: float = 5.0
    """Seconds for which ``commit`` waits for the database and the queue; clients and proxies time out soon after."""
    record_budget: float = 2.0
    """Seconds for which a transaction is retried on outages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A recorded image."""

    id: UUID
    status: Status
    """PROCESSING, or NEW if the queue is unavailable; any state if it is replayed."""
    replayed: bool = False
    """Whether the image was accepted before, under the same idempotency key."""


class Ingest:
    """Accepts uploads."""

    def __init__(  # noqa: PLR0913 — collaborators, all by keyword
        self,
        *,
        database: Database,
        storage: Storage,
        publisher: Publisher,
        inspector: Inspector,
        limits: IngestLimits,
        recipes: Recipes,
        observer: Observer = NULL_OBSERVER,
        signal: EventSignal = NULL_SIGNAL,
    ) -> None:
        self._database = database
        self._storage = storage
        self._publisher = publisher
        self._inspector = inspector
        self._limits = limits
        self._recipes = recipes
        self._observer = observer
        self._signal = signal
        self._receiving = 0

    async def accept(
        self,
        content: AsyncIterator[bytes],
        *,
        options: OptionsChoice = UploadOptions,
        request_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Accepted:
        """Receive and commit one file; see ``receive`` and ``commit``, whose errors it raises."""
        staged = await self.receive(content, options=options)
        return await self.commit(staged, request_id=request_id, idempotency_key=idempotency_key)

    async def receive(self, content: AsyncIterator[bytes], *, options: OptionsChoice = UploadOptions) -> Staged:
        """Write a file to a scratch directory and check it. ``commit`` removes the directory.

        Args:
            content: The file's bytes. Reading stops as soon as the file is known to be unacceptable.
            options: Gives what the client says about it; if that is not valid, nothing of the file is written.

        Raises:
            UploadRejected: the file is unacceptable; nothing of it is kept.
            Outage: the scratch directory cannot be written to, or the disk is almost full.
        """
        await self._storage.check_space()
        async with AsyncExitStack() as stack:
            scratch = await stack.enter_async_context(self._storage.scratch())
            path = scratch / "original"
            original = await self._write(content, path, options)
            lane = lane_of(original.header, original.size_bytes, recipe_named(self._recipes, original.recipe_name))
            return Staged(original=original, lane=lane, path=path, scratch=stack.pop_all())

    async def commit(
        self, staged: Staged, *, request_id: str | None = None, idempotency_key: str | None = None
    ) -> Accepted:
        """Store, record and publish a received file. Must be called once.

        Args:
            staged: The file.
            request_id: Appears in the worker's log.
            idempotency_key: The same file with the same recipe is recorded once under the same key.

        Raises:
            IdempotencyKeyReused: another file or recipe was accepted under the key; this file is not kept.
            Outage: the file could not be stored or recorded.
        """
        original = staged.original
        answer_by = asyncio.get_running_loop().time() + self._limits.answer_within
        async with staged.scratch:
            if idempotency_key is not None:
                known = await self._by(answer_by, lambda: self._known(idempotency_key))
                if known is not None:
                    return _replayed(known, original)
            await self._storage.adopt({original_key(original.id): staged.path}, _attributes(original))
        holder = await self._record_or_remove(staged, idempotency_key, answer_by)
        if holder is not None:
            await self._remove(original, answer_by)
            return _replayed(holder, original)
        self._signal.notify()
        header = original.header
        delivery = Delivery(image_id=original.id, lane=staged.lane, request_id=request_id)
        queued = await self._publisher.try_publish(delivery, until=answer_by)
        _log.info(
            "image accepted",
            image_id=str(original.id),
            format=header.format.value,
            width=header.width,
            height=header.height,
            size_bytes=original.size_bytes,
            recipe=original.recipe_name or DEFAULT_NAME,
            queued=queued,
        )
        self._observer.accepted(original, queued=queued)
        return Accepted(id=original.id, status=Status.PROCESSING if queued else Status.NEW)

    async def _write(self, content: AsyncIterator[bytes], path: Path, options: OptionsChoice) -> Original:
        """Write the content to a file and check it."""
        file = ScratchFile(path)
        max_size = self._limits.max_file_size
        buffer = bytearray()
        size = 0
        sniffed = False
        chosen: CheckedOptions | None = None
        self._receiving += 1
        try:
            async for piece in content:
                if chosen is None:
                    budget = self._limits.record_budget
                    chosen = await registered(options(), self._recipes, self._database, budget=budget)
                size += len(piece)
                if size > max_size:
                    raise UploadTooLarge(
                        f"The file is too large: this service accepts files of up to {max_size:,} bytes. "
                        "Send a smaller one."
                    )
                buffer += piece
                if not sniffed and size >= _HEAD:
                    self._inspector.sniff(bytes(buffer[:_HEAD]))
                    sniffed = True
                if len(buffer) >= self._buffer_size():
                    await self._storage.check_space()
                    await asyncio.to_thread(file.write, buffer)
                    buffer = bytearray()
            if chosen is None or not size:
                raise EmptyUpload
            header = await asyncio.to_thread(self._finish, file, buffer)
        finally:
            self._receiving -= 1
            file.close()
        return Original(
            id=uuid7(),
            header=header,
            size_bytes=size,
            sha256=file.sha256,
            recipe_name=None if chosen.recipe is self._recipes.default else chosen.recipe.name,
            metadata=chosen.metadata,
            webhook_id=chosen.webhook_id,
        )

    def _buffer_size(self) -> int:
        return max(_MIN_BUFFER, min(_MAX_BUFFER, _TOTAL_BUFFER // self._receiving))

    def _finish(self, file: ScratchFile, rest: bytearray) -> ImageHeader:
        """Write the rest of a file and inspect it. For most files this is the only switch to a thread."""
        file.write(rest)
        return self._inspector.inspect(file.path)

    async def _known(self, idempotency_key: str) -> Image | None:
        async with self._database.statement() as repositories:
            return await repositories.images.by_idempotency_key(idempotency_key)

    async def _record_or_remove(self, staged: Staged, idempotency_key: str | None, until: float) -> Image | None:
        """Record an upload, retried on short outages. Where it certainly could not be recorded, remove its file.

        Where the outcome is unknown the file stays; the sweeper removes it if no row names it.
        """
        unrecorded = True

        async def once() -> Image | None:
            nonlocal unrecorded
            before, unrecorded = unrecorded, False  # unknown, until the outcome is known
            try:
                return await self._record(staged, idempotency_key)
            except DatabaseUnavailable as outage:
                unrecorded = before and outage.unchanged
                raise

        try:
            return await self._by(until, once)
        except DatabaseUnavailable:
            if unrecorded:
                await self._remove(staged.original, until)
            raise

    async def _remove(self, original: Original, until: float) -> None:
        with suppress(Outage, TimeoutError):  # the sweeper removes it then
            async with asyncio.timeout_at(until):
                await self._storage.delete([original_key(original.id)])

    async def _record(self, staged: Staged, idempotency_key: str | None) -> Image | None:
        """Record an upload. If another image has its idempotency key, returns that one and records nothing."""
        original, lane = staged.original, staged.lane
        due_in = self._publisher.timing.unqueued_after
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
                # The image that had the key was deleted in between: try again.

    async def _by(self, deadline: float, work: Callable[[], Awaitable[T]]) -> T:
        """Returns the result of a transaction, retried on short outages until the event loop's time is ``deadline``."""
        try:
            async with asyncio.timeout_at(deadline):
                return await retry_on_outage(work, budget=self._limits.record_budget)
        except TimeoutError:
            raise DatabaseUnavailable(cause="not recorded in time") from None


def _attributes(original: Original) -> dict[str, ObjectAttributes]:
    """Returns the HTTP metadata of an original: browsers save untrusted files instead of displaying them."""
    return {
        original_key(original.id): ObjectAttributes(content_type=original.header.format.content_type, attachment=True)
    }


def _replayed(known: Image, original: Original) -> Accepted:
    """Returns the image that has the upload's idempotency key, if it is the same file with the same recipe."""
    if (known.sha256, known.recipe_name) != (original.sha256, original.recipe_name):
        raise IdempotencyKeyReused
    return Accepted(id=known.id, status=known.status, replayed=True)
