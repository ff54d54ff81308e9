"""Feeding deliveries to a handler, through lost connections and drains."""

import asyncio
import random
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Final, NoReturn, cast

import structlog
from aio_pika.abc import AbstractIncomingMessage

from image_service.domain.lane import Lane
from image_service.errors import Outage
from image_service.ports import Delivery, Drain, Handler
from image_service.queue import messages
from image_service.queue.rabbitmq.link import Link, Session, reason_of
from image_service.queue.rabbitmq.topology import Topology
from image_service.queue.rabbitmq.waiting import cancel_all, now, within

_SETTLE_LIMIT: Final = 2.0
_LOOK_EVERY: Final = 5.0
"""Seconds between two looks at whether an idle consumer has been forgotten."""
_GIVE_BACK_CAP: Final = 10.0

_log = structlog.get_logger(__name__)


class Consumer:
    """One call of ``consume``. Handlers belong to it, not to a connection: they outlive a lost one."""

    def __init__(
        self, url: str, topology: Topology, lane: Lane, handler: Handler, *, slots: int, give_back_pause: float
    ) -> None:
        self._topology = topology
        self._lane = lane
        self._queue_name = topology.queue_of(lane)
        self._handler = handler
        self._prefetch = slots
        self._give_back_pause = give_back_pause
        self._link = Link(url, f"image-service consumer {self._queue_name}", self._set_up)
        self._slots = asyncio.Semaphore(slots)
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: set[asyncio.Task[None]] = set()
        """Those that hold a message but run no handler: nothing is lost by cancelling them."""
        self._draining = asyncio.Event()
        self._last_arrival = 0.0

    async def run(self, drain: Drain, closed: asyncio.Event, idle_refresh: float) -> None:
        """Consume until the drain is requested or ``closed`` is set; see ``ports.TaskQueue.consume``."""
        keeper = asyncio.create_task(self._link.keep())
        requested = asyncio.ensure_future(drain.requested())
        closing = asyncio.create_task(closed.wait())
        refresher = asyncio.create_task(self._refresh_when_idle(idle_refresh))
        watchers = {keeper, requested, closing, refresher}
        try:
            await asyncio.wait(watchers, return_when=asyncio.FIRST_COMPLETED)
            self._draining.set()
            if not closing.done():
                await self._drain(drain.grace)
        finally:
            self._draining.set()
            await cancel_all(self._tasks)
            # The connection goes last: messages are given back on it.
            await cancel_all(watchers)
        for watcher in (keeper, requested, refresher):
            if not watcher.cancelled():
                watcher.result()

    async def _drain(self, grace: float) -> None:
        session = self._link.session
        if session is not None and session.stop_delivery is not None:
            # First of all: what is given back must not come straight back to us.
            await _settle(session.stop_delivery())
        for task in self._idle:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)

    async def _refresh_when_idle(self, after: float) -> NoReturn:
        """Connect anew when the broker seems to have forgotten this consumer.

        It can lose track of one without a word (see ``Topology.declare``), and hold messages for it; they are delivered
        again once the connection is closed.
        """
        while True:
            await self._until_forgotten(after)
            self._link.renew()

    async def _until_forgotten(self, after: float) -> None:
        """Return when nothing has come for so many seconds, or when at two looks something waited and did not come."""
        idle_since, waited = now(), False
        while now() - idle_since < after:
            await asyncio.sleep(min(_LOOK_EVERY, after))
            waits = await self._something_waits()
            if self._tasks or self._last_arrival > idle_since:
                idle_since, waited = now(), False
            elif waits and waited:
                _log.warning("messages wait and do not come; connecting anew", queue=self._queue_name)
                return
            else:
                waited = waits

    async def _something_waits(self) -> bool:
        session = self._link.session
        if session is None:
            return False
        try:
            waiting = await within(_SETTLE_LIMIT, self._topology.depth(session.connection))
        except Exception:  # noqa: BLE001 - whatever it is, the link or the next look shows it
            return False
        return waiting[self._lane] > 0

    async def _set_up(self, session: Session) -> None:
        await session.open(publisher_confirms=False)
        channel = session.channel
        await channel.set_qos(prefetch_count=self._prefetch)
        await self._topology.declare(session.connection)
        # The broker cancels a consumer whose queue is deleted; the connection and the channel stay as they are.
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(session.on_close)
        queue = await channel.get_queue(self._queue_name, ensure=False)

        async def arrived(message: AbstractIncomingMessage) -> None:
            # A task of our own: aio-pika's ends with the channel, and would take the handler with it.
            self._last_arrival = now()
            task = asyncio.create_task(self._handle(message, session))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        tag = await queue.consume(arrived)
        session.stop_delivery = lambda: queue.cancel(tag)

    async def _handle(self, message: AbstractIncomingMessage, session: Session) -> None:
        try:
            delivery = messages.decode(message.body, message.correlation_id, self._lane, message.headers)
        except messages.UndecodableMessage as error:
            reason = str(error)
            _log.error("undecodable message goes to the dead-letter queue", reason=reason, body=message.body[:200])
            await _settle(message.reject(requeue=False))
            return
        try:
            done = await self._attempt(delivery, message, session)
        except asyncio.CancelledError:
            await _settle(message.nack(requeue=True))
            raise
        await _settle(message.ack() if done else message.nack(requeue=True))

    async def _attempt(self, delivery: Delivery, message: AbstractIncomingMessage, session: Session) -> bool:
        """Run the handler once there is a slot; returns whether the message is done with."""
        if self._draining.is_set():
            return False
        # Prefetch equals the slots, so one is free, unless handlers from before a reconnect still run.
        with self._idling():
            await self._slots.acquire()
        try:
            if self._draining.is_set() or session.lost.is_set():
                return False
            await self._handler(delivery)
        except Exception as error:  # noqa: BLE001 - a handler may raise anything: that is how it gives its message back
            # An outage explains itself; anything else is a defect, and wants its traceback.
            _log.warning(
                "handler failed; its message goes back to the queue",
                image_id=str(delivery.image_id),
                error=repr(error),
                exc_info=not isinstance(error, Outage),
            )
            if not self._draining.is_set():
                with self._idling():
                    await asyncio.sleep(self._pause(message))
            return False
        else:
            return True
        finally:
            self._slots.release()

    def _pause(self, message: AbstractIncomingMessage) -> float:
        """Seconds to hold a message back. The delivery limit would be spent in no time during a short outage else."""
        tries = message.headers.get("x-delivery-count")
        longest = min(_GIVE_BACK_CAP, self._give_back_pause * 2 ** min(tries if isinstance(tries, int) else 0, 10))
        return random.uniform(longest / 2, longest)  # noqa: S311 - jitter, not cryptography

    @contextmanager
    def _idling(self) -> Iterator[None]:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._idle.add(task)
        try:
            yield
        finally:
            self._idle.discard(task)


async def _settle(verdict: Awaitable[object]) -> None:
    """Send an acknowledgement or its opposite. If the connection is gone, the broker delivers the message again."""
    try:
        await within(_SETTLE_LIMIT, verdict)
    except Exception as error:  # noqa: BLE001 - no way of failing matters here: see above
        _log.info("acknowledgement not sent; the message will be delivered again", reason=reason_of(error))
