"""The feed of events: one reader of the log for all who wait for events in a process."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog

from image_service.database import Database
from image_service.domain.event import START, Event, EventType, Position
from image_service.errors import Outage
from image_service.ports import NULL_OBSERVER, EventSignal, Observer

_PAGE: Final = 100
"""Events read at once: making them holds up the event loop for some milliseconds."""
_SHORTEST_PAUSE: Final = 0.01
"""Seconds between two reads, so that many changes at once are read by few of them."""
_LONGEST_BACKOFF: Final = 5.0
"""Seconds between two reads while they fail."""

_log = structlog.get_logger(__name__)


class SubscriptionOverflow(Exception):
    """More events have come than the subscriber's buffer holds, and are lost to it: read them with ``EventLog``."""


class Subscription:
    """The events of one subscriber; see ``EventFeed.subscribe``."""

    def __init__(self, position: Position, types: Collection[EventType] | None, buffer: int) -> None:
        self.position = position
        """Of the feed at the beginning: events up to it are in ``EventLog`` only, later ones come here."""
        self.overflowed = False
        """Whether events were lost to a full buffer. None come any more."""
        self._types = None if types is None else frozenset(types)
        self._buffer = buffer
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()

    async def next(self, timeout: float | None = None) -> Event | None:  # noqa: ASYNC109 — the wait of one event
        """Return the next event, or None if there is none within a number of seconds.

        Raises:
            SubscriptionOverflow: events were lost, because they came faster than they were taken.
        """
        if not self._events and not self.overflowed:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._arrived.wait()
            except TimeoutError:
                return None
        if self.overflowed:
            raise SubscriptionOverflow
        return self._events.popleft()

    def add(self, event: Event) -> None:
        """Take an event, if it is of the chosen types."""
        if self.overflowed or (self._types is not None and event.type not in self._types):
            return
        if len(self._events) >= self._buffer:
            self.overflowed = True
            self._events.clear()
        else:
            self._events.append(event)
        self._arrived.set()


class EventFeed:
    """Reads the log while there are subscribers, and hands each event to those that want it.

    It reads when the signal says so, and now and then in case a signal was lost. In an outage of the database
    subscribers get nothing, and afterwards what they would have got.

    Args:
        database: Where events are recorded.
        signal: Tells of new events.
        observer: Notified of what is read.
        poll: Seconds between two reads without a signal.
    """

    def __init__(
        self, *, database: Database, signal: EventSignal, observer: Observer = NULL_OBSERVER, poll: float = 1.0
    ) -> None:
        self._database = database
        self._signal = signal
        self._observer = observer
        self._poll = poll
        self._subscribers: dict[UUID | None, set[Subscription]] = {}
        """By the image that they are about; None: those of all events."""
        self._users = 0
        """Subscribers, including those that wait for the feed to start."""
        self._starting: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._position = START
        self._recorded = asyncio.Event()
        self._interrupted = False
        self._backoff = 0.0
        """Seconds of the last pause before the same read is tried again; 0: it was not necessary."""

    @asynccontextmanager
    async def subscribe(
        self, *, image_id: UUID | None = None, types: Collection[EventType] | None = None, buffer: int = 256
    ) -> AsyncIterator[Subscription]:
        """Hand over events for the duration of the block: every one that settles from its beginning on, in order, once.

        Args:
            image_id: Only events of this image.
            types: Only events of these types.
            buffer: The most events that may wait for the subscriber.

        Raises:
            DatabaseUnavailable: the feed is not running, and cannot be started.
        """
        self._users += 1
        try:
            await self._started()
            subscription = Subscription(self._position, types, buffer)
            subscribers = self._subscribers.setdefault(image_id, set())
            subscribers.add(subscription)
            try:
                yield subscription
            finally:
                subscribers.discard(subscription)
                if not subscribers and self._subscribers.get(image_id) is subscribers:
                    del self._subscribers[image_id]
        finally:
            self._users -= 1

    async def close(self) -> None:
        """Stop reading. Subscribers get no more events."""
        tasks = {task for task in (self._starting, self._reader) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _started(self) -> None:
        """Return once it is running. It does so as long as there are users."""
        if self._reader is not None:
            return
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        try:
            async with self._database.statement() as repositories:
                self._position = await repositories.events.head()
            self._reader = asyncio.create_task(self._run())
        finally:
            self._starting = None

    async def _run(self) -> None:
        """Read until there are no users any more, which is noticed after the pause."""
        self._recorded = asyncio.Event()
        stop_listening = self._signal.listen(self._recorded.set)
        try:
            while self._users:
                self._recorded.clear()
                pause = await self._read()
                await asyncio.sleep(_SHORTEST_PAUSE)
                if pause > _SHORTEST_PAUSE:
                    await self._until_recorded(pause - _SHORTEST_PAUSE)
        finally:
            self._reader = None
            stop_listening()

    async def _until_recorded(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._recorded.wait()
        except TimeoutError:
            return

    async def _read(self) -> float:
        """Read the next events and hand them out; returns the seconds to wait for others."""
        try:
            async with self._database.statement() as repositories:
                page = await repositories.events.after(self._position, limit=_PAGE)
        except Exception as error:  # noqa: BLE001 — subscribers rely on it, and the next read may succeed
            if not self._interrupted:
                reason = str(error) if isinstance(error, Outage) else repr(error)
                _log.warning("event feed interrupted", reason=reason, exc_info=not isinstance(error, Outage))
            self._interrupted = True
            self._backoff = min(_LONGEST_BACKOFF, max(self._poll, self._backoff * 2))
            return self._backoff
        if self._interrupted:
            _log.info("event feed resumed")
            self._interrupted = False
        self._hand_out(page.events)
        if page.unsettled and not page.events:
            # A transaction that takes long holds up all later ones: ask more and more rarely.
            self._backoff = min(self._poll, max(_SHORTEST_PAUSE, self._backoff * 2))
            return self._backoff
        self._backoff = 0.0
        return _SHORTEST_PAUSE if page.unsettled or len(page.events) >= _PAGE else self._poll

    def _hand_out(self, events: Collection[Event]) -> None:
        for event in events:
            self._position = event.position
            for key in {None, event.image_id}:
                for subscription in self._subscribers.get(key, ()):
                    subscription.add(event)
        if events:
            happened_at = min(event.happened_at for event in events)
            lag = (datetime.now(UTC) - happened_at).total_seconds()
            self._observer.events_read(len(events), lag=max(0.0, lag))
