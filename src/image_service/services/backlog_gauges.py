"""How much there is to do, for whoever watches: asked now and then, not by every look at a dashboard."""

from typing import Final

from image_service.database import Database
from image_service.ports import Observer
from image_service.services.health import HealthCheck

_AMONG: Final = 1000
"""Unfinished images that the oldest one is looked for among: enough to pass over those that are rendered again."""


class BacklogGauges:
    """Tells the observer what it has found out. Every process may do it: all find the same.

    Args:
        database: Where to ask.
        health: Probes the parts, and tells the observer by itself.
        observer: Who wants to know.
        limit: Of the backlog; nothing beyond it is counted.
    """

    def __init__(self, *, database: Database, health: HealthCheck, observer: Observer, limit: int) -> None:
        self._database = database
        self._health = health
        self._observer = observer
        self._limit = limit

    async def run_once(self) -> None:
        """Probe all parts, and count what is unfinished. Takes some seconds at most, whatever hangs.

        Raises:
            DatabaseUnavailable: nothing could be counted.
        """
        await self._health.run()
        async with self._database.transaction() as repositories:
            unfinished = await repositories.catalogue.open_count(limit=self._limit)
            oldest = await repositories.catalogue.oldest_unfinished(among=_AMONG)
        self._observer.backlog_measured(unfinished, oldest)
