"""The relay: publishes every event of the log to the exchange for other services, in order for each image."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NoReturn

import structlog

from image_service.database import Database
from image_service.database.events import EventPage
from image_service.domain.event import START, Event, Position
from image_service.errors import Outage
from image_service.ports import NULL_OBSERVER, PUBLISH_LIMIT, EncodedEvent, EventExchange, EventSignal, Observer

POSITION: Final = "exchange"
"""The name of the position up to which events have been published."""

_BATCH: Final = 200
_FIRST_PAUSE: Final = 0.02
"""Seconds until the log is read again if further events are not settled yet; doubles each time."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayTiming:
    """How often the relay does what, in seconds."""

    lease: float = 4 * PUBLISH_LIMIT
    """For which one worker publishes, unless it extends that; then another one may. It extends it once half of it is
    over, and publishes only in the first half, which leaves a publish several times the time that it may take."""
    poll: float = 1.0
    """After which the log is read although nothing was signalled."""
    longest_pause: float = 5.0
    """After which another attempt follows a failed one, at the latest."""
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True, kw_only=True)
class _Lease:
    """This process's right to publish."""

    number: int
    position: Position
    """Of the last event that was published, which may not be recorded yet."""
    renew_at: float
    """When it must be extended before anything else is published, by the clock."""


class EventRelay:
    """Publishes events in one worker at a time, each at least once.

    The position moves on after the broker has confirmed a batch. If the worker ends before, the next one publishes the
    same events again: in the same order, so that an image's events are first seen in order, whatever is repeated.

    Args:
        database: Where events are recorded.
        exchange: Where they are published.
        encode: Returns an event as other services receive it.
        signal: Tells when events are recorded.
        observer: Notified of what is published, and of how late that is.
        timing: How often it does what.
    """

    def __init__(
        self,
        *,
        database: Database,
        exchange: EventExchange,
        encode: Callable[[Event], EncodedEvent],
        signal: EventSignal,
        observer: Observer = NULL_OBSERVER,
        timing: RelayTiming | None = None,
    ) -> None:
        self._database = database
        self._exchange = exchange
        self._encode = encode
        self._signal = signal
        self._observer = observer
        self._timing = timing or RelayTiming()
        self._lease: _Lease | None = None
        self._unsettled_pause = _FIRST_PAUSE

    async def run(self) -> NoReturn:
        """Publish events until cancelled; then let another worker go on at once."""
        recorded = asyncio.Event()
        stop_listening = self._signal.listen(recorded.set)
        failures = 0
        await self._exchange.start()
        try:
            while True:
                recorded.clear()
                try:
                    pause = await self.run_once()
                except Exception as error:  # noqa: BLE001 — the next attempt may succeed
                    failures += 1
                    self._log_failure(error, failures)
                    await asyncio.sleep(min(self._timing.longest_pause, self._timing.poll * 2 ** min(failures - 1, 10)))
                    continue
                failures = 0
                if self._lease is None:
                    await asyncio.sleep(pause)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await recorded.wait()
        finally:
            stop_listening()
            await self._give_up()
            await self._exchange.close()

    async def run_once(self) -> float:
        """Publish the next batch of events; returns the seconds until another run, unless events are recorded earlier.

        Raises:
            Outage: the database or the broker is unavailable; what was not published comes with a later run.
        """
        lease = self._lease or await self._take_lease()
        if lease is None:
            self._observer.relayed(0, lag=0)
            return self._timing.lease / 4
        page = await self._page(lease)
        if not page.events:
            self._observer.relayed(0, lag=0)
            if self._timing.clock() >= lease.renew_at:
                await self._record(lease)
            return self._pause_before_more(page)
        lag = (datetime.now(UTC) - page.events[0].happened_at).total_seconds()
        self._observer.relayed(0, lag=lag)
        encoded = [self._encode(event) for event in page.events]
        if self._timing.clock() >= lease.renew_at and not await self._record(lease):
            return 0
        await self._exchange.publish(encoded)
        lease.position = page.events[-1].position
        self._observer.relayed(len(encoded), lag=lag)
        await self._record(lease)
        return 0

    async def _take_lease(self) -> _Lease | None:
        """Returns the lease; None while another process has it."""
        renew_at = self._timing.clock() + self._timing.lease / 2
        async with self._database.statement() as repositories:
            granted = await repositories.events.lease(POSITION, seconds=self._timing.lease)
        if granted is None:
            return None
        self._lease = _Lease(number=granted.number, position=granted.position, renew_at=renew_at)
        _log.info("publishing events to the exchange", lease=granted.number)
        async with self._database.statement() as repositories:
            purged = await repositories.events.position("purged")
        async with self._database.statement() as repositories:
            possible = await repositories.events.is_possible(granted.position)
        if not possible:
            # A dump restored into another server, whose transactions have smaller numbers again.
            _log.warning("the database was restored; events that it still has are published again")
            self._lease.position = START
        elif START < granted.position < purged:
            _log.warning("events were purged that had not been published, as EVENTS_EXCHANGE was unset for too long")
        return self._lease

    async def _page(self, lease: _Lease) -> EventPage:
        async with self._database.statement() as repositories:
            return await repositories.events.after(lease.position, limit=_BATCH)

    def _pause_before_more(self, page: EventPage) -> float:
        pause = min(self._unsettled_pause, self._timing.poll) if page.unsettled else self._timing.poll
        self._unsettled_pause = 2 * pause if page.unsettled else _FIRST_PAUSE
        return pause

    async def _record(self, lease: _Lease, *, end: bool = False) -> bool:
        """Record the position and extend the lease, or end it; returns whether it had not been lost."""
        renew_at = self._timing.clock() + self._timing.lease / 2
        async with self._database.statement() as repositories:
            seconds = 0 if end else self._timing.lease
            kept = await repositories.events.advance(POSITION, lease.number, lease.position, seconds=seconds)
        if not kept:
            self._lease = None
            _log.warning("events may be published twice: this worker was too slow to extend its lease")
        lease.renew_at = renew_at
        return kept

    async def _give_up(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            with suppress(Outage):  # then it ends by itself
                await self._record(lease, end=True)

    def _log_failure(self, error: Exception, failures: int) -> None:
        if not isinstance(error, Outage):
            _log.error("publishing events failed", exc_info=error)
        elif failures & (failures - 1) == 0:  # after the 1st, 2nd, 4th, 8th … in a row
            _log.warning("events not published; they will be", reason=str(error), failures=failures)
