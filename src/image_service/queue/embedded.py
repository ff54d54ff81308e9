"""The task queue of the standalone service, in the memory of this process.

Its content is lost when the process ends; the reconciler restores it from the database.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from image_service.domain.lane import Lane
from image_service.errors import Outage, QueueUnavailable
from image_service.ports import Delivery, Drain, Handler
from image_service.queue.handling import IdleTasks, cancel_all, requeue_delay

_log = structlog.get_logger(__name__)


class EmbeddedQueue:
    """``ports.TaskQueue`` without a broker.

    Args:
        requeue_delay: Seconds before a delivery whose handler raised is first requeued; doubled with each further
            try, up to ten seconds.
    """

    def __init__(self, requeue_delay: float = 0.5) -> None:
        self._requeue_delay = requeue_delay
        self._waiting: dict[Lane, asyncio.Queue[_Entry]] = {lane: asyncio.Queue() for lane in Lane}
        self._started = False
        self._closed = asyncio.Event()

    async def start(self) -> None:
        """Open the queue."""
        self._started = True

    async def close(self) -> None:
        """Close the queue for good, and stop its consumers."""
        self._closed.set()

    async def publish(self, delivery: Delivery) -> None:
        """Add a delivery to its lane.

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
        consumer = _Consumer(self._waiting[lane], handler, self._requeue_delay)
        slot_tasks = [asyncio.create_task(consumer.work()) for _ in range(slots)]
        requested: asyncio.Future[Any] = asyncio.ensure_future(drain.requested())
        closing = asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait({*slot_tasks, requested, closing}, return_when=asyncio.FIRST_COMPLETED)
            consumer.draining.set()
            consumer.idle.cancel()
            if not closing.done():
                await asyncio.wait(slot_tasks, timeout=drain.grace)
        finally:
            consumer.draining.set()
            await cancel_all([*slot_tasks, requested, closing])
        for ended in (*slot_tasks, requested):
            if not ended.cancelled():
                ended.result()

    async def depth(self) -> Mapping[Lane, int]:
        """Returns the number of deliveries that wait in each lane.

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
class _Consumer:
    """One call of ``consume``; each slot has a task of its own that calls ``work``."""

    waiting: asyncio.Queue[_Entry]
    handler: Handler
    first_delay: float
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    idle: IdleTasks = field(default_factory=IdleTasks)

    async def work(self) -> None:
        while not self.draining.is_set():
            with self.idle.current():
                entry = await self.waiting.get()
            if not await self._attempt(entry):
                self.waiting.put_nowait(_Entry(entry.delivery, entry.tries + 1))

    async def _attempt(self, entry: _Entry) -> bool:
        """Run the handler; returns whether the delivery is done."""
        try:
            await self.handler(entry.delivery)
        except asyncio.CancelledError:
            self.waiting.put_nowait(entry)
            raise
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, its delivery is requeued
            # An outage is logged without a traceback; anything else is a defect.
            _log.warning(
                "handler failed; delivery requeued",
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
        try:
            with self.idle.current():
                await asyncio.sleep(requeue_delay(self.first_delay, entry.tries))
        except asyncio.CancelledError:
            self.waiting.put_nowait(entry)
            raise
