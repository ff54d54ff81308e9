"""Backfill: reprocesses all images whose thumbnails were made with another recipe."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from image_service.database import Database
from image_service.domain.lane import Lane
from image_service.domain.recipe import Recipe
from image_service.domain.status import Status

_BATCH: Final = 100
_SCAN: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a backfill."""

    marked: int
    """Images that this step added to the backfill lane."""
    waiting: int
    """Images in the backfill lane that are unfinished."""


class Backfill:
    """Puts outdated images into the backfill lane, a limited number at a time.

    Its state is in the database, so it can be interrupted and started again at any time.

    Args:
        database: Where images are recorded.
        recipe: The recipe that thumbnails should be made with.
        batch: Images marked in one transaction.
        scan: Images searched for outdated ones in one query.
    """

    def __init__(self, *, database: Database, recipe: Recipe, batch: int = _BATCH, scan: int = _SCAN) -> None:
        self._database = database
        self._fingerprint = recipe.fingerprint
        self._batch = batch
        self._scan = scan
        self._last: UUID | None = None

    async def step(self, *, window: int) -> Progress:
        """Fill the backfill lane, from the oldest image on. The backfill is complete when nothing is marked or waits.

        Args:
            window: The most images that may wait in the lane.

        Raises:
            DatabaseUnavailable: this step may or may not have been made; it is safe to repeat.
        """
        marked = 0
        async with self._database.statement() as repositories:
            waiting = await repositories.catalogue.open_count(limit=window, lane=Lane.BACKFILL)
        while waiting < window:
            async with self._database.transaction() as repositories:
                room = min(self._batch, window - waiting)
                seen = await repositories.catalogue.outdated(self._fingerprint, among=self._scan, after=self._last)
                if not seen:
                    break
                images = [image_id for image_id, outdated in seen.items() if outdated][:room]
                queued = await repositories.images.reprocess(images, lane=Lane.BACKFILL, due_in=0, only=Status.DONE)
            self._last = images[-1] if len(images) == room else next(reversed(seen))
            marked += len(queued)
            waiting += len(queued)
        return Progress(marked=marked, waiting=waiting)
