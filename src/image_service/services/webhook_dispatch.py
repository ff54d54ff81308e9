"""Passes events on to the webhook endpoints that want them: creates the deliveries that ``WebhookSender`` makes."""

import time
from collections.abc import Callable
from typing import Final

from image_service.database import Database
from image_service.database.delivery_views import WebhookWork

_SKIPPED_AFTER: Final = 10.0
"""Seconds after which events that no endpoint wants are passed over again."""
_ENDED_AT_ONCE: Final = 500
"""Deliveries of disabled endpoints that one transaction ends."""


class WebhookDispatcher:
    """Creates deliveries. Safe to run in all workers at once.

    Args:
        database: Where events, endpoints and deliveries are recorded.
        clock: Returns the time in seconds.
    """

    def __init__(self, *, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._skipped_at = float("-inf")

    async def run_once(self) -> WebhookWork:
        """Create the deliveries of all events that are settled; returns what there is to do then.

        Without endpoints that is one query, which looks at no more than the last event.

        Raises:
            DatabaseUnavailable: the rest stays for the next run.
        """
        work = await self._work()
        if work.ended:
            await self._end()
        if not work.registered:
            await self._skip(work)
        elif work.new and await self._dispatch():
            return await self._work()
        return work

    async def _work(self) -> WebhookWork:
        async with self._database.statement() as repositories:
            return await repositories.deliveries.work()

    async def _dispatch(self) -> int:
        """Returns how many deliveries were created."""
        created = 0
        while True:
            async with self._database.transaction() as repositories:
                dispatched = await repositories.deliveries.dispatch()
            if dispatched is None:
                return created
            created += dispatched.deliveries

    async def _skip(self, work: WebhookWork) -> None:
        """Pass over all events, so that the first endpoint does not have to wait until all are looked at."""
        if not work.new or self._clock() - self._skipped_at < _SKIPPED_AFTER:
            return
        async with self._database.transaction() as repositories:
            await repositories.deliveries.skip()
        self._skipped_at = self._clock()

    async def _end(self) -> None:
        while True:
            async with self._database.statement() as repositories:
                if not await repositories.deliveries.end_of_disabled(limit=_ENDED_AT_ONCE):
                    return
