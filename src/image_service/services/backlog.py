"""Saying no in time: how many images may wait to be processed."""

import asyncio
from typing import Final

import structlog

from image_service.database import Database
from image_service.errors import BacklogFull, DatabaseUnavailable

_REFRESH: Final = 1.0
_COUNT_LIMIT: Final = 0.3
"""Seconds after which a count is not waited for."""

_log = structlog.get_logger(__name__)


class Backlog:
    """Admits uploads while fewer than so many images are unfinished.

    The count is at most about a second old, and cheap: a deep backlog may be overrun by what arrives meanwhile.
    """

    def __init__(self, *, database: Database, limit: int, refresh: float = _REFRESH) -> None:
        self._database = database
        self._limit = limit
        self._refresh = refresh
        self._known = 0
        self._counted_at = float("-inf")

    async def admit(self) -> None:
        """Return if an upload may be taken in. Where the database is away, the upload itself will show it.

        Raises:
            BacklogFull: enough images wait already.
        """
        now = asyncio.get_running_loop().time()
        if now - self._counted_at >= self._refresh:
            self._counted_at = now  # before the query: uploads that come meanwhile go by the last count
            await self._count()
        if self._known >= self._limit:
            raise BacklogFull

    async def _count(self) -> None:
        try:
            async with asyncio.timeout(_COUNT_LIMIT), self._database.statement() as repositories:
                self._known = await repositories.catalogue.open_count(limit=self._limit)
        except (DatabaseUnavailable, TimeoutError) as error:
            _log.warning("backlog not counted", reason=str(error) or "no answer in time")
