"""Removing files that no row names: what crashes and lost claims leave behind."""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog

from image_service.database import Database
from image_service.domain.keys import ORIGINALS, THUMBNAILS, ThumbnailKey, parse_original_key, parse_thumbnail_key
from image_service.ports import Storage

_BATCH: Final = 256

_log = structlog.get_logger(__name__)

Origin = TypeVar("Origin")


class Sweeper:
    """Goes through the storage and asks the database about every file that is old enough.

    Files whose names are not the service's own are left alone.
    """

    def __init__(self, *, database: Database, storage: Storage, grace: float) -> None:
        """Make a sweeper.

        Args:
            database: Where images are recorded.
            storage: Where their files are.
            grace: Seconds below which a file may still be on its way to a row.
        """
        self._database = database
        self._storage = storage
        self._grace = grace

    async def run_once(self) -> int:
        """Remove every orphan; returns how many files and scratch folders that were.

        Raises:
            Outage: the storage or the database is away; the rest is left for the next time.
        """
        removed = await self._storage.sweep_scratch(self._grace)
        removed += await self._sweep(ORIGINALS, parse_original_key, self._orphaned_originals)
        removed += await self._sweep(THUMBNAILS, parse_thumbnail_key, self._orphaned_thumbnails)
        if removed:
            _log.info("removed orphaned files", files=removed)
        return removed

    async def _sweep(
        self,
        prefix: str,
        parse: Callable[[str], Origin | None],
        orphaned: Callable[[Mapping[str, Origin]], Coroutine[Any, Any, list[str]]],
    ) -> int:
        removed = 0
        async for batch in self._batches(prefix, parse):
            keys = await orphaned(batch)
            await self._storage.delete(keys)
            removed += len(keys)
        return removed

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
        return [key for key, image_id in found.items() if image_id not in recorded]

    async def _orphaned_thumbnails(self, found: Mapping[str, ThumbnailKey]) -> list[str]:
        image_ids = {attempt.image_id for attempt in found.values()}
        async with self._database.transaction() as repositories:
            # In this order: an attempt that finishes in between is then in both answers rather than in none.
            in_progress = await repositories.images.attempts_in_progress(image_ids)
            recorded = await repositories.images.thumbnail_keys(image_ids)
        return [key for key, attempt in found.items() if key not in recorded and attempt not in in_progress]
