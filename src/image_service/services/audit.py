"""Audit: compares the database with the storage and the queue, and repairs what it can."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from image_service.database import Database
from image_service.domain.image import Image
from image_service.domain.keys import original_key, parse_original_key, parse_thumbnail_key
from image_service.errors import ObjectMissing, Outage
from image_service.ports import Storage
from image_service.services.reconciler import Reconciler
from image_service.services.reprocessing import Reprocessing, RequeueResult
from image_service.services.sweeper import Sweeper

_BATCH: Final = 100
_TIMED_UUID: Final = 7
"""The UUID version whose order is that of time. The service makes no others."""
_OVERDUE: Final = 60.0
"""Seconds that an image may be due before it counts as stuck; the reconciler runs every few seconds."""


class FindingKind(StrEnum):
    """What is wrong."""

    MISSING = "missing"
    """A recorded file is not in the storage."""
    MISMATCHED = "mismatched"
    """A file's content differs from what is recorded."""
    ORPHANED = "orphaned"
    """No row names a file that is older than the grace for orphans."""
    NEWER = "newer"
    """The same, and it is of an image newer than the newest row: the database may be an older copy without the row."""
    STUCK = "stuck"
    """An unfinished image is overdue: no worker runs, or no worker reaches the queue."""


class Remedy(StrEnum):
    """What repairs a finding."""

    RESTORE_ORIGINAL = "restore-original"
    """An operator restores the original from a backup, or deletes the image."""
    RESTORE_THUMBNAIL = "restore-thumbnail"
    """The same for a thumbnail that cannot be made again, because there is no intact original."""
    REPROCESS = "reprocess"
    """The image is reprocessed."""
    DELETE = "delete"
    """The file is deleted."""
    DELETE_NEWER = "delete-newer"
    """The file is deleted, but only if that is requested: it may be all that is left of an accepted image."""
    REQUEUE = "requeue"
    """A worker's reconciler queues the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong."""

    kind: FindingKind
    subject: str
    """The storage key of a file, or the id of an image."""
    remedy: Remedy
    repaired: bool
    """Whether the remedy was applied; reprocessing may still be under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    key: str
    size_bytes: int
    sha256: str


class Audit:
    """Checks all images and files of a service, which may be running.

    Args:
        database: Where images are recorded.
        storage: Where their files are.
        sweeper: Finds orphaned files.
        reprocessing: Reprocesses images whose thumbnails are damaged.
        reconciler: Queues stuck images; None if the queue cannot be reached from this process.
        batch: Images read in one query.
    """

    def __init__(
        self,
        *,
        database: Database,
        storage: Storage,
        sweeper: Sweeper,
        reprocessing: Reprocessing,
        reconciler: Reconciler | None,
        batch: int = _BATCH,
    ) -> None:
        self._database = database
        self._storage = storage
        self._sweeper = sweeper
        self._reprocessing = reprocessing
        self._reconciler = reconciler
        self._batch = batch

    async def run(self, *, repair: bool, delete_newer: bool = False, contents: bool = True) -> AsyncIterator[Finding]:
        """Yields everything that is wrong.

        Args:
            repair: Whether to repair what can be repaired; otherwise nothing is changed.
            delete_newer: Whether a repair deletes also files of images newer than the newest row.
            contents: Whether to read every file completely, rather than its first byte.

        Raises:
            Outage: the database or the storage is unavailable.
        """
        last: UUID | None = None
        while images := await self._page(last):
            last = images[-1].id
            for image in images:
                async for finding in self._image(image, repair=repair, contents=contents):
                    yield finding
        async for finding in self._orphans(repair=repair, delete_newer=delete_newer):
            yield finding
        async for finding in self._stuck(repair=repair):
            yield finding

    async def _page(self, after: UUID | None) -> list[Image]:
        async with self._database.transaction() as repositories:
            return list(await repositories.catalogue.oldest(limit=self._batch, after=after))

    async def _image(self, image: Image, *, repair: bool, contents: bool) -> AsyncIterator[Finding]:
        original, *thumbnails = _files_of(image)
        damaged: dict[_File, FindingKind] = {}
        for file in (original, *thumbnails) if image.original_removed_at is None else thumbnails:
            if (kind := await self._check(file, contents=contents)) is not None:
                damaged[file] = kind
        if not damaged:
            return
        # The image may have been deleted or reprocessed since it was read.
        async with self._database.statement() as repositories:
            current = await repositories.images.get(image.id)
        recorded = set() if current is None else set(_files_of(current))
        if current is not None and current.original_removed_at is not None:
            recorded.discard(original)
        original_intact = original not in damaged and image.original_removed_at is None
        reprocessed = (
            repair and original_intact and any(file in recorded for file in damaged) and await self._reprocess(image)
        )
        for file, kind in damaged.items():
            if file not in recorded:
                continue
            if file is original:
                remedy = Remedy.RESTORE_ORIGINAL
            else:
                remedy = Remedy.REPROCESS if original_intact else Remedy.RESTORE_THUMBNAIL
            repaired = reprocessed and remedy is Remedy.REPROCESS
            yield Finding(kind=kind, subject=file.key, remedy=remedy, repaired=repaired)

    async def _check(self, file: _File, *, contents: bool) -> FindingKind | None:
        digest = hashlib.sha256()
        size = 0
        try:
            async for piece in self._storage.read(file.key, 0, None if contents else 1):
                digest.update(piece)
                size += len(piece)
        except ObjectMissing:
            return FindingKind.MISSING
        intact = digest.hexdigest() == file.sha256 if contents else size > 0
        return None if intact else FindingKind.MISMATCHED

    async def _reprocess(self, image: Image) -> bool:
        """Reprocess an image, unless it is being processed already; returns whether it will be."""
        result = await self._reprocessing.requeue(image.id)
        return result in {RequeueResult.REPROCESSING, RequeueResult.MADE_DUE, RequeueResult.BUSY}

    async def _orphans(self, *, repair: bool, delete_newer: bool) -> AsyncIterator[Finding]:
        async with self._database.transaction() as repositories:
            newest = next((image.id for image in await repositories.catalogue.newest(limit=1)), None)
        async for keys in self._sweeper.orphans():
            newer = {key for key in keys if _is_newer(key, newest)}
            deleted = [key for key in keys if repair and (delete_newer or key not in newer)]
            await self._storage.delete(deleted)
            for key in keys:
                kind, remedy = (
                    (FindingKind.NEWER, Remedy.DELETE_NEWER) if key in newer else (FindingKind.ORPHANED, Remedy.DELETE)
                )
                yield Finding(kind=kind, subject=key, remedy=remedy, repaired=key in deleted)

    async def _stuck(self, *, repair: bool) -> AsyncIterator[Finding]:
        found = await self._overdue()
        if found and repair and self._reconciler is not None:
            # Any process may run the reconciler, although it is a worker's job.
            with suppress(Outage):
                await self._reconciler.run_once()
        left = set(await self._overdue()) if repair else set(found)
        for image_id in found:
            yield Finding(
                kind=FindingKind.STUCK,
                subject=str(image_id),
                remedy=Remedy.REQUEUE,
                repaired=image_id not in left,
            )

    async def _overdue(self) -> Sequence[UUID]:
        async with self._database.statement() as repositories:
            return await repositories.catalogue.overdue(seconds=_OVERDUE, limit=self._batch)


def _is_newer(key: str, newest: UUID | None) -> bool:
    """Whether a file is of an image that is newer than the newest one that is recorded, or than none."""
    thumbnail = parse_thumbnail_key(key)
    image_id = parse_original_key(key) if thumbnail is None else thumbnail.image_id
    if image_id is None or image_id.version != _TIMED_UUID:
        return False
    return newest is None or image_id > newest


def _files_of(image: Image) -> list[_File]:
    """Returns the files that an image should have: its original, then its thumbnails."""
    original = _File(key=original_key(image.id), size_bytes=image.size_bytes, sha256=image.sha256)
    return [original, *(_File(key=t.key, size_bytes=t.size_bytes, sha256=t.sha256) for t in image.thumbnails)]
