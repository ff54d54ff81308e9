"""The task queue of the standalone service: in this process, in memory.

It forgets everything when the process ends, which loses nothing: the reconciler fills it from the database.
"""

import asyncio
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import structlog

from image_service.domain.lane import Lane
from image_service.errors import Outage, QueueUnavailable
from image_service.ports import Delivery, Drain, Handler

_GIVE_BACK_CAP: Final = 10.0

_log = structlog.get_logger(__name__)


class EmbeddedQueue:
    """``ports.TaskQueue`` without a broker.

    Args:
        give_back_pause: Seconds before a delivery whose handler raised goes back to the queue for the first time;
            doubled with each further try, up to ten seconds.
    """

    def __init__(self, give_back_pause: float = 0.5) -> None:
        self._give_back_pause = give_back_pause
        self._waiting: dict[Lane, asyncio.Queue[_Entry]] = {lane: asyncio.Queue() for lane in Lane}
        self._started = False
        self._closed = asyncio.Event()

    async def start(self) -> None:
        """Open the queue."""
        self._started = True

    async def close(self) -> None:
        """Close the queue for good, and end its consumers."""
        self._closed.set()

    async def publish(self, delivery: Delivery) -> None:
        """Put a delivery into its lane.

        Raises:
            QueueUnavailable: not started, or closed.
        """
        self._check_open()
        self._waiting[delivery.lane].put_nowait(_Entry(delivery))

    async def consume(self, handler: Handler, slots: int, drain: Drain, lane: Lane = Lane.NORMAL) -> None:
        """Feed a lane's deliveries to ``handler`` until the drain; see ``ports.TaskQueue``.

        Raises:
            QueueUnavailable: the queue is not started, or closed.
        """
        self._check_open()
        crew = _Crew(self._waiting[lane], handler, self._give_back_pause)
        workers = [asyncio.create_task(crew.work()) for _ in range(slots)]
        requested: asyncio.Future[Any] = asyncio.ensure_future(drain.requested())
        closing = asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait({*workers, requested, closing}, return_when=asyncio.FIRST_COMPLETED)
            crew.draining.set()
            for task in crew.idle:
                task.cancel()
            if not closing.done():
                await asyncio.wait(workers, timeout=drain.grace)
        finally:
            crew.draining.set()
            await _cancel([*workers, requested, closing])
        for ended in (*workers, requested):
            if not ended.cancelled():
                ended.result()

    async def depth(self) -> Mapping[Lane, int]:
        """How many deliveries wait in each lane.

        Raises:
            QueueUnavailable: the queue is not started, or closed.
        """
        self._check_open()
        return {lane: waiting.qsize() for lane, waiting in self._waiting.items()}

    def _check_open(self) -> None:
        if not self._started or self._closed.is_set():
            raise QueueUnavailable("The queue is closed." if self._started else "The queue is not started.")


@dataclass(frozen=True, slots=True)
class _Entry:
    delivery: Delivery
    tries: int = 0


@dataclass(eq=False)
class _Crew:
    """The workers of one call of ``consume``, one for each slot."""

    waiting: asyncio.Queue[_Entry]
    handler: Handler
    give_back_pause: float
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    idle: set[asyncio.Task[None]] = field(default_factory=set)
    """Workers that run no handler: nothing is lost by cancelling them."""

    async def work(self) -> None:
        while not self.draining.is_set():
            with self._idling():
                entry = await self.waiting.get()
            if not await self._attempt(entry):
                self.waiting.put_nowait(_Entry(entry.delivery, entry.tries + 1))

    async def _attempt(self, entry: _Entry) -> bool:
        """Run the handler; returns whether the delivery is done with."""
        try:
            await self.handler(entry.delivery)
        except asyncio.CancelledError:
            self.waiting.put_nowait(entry)
            raise
        except Exception as error:  # noqa: BLE001 - a handler may raise anything: that is how it gives its delivery back
            # An outage explains itself; anything else is a defect, and wants its traceback.
            _log.warning(
                "handler failed; its delivery goes back to the queue",
                image_id=str(entry.delivery.image_id),
                error=repr(error),
                exc_info=not isinstance(error, Outage),
            )
        else:
            return True
        if not self.draining.is_set():
            await self._pause(entry)
        return False

    async def _pause(self, entry: _Entry) -> None:
        longest = min(_GIVE_BACK_CAP, self.give_back_pause * 2 ** min(entry.tries, 10))
        try:
            with self._idling():
                await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - jitter, not cryptography
        except asyncio.CancelledError:
            self.waiting.put_nowait(entry)
            raise

    @contextmanager
    def _idling(self) -> Iterator[None]:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self.idle.add(task)
        try:
            yield
        finally:
            self.idle.discard(task)


async def _cancel(tasks: Iterable[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
