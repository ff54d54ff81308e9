"""Backfill: has outputs made again that were made with another version of their recipe."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from image_service.database import Database
from image_service.domain.recipe import Recipes

_BATCH: Final = 100
_SCAN: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a backfill."""

    marked: int
    """Images that this step marked."""
    waiting: int
    """Images whose outputs are still to be made."""
    unknown: int = 0
    """DONE images that this step left out, because this process does not know their recipe."""


class Backfill:
    """Marks images that were made with another version of their recipe, a limited number at a time.

    They stay DONE. A worker makes the outputs that differ, and serves the others as they are. Its state is in the
    database, so it can be interrupted and started again at any time.

    Args:
        database: Where images are recorded.
        recipes: The recipes that outputs should be made with.
        batch: Images marked in one transaction.
        scan: Images searched for outdated ones in one query.
    """

    def __init__(self, *, database: Database, recipes: Recipes, batch: int = _BATCH, scan: int = _SCAN) -> None:
        self._database = database
        self._fingerprints = {name: recipe.fingerprint for name in recipes.names if (recipe := recipes.find(name))}
        self._batch = batch
        self._scan = scan
        self._last: UUID | None = None
        self._searched = False
        """Whether all images were searched. Later ones are made with the recipes of today, so they do not count."""

    async def step(self, *, window: int) -> Progress:
        """Mark the next images, the oldest first. The backfill is complete when nothing is marked or waits.

        Args:
            window: The most images whose outputs may wait.

        Raises:
            DatabaseUnavailable: this step may or may not have been made; it is safe to repeat.
        """
        marked = unknown = 0
        async with self._database.statement() as repositories:
            until = self._last if self._searched else None
            waiting = await repositories.outputs.outputs_waiting(limit=window, until=until)
        while waiting < window:
            async with self._database.transaction() as repositories:
                room = min(self._batch, window - waiting)
                seen = await repositories.catalogue.outdated(self._fingerprints, among=self._scan, after=self._last)
                if not seen:
                    self._searched = True
                    break
                images = [image_id for image_id, outdated in seen.items() if outdated][:room]
                queued = await repositories.outputs.mark_outputs_due(images)
            full = len(images) == room
            examined = list(seen) if not full else [image_id for image_id in seen if image_id <= images[-1]]
            unknown += sum(seen[image_id] is None for image_id in examined)
            self._last = examined[-1]
            marked += len(queued)
            waiting += len(queued)
        return Progress(marked=marked, waiting=waiting, unknown=unknown)
