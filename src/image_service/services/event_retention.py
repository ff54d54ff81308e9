"""Deletes events once they cannot be asked for any more."""

from typing import Final

import structlog

from image_service.database import Database

_BATCH: Final = 500

_log = structlog.get_logger(__name__)


class EventRetention:
    """Deletes old events, except those that are still to be sent to another service.

    Args:
        database: Where events are recorded.
        kept_for: Seconds for which events are kept.
        published: Whether events are published to an exchange.
        batch: Events deleted in one transaction.
    """

    def __init__(self, *, database: Database, kept_for: float, published: bool, batch: int = _BATCH) -> None:
        self._database = database
        self._kept_for = kept_for
        self._readers = ("webhooks", "exchange") if published else ("webhooks",)
        self._batch = batch

    async def run_once(self) -> int:
        """Delete the events that are old enough; returns how many. Safe to run in all workers at once.

        Raises:
            DatabaseUnavailable: the rest stays for the next run.
        """
        await self._take_over_restored()
        total = 0
        while True:
            async with self._database.transaction() as repositories:
                passed_on = min([await repositories.events.position(name) for name in self._readers])
                deleted = await repositories.events.purge(
                    older_than=self._kept_for, kept_after=passed_on, limit=self._batch
                )
            total += deleted
            if deleted < self._batch:
                break
        if total:
            _log.info("old events deleted", events=total)
        return total

    async def _take_over_restored(self) -> None:
        async with self._database.transaction() as repositories:
            restored = await repositories.events.take_over_restored()
        if restored:
            _log.info("events restored from a dump; they come before all others now", events=restored)
