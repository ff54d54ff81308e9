"""Comparing what is recorded with what there is, and mending what can be mended."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from image_service.database import Database
from image_service.domain.image import Image
from image_service.domain.keys import original_key
from image_service.domain.lane import lane_of
from image_service.domain.status import Status
from image_service.errors import ObjectMissing, Outage
from image_service.ports import Storage
from image_service.services.reconcile import Reconciler
from image_service.services.sweep import Sweeper

_BATCH: Final = 100
_OVERDUE: Final = 60.0
"""Seconds that the reconciler may be late before an image counts as stuck; its rounds are some seconds apart."""


class Trouble(StrEnum):
    """What can be wrong."""

    MISSING = "missing"
    """A file that a row names is not in the storage."""
    MISMATCHED = "mismatched"
    """A file has another content than its row says."""
    ORPHANED = "orphaned"
    """No row names a file that is old enough for one."""
    STUCK = "stuck"
    """Nobody looks after an unfinished image: no worker runs, or none reaches the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong."""

    trouble: Trouble
    subject: str
    """The storage key of a file, or the id of an image."""
    remedy: str
    """What was done about it, or what to do."""
    mended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    key: str
    size_bytes: int
    sha256: str


class Audit:
    """Goes through everything, beside a running service."""

    def __init__(
        self, *, database: Database, storage: Storage, sweeper: Sweeper, reconciler: Reconciler | None
    ) -> None:
        """Make it; without a reconciler, where the queue cannot be reached from here."""
        self._database = database
        self._storage = storage
        self._sweeper = sweeper
        self._reconciler = reconciler

    async def run(self, *, repair: bool, contents: bool = True) -> AsyncIterator[Finding]:
        """Tell of everything that is wrong.

        Args:
            repair: Whether to mend what can be mended; else nothing is changed.
            contents: Whether to read every file, rather than to look for its first byte.

        Raises:
            Outage: the database or the storage is away.
        """
        last: UUID | None = None
        while images := await self._page(last):
            last = images[-1].id
            for image in images:
                async for finding in self._image(image, repair=repair, contents=contents):
                    yield finding
        async for finding in self._orphans(repair=repair):
            yield finding
        async for finding in self._stuck(repair=repair):
            yield finding

    async def _page(self, after: UUID | None) -> list[Image]:
        async with self._database.transaction() as repositories:
            return list(await repositories.catalogue.oldest(limit=_BATCH, after=after))

    async def _image(self, image: Image, *, repair: bool, contents: bool) -> AsyncIterator[Finding]:
        original, *thumbnails = _files_of(image)
        lost: dict[_File, Trouble] = {}
        for file in (original, *thumbnails) if image.original_removed_at is None else thumbnails:
            if (trouble := await self._trouble(file, contents=contents)) is not None:
                lost[file] = trouble
        if not lost:
            return
        # The image may have been deleted or rendered anew since it was read.
        async with self._database.statement() as repositories:
            current = await repositories.images.get(image.id)
        named = set() if current is None else set(_files_of(current))
        if current is not None and current.original_removed_at is not None:
            named.discard(original)
        renewable = original not in lost and image.original_removed_at is None
        renewed = repair and renewable and any(file in named for file in lost) and await self._renew(image)
        for file, trouble in lost.items():
            if file in named:
                yield Finding(
                    trouble=trouble,
                    subject=file.key,
                    mended=renewed and file is not original,
                    remedy=_remedy(of_original=file is original, renewable=renewable, renewed=renewed),
                )

    async def _trouble(self, file: _File, *, contents: bool) -> Trouble | None:
        digest = hashlib.sha256()
        size = 0
        try:
            async for piece in self._storage.read(file.key, 0, None if contents else 1):
                digest.update(piece)
                size += len(piece)
        except ObjectMissing:
            return Trouble.MISSING
        whole = digest.hexdigest() == file.sha256 if contents else size > 0
        return None if whole else Trouble.MISMATCHED

    async def _renew(self, image: Image) -> bool:
        """Have the thumbnails made again; whether they will be."""
        async with self._database.transaction() as repositories:
            asked = await repositories.images.reprocess([image.id], lane=lane_of(image.header), due_in=0)
            now = await repositories.images.get(image.id)
        return bool(asked) or (now is not None and now.status in {Status.NEW, Status.PROCESSING})

    async def _orphans(self, *, repair: bool) -> AsyncIterator[Finding]:
        async for keys in self._sweeper.orphans():
            if repair:
                await self._storage.delete(keys)
            remedy = "removed" if repair else "nothing needs it: a worker removes it soon, or --repair now"
            for key in keys:
                yield Finding(trouble=Trouble.ORPHANED, subject=key, remedy=remedy, mended=repair)

    async def _stuck(self, *, repair: bool) -> AsyncIterator[Finding]:
        found = await self._overdue()
        if found and repair and self._reconciler is not None:
            # Queueing what is due is a worker's job, which anybody may do.
            with suppress(Outage):
                await self._reconciler.run_once()
        left = set(await self._overdue()) if repair else set(found)
        for image_id in found:
            mended = image_id not in left
            remedy = (
                "queued" if mended else "start a worker, and see that it reaches the queue: it mends this by itself"
            )
            yield Finding(trouble=Trouble.STUCK, subject=str(image_id), remedy=remedy, mended=mended)

    async def _overdue(self) -> Sequence[UUID]:
        async with self._database.statement() as repositories:
            return await repositories.catalogue.overdue(seconds=_OVERDUE, limit=_BATCH)


def _remedy(*, of_original: bool, renewable: bool, renewed: bool) -> str:
    if of_original:
        return "cannot be made again: restore the file from a backup, or delete the image"
    if not renewable:
        return "cannot be made again without the original: restore the file from a backup, or delete the image"
    return "is made again" if renewed else "can be made again from the original: --repair does"


def _files_of(image: Image) -> list[_File]:
    """The files that an image should have: its original, then its thumbnails."""
    original = _File(key=original_key(image.id), size_bytes=image.size_bytes, sha256=image.sha256)
    return [original, *(_File(key=t.key, size_bytes=t.size_bytes, sha256=t.sha256) for t in image.thumbnails)]
