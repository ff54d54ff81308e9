"""Backpressure: refuses uploads while the backlog is full."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from image_service.database import Database
from image_service.errors import BacklogFull, DatabaseUnavailable

_REFRESH_INTERVAL: Final = 1.0
_COUNT_TIMEOUT: Final = 0.3

_log = structlog.get_logger(__name__)


class Backlog:
    """Admits uploads while the number of unfinished images is below a limit.

    The number is cached for about a second, so the limit may be exceeded by the uploads of that time.

    Args:
        database: Where images are counted.
        limit: Unfinished images from which uploads are refused.
        refresh_interval: Seconds for which a count is used.
        count_timeout: Seconds after which a count is abandoned.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        limit: int,
        refresh_interval: float = _REFRESH_INTERVAL,
        count_timeout: float = _COUNT_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._limit = limit
        self._refresh_interval = refresh_interval
        self._count_timeout = count_timeout
        self._clock = clock
        self._unfinished = 0
        self._counted_at = float("-inf")

    async def admit(self) -> None:
        """Return if an upload may be received. If the count fails, the previous one is used.

        Raises:
            BacklogFull: the limit is reached.
        """
        now = self._clock()
        if now - self._counted_at >= self._refresh_interval:
            self._counted_at = now  # before the query: concurrent uploads use the previous count
            await self._count()
        if self._unfinished >= self._limit:
            raise BacklogFull

    async def _count(self) -> None:
        try:
            async with asyncio.timeout(self._count_timeout), self._database.statement() as repositories:
                self._unfinished = await repositories.catalogue.open_count(limit=self._limit)
        except (DatabaseUnavailable, TimeoutError) as error:
            _log.warning("backlog not counted", reason=str(error) or "no answer in time")
