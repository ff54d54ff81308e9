"""Sweeper: deletes orphaned files, which crashes and lost claims leave."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, TypeVar
from uuid import UUID

import structlog

from image_service.database import Database
from image_service.domain.keys import ORIGINALS, THUMBNAILS, ThumbnailKey, parse_original_key, parse_thumbnail_key
from image_service.errors import ForeignStorage
from image_service.ports import Storage
from image_service.services.removing import delete_each
from image_service.services.storage_binding import StorageBinding

_BATCH: Final = 256

_log = structlog.get_logger(__name__)

Origin = TypeVar("Origin")


class Sweeper:
    """Finds files that no row names. Ignores files whose names the service does not make.

    Args:
        database: Where images are recorded.
        storage: Where their files are.
        grace: Seconds for which a file without a row is kept, because the row may follow.
        clock: Returns monotonic time in seconds.
        batch: Files looked up in one query.
    """

    def __init__(
        self,
        *,
        database: Database,
        storage: Storage,
        grace: float,
        clock: Callable[[], float] = time.monotonic,
        batch: int = _BATCH,
    ) -> None:
        self._database = database
        self._storage = storage
        self._binding = StorageBinding(database=database, storage=storage)
        self._grace = grace
        self._clock = clock
        self._batch = batch
        self._failed = False
        """Whether the last run failed. The next one then deletes one file at a time: it may have been a single one."""
        self._first_seen: dict[str, float] = {}
        """When each orphan was first seen. A file's age is not sufficient: system clocks can jump."""

    async def run_once(self) -> int:
        """Delete files that were orphans for the whole grace, and old scratch directories; returns how many.

        Raises:
            Outage: the storage or the database is unavailable; the rest stays for the next run.
        """
        try:
            await self._binding.verify()
        except ForeignStorage as error:
            _log.error("sweep skipped: the storage holds another database's files", reason=error.detail)
            return 0
        one_at_a_time, self._failed = self._failed, True
        removed = await self._storage.sweep_scratch(self._grace)
        now = self._clock()
        first_seen: dict[str, float] = {}
        async for orphans in self.orphans():
            first_seen |= {key: self._first_seen.get(key, now) for key in orphans}
            due = [key for key in orphans if now - first_seen[key] >= self._grace]
            removed += await self._delete(due, one_at_a_time=one_at_a_time)
        self._first_seen = first_seen
        self._failed = False
        if removed:
            _log.info("orphaned files deleted", files=removed)
        return removed

    async def _delete(self, keys: list[str], *, one_at_a_time: bool) -> int:
        """Delete files; returns how many."""
        if one_at_a_time:
            return len(keys) - len(await delete_each(self._storage, keys))
        await self._storage.delete(keys)
        return len(keys)

    async def orphans(self) -> AsyncIterator[list[str]]:
        """Yields the keys of orphaned files that are older than the grace, in batches.

        Raises:
            Outage: the storage or the database is unavailable.
            ForeignStorage: the storage is not this database's: all its files would seem orphaned.
        """
        await self._binding.verify()
        async for originals in self._batches(ORIGINALS, parse_original_key):
            yield await self._orphaned_originals(originals)
        async for thumbnails in self._batches(THUMBNAILS, parse_thumbnail_key):
            yield await self._orphaned_thumbnails(thumbnails)

    async def _batches(self, prefix: str, parse: Callable[[str], Origin | None]) -> AsyncIterator[dict[str, Origin]]:
        """Yields the files under a prefix that are older than the grace, by key, with their parsed keys."""
        batch: dict[str, Origin] = {}
        async for item in self._storage.list(prefix):
            if item.age_seconds > self._grace and (origin := parse(item.key)) is not None:
                batch[item.key] = origin
            if len(batch) == self._batch:
                yield batch
                batch = {}
        if batch:
            yield batch

    async def _orphaned_originals(self, found: Mapping[str, UUID]) -> list[str]:
        async with self._database.transaction() as repositories:
            recorded = await repositories.images.existing(set(found.values()))
            awaited = await repositories.removals.pending(found)
        return [key for key, image_id in found.items() if image_id not in recorded and key not in awaited]

    async def _orphaned_thumbnails(self, found: Mapping[str, ThumbnailKey]) -> list[str]:
        image_ids = {attempt.image_id for attempt in found.values()}
        async with self._database.transaction() as repositories:
            # In this order: an attempt that finishes in between is then in both results rather than in neither.
            in_progress = await repositories.claims.attempts_in_progress(image_ids)
            recorded = await repositories.images.thumbnail_keys(image_ids)
            # Replaced thumbnails stay for a while, because clients may still request them.
            recorded |= await repositories.removals.pending(found)
        return [key for key, attempt in found.items() if key not in recorded and attempt not in in_progress]
