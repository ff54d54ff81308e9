"""Letting go of what has been kept for as long as it should be."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

import structlog

from image_service.database import Database, Repositories

_BATCH: Final = 100

_log = structlog.get_logger(__name__)


class Retention:
    """Forgets finished images, or only their originals, after a time. The files go the way of all deleted ones."""

    def __init__(self, *, database: Database, originals_for: float | None, images_for: float | None) -> None:
        """Make it.

        Args:
            database: Where images are recorded.
            originals_for: Seconds after an image was finished for which its original is kept; None: for ever.
            images_for: The same, for all of it.
        """
        self._database = database
        self._originals_for = originals_for
        self._images_for = images_for

    async def run_once(self) -> int:
        """Forget what is old enough; returns how many files that lets go of. Safe to run in every worker at once.

        Raises:
            DatabaseUnavailable: the rest is left for the next time.
        """
        files = 0
        if (age := self._images_for) is not None:
            files += await self._forget(
                lambda r: r.catalogue.finished_before(age, limit=_BATCH),
                lambda r, ids: r.images.remove(ids, only_finished=True),
            )
        if (original_age := self._originals_for) is not None:
            files += await self._forget(
                lambda r: r.catalogue.with_original_finished_before(original_age, limit=_BATCH),
                lambda r, ids: r.images.remove_originals(ids),
            )
        if files:
            _log.info("retention ended", files=files)
        return files

    async def _forget(
        self,
        expired: Callable[[Repositories], Awaitable[Sequence[UUID]]],
        forget: Callable[[Repositories, Sequence[UUID]], Awaitable[list[str]]],
    ) -> int:
        files = 0
        while True:
            async with self._database.transaction() as repositories:
                keys = await forget(repositories, await expired(repositories))
            if not keys:
                return files
            files += len(keys)
