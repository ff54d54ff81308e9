"""Retention: deletes images or originals after a configured age."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

import structlog

from image_service.database import Database, Repositories
from image_service.ports import NULL_SIGNAL, EventSignal

_BATCH: Final = 100

_log = structlog.get_logger(__name__)


class Retention:
    """Deletes finished images, or their originals only, by age. ``Deletion.run_once`` deletes the files.

    Args:
        database: Where images are recorded.
        originals_for: Seconds after an image was finished for which its original is kept; None: no limit.
        images_for: The same for the whole image.
        batch: Images deleted in one transaction.
        signal: Tells of the events that are recorded.
    """

    def __init__(
        self,
        *,
        database: Database,
        originals_for: float | None,
        images_for: float | None,
        batch: int = _BATCH,
        signal: EventSignal = NULL_SIGNAL,
    ) -> None:
        self._database = database
        self._originals_for = originals_for
        self._images_for = images_for
        self._batch = batch
        self._signal = signal

    async def run_once(self) -> int:
        """Delete what is old enough; returns how many files that concerns. Safe to run in all workers at once.

        Raises:
            DatabaseUnavailable: the rest stays for the next run.
        """
        files = 0
        if (age := self._images_for) is not None:
            files += await self._delete(
                lambda r: r.catalogue.finished_before(age, limit=self._batch),
                lambda r, ids: r.images.remove(ids, only_finished=True),
            )
        if (original_age := self._originals_for) is not None:
            files += await self._delete(
                lambda r: r.catalogue.with_original_finished_before(original_age, limit=self._batch),
                lambda r, ids: r.images.remove_originals(ids),
            )
        if files:
            _log.info("retention period ended", files=files)
        return files

    async def _delete(
        self,
        expired: Callable[[Repositories], Awaitable[Sequence[UUID]]],
        remove: Callable[[Repositories, Sequence[UUID]], Awaitable[list[str]]],
    ) -> int:
        files = 0
        while True:
            async with self._database.transaction() as repositories:
                keys = await remove(repositories, await expired(repositories))
            if not keys:
                return files
            self._signal.notify()
            files += len(keys)
