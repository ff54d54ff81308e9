"""Deleting images: first the rows, which nobody finds any more; then, however often it takes, the files."""

import asyncio
from typing import Final
from uuid import UUID

import structlog

from image_service.database import Database
from image_service.errors import ImageNotFound, Outage
from image_service.ports import Storage

_BATCH: Final = 256
_FILES_LIMIT: Final = 2.0
"""Seconds for which whoever deletes an image waits for its files to go."""

_log = structlog.get_logger(__name__)


class Deletion:
    """Forgets images, and removes the files that no row names any more."""

    def __init__(self, *, database: Database, storage: Storage) -> None:
        self._database = database
        self._storage = storage

    async def delete(self, image_id: UUID) -> None:
        """Forget an image for good, in whatever state it is. Its files go at once, or as soon as the storage is back.

        Raises:
            ImageNotFound: there is none with this id (any more).
            DatabaseUnavailable: it may or may not be forgotten.
        """
        async with self._database.transaction() as repositories:
            keys = await repositories.images.remove([image_id])
        if not keys:
            raise ImageNotFound
        _log.info("image deleted", image_id=str(image_id))
        try:
            async with asyncio.timeout(_FILES_LIMIT):
                await self._remove(keys)
        except (Outage, TimeoutError) as error:
            reason = str(error) or "no answer in time"
            _log.warning("files are removed later", image_id=str(image_id), reason=reason)

    async def run_once(self) -> int:
        """Remove the files whose time has come; returns how many. Safe to run in every worker at once.

        Raises:
            Outage: the storage or the database is away; the rest is left for the next time.
        """
        removed = 0
        while keys := await self._due():
            await self._remove(keys)
            removed += len(keys)
        if removed:
            _log.info("removed files of deleted or replaced images", files=removed)
        return removed

    async def _due(self) -> list[str]:
        async with self._database.statement() as repositories:
            return list(await repositories.removals.due(limit=_BATCH))

    async def _remove(self, keys: list[str]) -> None:
        await self._storage.delete(keys)
        async with self._database.statement() as repositories:
            await repositories.removals.done(keys)
