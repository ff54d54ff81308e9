"""Consumes one lane: feeds its deliveries to a handler, across lost connections, until the drain."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from itertools import count
from typing import Final, NoReturn

import structlog
from aio_pika.abc import AbstractIncomingMessage

from image_service.domain.lane import Lane
from image_service.errors import Outage
from image_service.ports import Delivery, Drain, Handler
from image_service.queue import messages
from image_service.queue.handling import IdleTasks, cancel_all, outage_hold, requeue_delay
from image_service.queue.rabbitmq.connection import BrokerConnection, Session, reason_of
from image_service.queue.rabbitmq.timeouts import now, within
from image_service.queue.rabbitmq.topology import Topology

_SETTLE_TIMEOUT: Final = 2.0
_REQUEUED: Final = "handler failed; delivery requeued"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerTiming:
    """Delays of a consumer, in seconds."""

    requeue_delay: float
    """Before a message whose handler raised is first requeued or tried again; doubled with each further try, up to ten
    seconds. See also ``outage_hold``."""
    idle_check: float
    """Between two checks of whether an idle consumer misses messages."""
    idle_reconnect: float
    """Without a message until the consumer reconnects."""


class Consumer:
    """One call of ``consume``. Handlers belong to it, not to a connection: they continue after a lost connection."""

    def __init__(
        self, url: str, topology: Topology, lane: Lane, handler: Handler, *, slots: int, timing: ConsumerTiming
    ) -> None:
        self._topology = topology
        self._lane = lane
        self._queue_name = topology.queue_of(lane)
        self._handler = handler
        self._prefetch = slots
        self._timing = timing
        self._connection = BrokerConnection(url, f"image-service consumer {self._queue_name}", self._set_up)
        self._slots = asyncio.Semaphore(slots)
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = IdleTasks()
        self._draining = asyncio.Event()
        self._last_arrival = 0.0

    async def run(self, drain: Drain, closed: asyncio.Event) -> None:
        """Consume until the drain is requested or ``closed`` is set; see ``ports.TaskQueue.consume``."""
        connection = asyncio.create_task(self._connection.keep_open())
        requested = asyncio.ensure_future(drain.requested())
        closing = asyncio.create_task(closed.wait())
        reconnecting = asyncio.create_task(self._reconnect_when_idle())
        background = {connection, requested, closing, reconnecting}
        try:
            await asyncio.wait(background, return_when=asyncio.FIRST_COMPLETED)
            self._draining.set()
            if not closing.done():
                await self._drain(drain.grace)
        finally:
            self._draining.set()
            await cancel_all(self._tasks)
            # The connection is closed last: messages are requeued on it.
            await cancel_all(background)
        for task in (connection, requested, reconnecting):
            if not task.cancelled():
                task.result()

    async def _drain(self, grace: float) -> None:
        session = self._connection.session
        if session is not None and session.stop_delivery is not None:
            # First, so that requeued messages are not delivered to this consumer again.
            await _settle(session.stop_delivery())
        self._idle.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)

    async def _reconnect_when_idle(self) -> NoReturn:
        """Reconnect when the broker may have lost track of this consumer.

        It does so without notice (see ``Topology.declare``), and may hold messages for the consumer; these are
        delivered again once the connection is closed.
        """
        while True:
            await self._until_idle_too_long()
            self._connection.renew()

    async def _until_idle_too_long(self) -> None:
        """Return after ``idle_reconnect`` without a message, or when two checks in a row found undelivered messages."""
        idle_since, waited = now(), False
        while now() - idle_since < self._timing.idle_reconnect:
            await asyncio.sleep(min(self._timing.idle_check, self._timing.idle_reconnect))
            waiting = await self._messages_wait()
            if self._tasks or self._last_arrival > idle_since:
                idle_since, waited = now(), False
            elif waiting and waited:
                _log.warning("consumer receives no messages; reconnecting", queue=self._queue_name)
                return
            else:
                waited = waiting

    async def _messages_wait(self) -> bool:
        session = self._connection.session
        if session is None:
            return False
        try:
            depth = await within(_SETTLE_TIMEOUT, self._topology.depth(session.connection))
        except Exception:  # noqa: BLE001 - a lasting error shows in the connection or at the next check
            return False
        return depth[self._lane] > 0

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
            # A task of our own: aio-pika's ends with the channel, and would cancel the handler.
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
        """Run the handler once a slot is free; returns whether the message is to be acknowledged."""
        if self._draining.is_set():
            return False
        # Prefetch equals the slots, so one is free unless handlers from before a reconnect still run.
        with self._idle.current():
            await self._slots.acquire()
        try:
            if self._draining.is_set() or session.lost.is_set():
                return False
            return await self._until_handled(delivery, message, session)
        finally:
            self._slots.release()

    async def _until_handled(self, delivery: Delivery, message: AbstractIncomingMessage, session: Session) -> bool:
        """Run the handler, again and again in an outage; returns whether the message is to be acknowledged."""
        earlier = message.headers.get("x-delivery-count")
        deliveries = earlier if isinstance(earlier, int) else 0
        hold_until = now() + outage_hold(self._timing.requeue_delay, deliveries)
        again, image_id = True, str(delivery.image_id)
        for tries in count(deliveries):
            # Without a delay a short outage would use up the delivery limit.
            pause = requeue_delay(self._timing.requeue_delay, tries)
            try:
                await self._handler(delivery)
            except Outage as outage:
                again = now() + pause < hold_until
                event = "handler failed; it is called again" if again else _REQUEUED
                _log.warning(event, image_id=image_id, error=repr(outage))
            except Exception as error:  # noqa: BLE001 - a defect; its message is requeued all the same
                again = False
                _log.warning(_REQUEUED, image_id=image_id, error=repr(error), exc_info=True)
            else:
                return True
            if not self._draining.is_set():
                with self._idle.current():
                    await asyncio.sleep(pause)
            if not again or self._draining.is_set() or session.lost.is_set():
                break
        return False


async def _settle(verdict: Awaitable[object]) -> None:
    """Send a positive or negative acknowledgement. If the connection is lost, the broker delivers the message again."""
    try:
        await within(_SETTLE_TIMEOUT, verdict)
    except Exception as error:  # noqa: BLE001 - no failure matters here: see above
        _log.info("acknowledgement not sent; the message will be delivered again", reason=reason_of(error))
