"""Removing files that no row names: what crashes and lost claims leave behind."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, TypeVar
from uuid import UUID

import structlog

from image_service.database import Database
from image_service.domain.keys import ORIGINALS, THUMBNAILS, ThumbnailKey, parse_original_key, parse_thumbnail_key
from image_service.errors import ForeignStorage
from image_service.ports import Storage

_BATCH: Final = 256

_log = structlog.get_logger(__name__)

Origin = TypeVar("Origin")


class Sweeper:
    """Goes through the storage and asks the database about every file that is old enough.

    Files whose names are not the service's own are left alone.
    """

    def __init__(
        self, *, database: Database, storage: Storage, grace: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make a sweeper.

        Args:
            database: Where images are recorded.
            storage: Where their files are.
            grace: Seconds below which a file may still be on its way to a row.
            clock: Seconds that pass evenly.
        """
        self._database = database
        self._storage = storage
        self._grace = grace
        self._clock = clock
        self._sighted: dict[str, float] = {}
        """When each orphan was first seen. A file's age alone proves nothing: clocks are put forward."""

    async def run_once(self) -> int:
        """Remove what has been an orphan for the whole grace; returns how many files and scratch folders that were.

        Raises:
            Outage: the storage or the database is away; the rest is left for the next time.
        """
        try:
            await self._verify()
        except ForeignStorage as error:
            _log.error("nothing is swept: the storage holds another database's files", reason=error.detail)
            return 0
        removed = await self._storage.sweep_scratch(self._grace)
        now = self._clock()
        sighted: dict[str, float] = {}
        async for orphans in self.orphans():
            sighted |= {key: self._sighted.get(key, now) for key in orphans}
            due = [key for key in orphans if now - sighted[key] >= self._grace]
            await self._storage.delete(due)
            removed += len(due)
        self._sighted = sighted
        if removed:
            _log.info("removed orphaned files", files=removed)
        return removed

    async def orphans(self) -> AsyncIterator[list[str]]:
        """The keys of files that no row names, and none is going to name; a batch at a time.

        Raises:
            Outage: the storage or the database is away.
            ForeignStorage: to this database all of them would seem to be such files.
        """
        await self._verify()
        async for originals in self._batches(ORIGINALS, parse_original_key):
            yield await self._orphaned_originals(originals)
        async for thumbnails in self._batches(THUMBNAILS, parse_thumbnail_key):
            yield await self._orphaned_thumbnails(thumbnails)

    async def _verify(self) -> None:
        """Make sure that the database and the storage belong together, as they do from the first time on."""
        async with self._database.statement() as repositories:
            own = str(await repositories.catalogue.identity())
        if await self._storage.bind_to_database(own) != own:
            raise ForeignStorage

    async def _batches(self, prefix: str, parse: Callable[[str], Origin | None]) -> AsyncIterator[dict[str, Origin]]:
        """The old files under a prefix, by key, with what their keys say about their origin."""
        batch: dict[str, Origin] = {}
        async for item in self._storage.list(prefix):
            if item.age_seconds > self._grace and (origin := parse(item.key)) is not None:
                batch[item.key] = origin
            if len(batch) == _BATCH:
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
            # In this order: an attempt that finishes in between is then in both answers rather than in none.
            in_progress = await repositories.claims.attempts_in_progress(image_ids)
            recorded = await repositories.images.thumbnail_keys(image_ids)
            # Their readers may still be on the way to them.
            recorded |= await repositories.removals.pending(found)
        return [key for key, attempt in found.items() if key not in recorded and attempt not in in_progress]
