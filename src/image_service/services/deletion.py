"""Deletes images: first their rows, then their files."""

import asyncio
from typing import Final
from uuid import UUID

import structlog

from image_service.database import Database
from image_service.errors import ImageNotFound, Outage
from image_service.ports import Storage

_BATCH: Final = 256
_FILES_TIMEOUT: Final = 2.0

_log = structlog.get_logger(__name__)


class Deletion:
    """Deletes images, and the files of deleted images and replaced thumbnails.

    Args:
        database: Where images and removals are recorded.
        storage: Where the files are.
        batch: Files deleted at once.
        files_timeout: Seconds for which ``delete`` waits until the files are deleted.
    """

    def __init__(
        self, *, database: Database, storage: Storage, batch: int = _BATCH, files_timeout: float = _FILES_TIMEOUT
    ) -> None:
        self._database = database
        self._storage = storage
        self._batch = batch
        self._files_timeout = files_timeout

    async def delete(self, image_id: UUID) -> None:
        """Delete an image in any state. Its files are deleted at once, or later if the storage is unavailable.

        Raises:
            ImageNotFound: there is no image with this id.
            DatabaseUnavailable: it may or may not be deleted.
        """
        async with self._database.transaction() as repositories:
            keys = await repositories.images.remove([image_id])
        if not keys:
            raise ImageNotFound
        _log.info("image deleted", image_id=str(image_id))
        try:
            async with asyncio.timeout(self._files_timeout):
                await self._remove(keys)
        except (Outage, TimeoutError) as error:
            reason = str(error) or "no answer in time"
            _log.warning("files not deleted yet; a worker will", image_id=str(image_id), reason=reason)

    async def run_once(self) -> int:
        """Delete the files that are due for removal; returns how many. Safe to run in all workers at once.

        Raises:
            Outage: the storage or the database is unavailable; the rest stays for the next run.
        """
        removed = 0
        while keys := await self._due():
            await self._remove(keys)
            removed += len(keys)
        if removed:
            _log.info("files of deleted images and replaced thumbnails deleted", files=removed)
        return removed

    async def _due(self) -> list[str]:
        async with self._database.statement() as repositories:
            return list(await repositories.removals.due(limit=self._batch))

    async def _remove(self, keys: list[str]) -> None:
        await self._storage.delete(keys)
        async with self._database.statement() as repositories:
            await repositories.removals.done(keys)
