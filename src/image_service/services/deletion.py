"""Deletes images: first their rows, then their files."""

import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import structlog

from image_service.database import Database
from image_service.errors import ImageNotFound, Outage
from image_service.ports import NULL_SIGNAL, EventSignal, Storage
from image_service.services.removing import delete_each

_BATCH: Final = 256
_FILES_TIMEOUT: Final = 2.0
_FIRST_DELAY: Final = 60.0
"""Seconds after which a file that could not be deleted is tried again; doubles each time."""
_LONGEST_DELAY: Final = 24 * 3600.0
_MAX_FAILURES: Final = 10_000
"""Files whose tries are counted, to bound the memory; the delays of others do not grow."""

_log = structlog.get_logger(__name__)


class Deletion:
    """Deletes images, and the files of deleted images and replaced thumbnails.

    Args:
        database: Where images and removals are recorded.
        storage: Where the files are.
        batch: Files deleted at once.
        files_timeout: Seconds for which ``delete`` waits until the files are deleted.
        signal: Tells of the events that are recorded.
    """

    def __init__(
        self,
        *,
        database: Database,
        storage: Storage,
        batch: int = _BATCH,
        files_timeout: float = _FILES_TIMEOUT,
        signal: EventSignal = NULL_SIGNAL,
    ) -> None:
        self._database = database
        self._storage = storage
        self._batch = batch
        self._files_timeout = files_timeout
        self._signal = signal
        self._failed = False
        """Whether the last run failed. The next one then deletes one file at a time: it may have been a single one."""
        self._failures: dict[str, int] = {}
        """How often each of the files that cannot be deleted was tried, since the process started."""

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
        self._signal.notify()
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
        one_at_a_time, self._failed = self._failed, True
        while keys := await self._due():
            removed += await (self._remove_each(keys) if one_at_a_time else self._remove(keys))
        self._failed = False
        if removed:
            _log.info("files of deleted images and replaced thumbnails deleted", files=removed)
        return removed

    async def _due(self) -> list[str]:
        async with self._database.statement() as repositories:
            return list(await repositories.removals.due(limit=self._batch))

    async def _remove(self, keys: Sequence[str]) -> int:
        await self._storage.delete(keys)
        async with self._database.statement() as repositories:
            await repositories.removals.done(keys)
        return len(keys)

    async def _remove_each(self, keys: Sequence[str]) -> int:
        """Delete files one at a time; returns how many. Those that cannot be deleted become due later."""
        failed = await delete_each(self._storage, keys)
        for key in failed:
            await self._postpone(key)
        deleted = [key for key in keys if key not in failed]
        for key in deleted:
            self._failures.pop(key, None)
        async with self._database.statement() as repositories:
            await repositories.removals.done(deleted)
        return len(deleted)

    async def _postpone(self, key: str) -> None:
        failures = self._failures.get(key, 0)
        if failures or len(self._failures) < _MAX_FAILURES:
            self._failures[key] = failures + 1
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2**failures)
        async with self._database.statement() as repositories:
            await repositories.removals.postpone(key, due_in=delay)
