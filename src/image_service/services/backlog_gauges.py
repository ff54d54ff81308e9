"""Measures the backlog and probes the dependencies, for metrics."""

from typing import Final

from image_service.database import Database
from image_service.ports import Observer
from image_service.services.health import HealthCheck

_AMONG: Final = 1000
"""Unfinished images searched for the oldest one; enough to skip those that are reprocessed."""


class BacklogGauges:
    """Reports measurements to the observer. May run in every process: all measure the same.

    Args:
        database: Where images are counted.
        health: Probes the dependencies, and reports to the observer itself.
        observer: Receives the measurements.
        limit: The limit of the backlog; images beyond it are not counted.
    """

    def __init__(self, *, database: Database, health: HealthCheck, observer: Observer, limit: int) -> None:
        self._database = database
        self._health = health
        self._observer = observer
        self._limit = limit

    async def run_once(self) -> None:
        """Probe all dependencies and count unfinished images and deliveries. Takes some seconds at most.

        Raises:
            DatabaseUnavailable: the backlog could not be counted.
        """
        await self._health.run()
        async with self._database.transaction() as repositories:
            unfinished = await repositories.catalogue.open_count(limit=self._limit)
            oldest_age = await repositories.catalogue.oldest_unfinished(among=_AMONG)
            webhooks = await repositories.deliveries.backlog()
        self._observer.backlog_measured(unfinished, oldest_age)
        self._observer.webhooks_measured(
            {"working": webhooks.working, "failing": webhooks.failing, "disabled": webhooks.disabled},
            pending=webhooks.pending,
            overdue=webhooks.overdue,
        )
