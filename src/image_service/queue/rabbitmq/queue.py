"""The task queue on RabbitMQ: publishes messages, starts consumers and reports the queues' depth."""

import asyncio
import random
from collections.abc import Mapping
from typing import Final, NoReturn

import structlog
from aio_pika import DeliveryMode, Message
from aio_pika.exceptions import DeliveryError, PublishError

from image_service.domain.lane import Lane
from image_service.errors import QueueUnavailable
from image_service.ports import Delivery, Drain, Handler
from image_service.queue import messages
from image_service.queue.rabbitmq.connection import BrokerConnection, Session, reason_of
from image_service.queue.rabbitmq.consumer import Consumer, ConsumerTiming
from image_service.queue.rabbitmq.timeouts import now, within
from image_service.queue.rabbitmq.topology import Topology

_DEPTH_TIMEOUT: Final = 1.9
_BREAKER_SECONDS: Final = 3.0
"""How long publishes fail at once after one that the broker did not confirm in time."""

_log = structlog.get_logger(__name__)


class RabbitMQQueue:
    """``ports.TaskQueue`` on a RabbitMQ broker.

    Args:
        url: ``amqp://`` or ``amqps://``, with credentials and virtual host. A wrong one is retried and logged.
        publish_timeout: Maximum seconds for one publish.
        queue_name: Name of the normal lane's queue, and prefix of the others and of the dead-letter queue.
        requeue_delay: See ``ConsumerTiming``.
        idle_check: See ``ConsumerTiming``.
        idle_reconnect: See ``ConsumerTiming``.
    """

    def __init__(
        self,
        url: str,
        publish_timeout: float = 5.0,
        queue_name: str = "images",
        *,
        requeue_delay: float = 0.5,
        idle_check: float = 5.0,
        idle_reconnect: float = 60.0,
    ) -> None:
        self._url = url
        self._publish_timeout = publish_timeout
        self._topology = Topology(queue_name)
        self._timing = ConsumerTiming(requeue_delay=requeue_delay, idle_check=idle_check, idle_reconnect=idle_reconnect)
        self._connection = BrokerConnection(url, f"image-service publisher {queue_name}", self._set_up)
        self._connecting: asyncio.Task[NoReturn] | None = None
        self._breaker_open_until = 0.0
        self._closed = asyncio.Event()

    async def start(self) -> None:
        """Begin connecting; returns at once."""
        if self._connecting is None and not self._closed.is_set():
            self._connecting = asyncio.create_task(self._connection.keep_open())

    async def close(self) -> None:
        """Disconnect, and stop every consumer of this object, within three seconds."""
        self._closed.set()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})

    async def publish(self, delivery: Delivery) -> None:
        """Publish a message durably, to an existing queue, within the time limit.

        Raises:
            QueueUnavailable: not connected, blocked, unroutable, refused, or not confirmed in time.
        """
        deadline = now() + self._publish_timeout
        session = await self._connected(deadline)
        if now() < self._breaker_open_until:
            raise QueueUnavailable("The broker did not confirm a recent message in time.")
        message = Message(
            messages.encode(delivery),
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
            correlation_id=messages.correlation_id(delivery),
            headers=messages.headers(delivery),
        )
        try:
            await within(deadline - now(), self._send(session, message, self._topology.queue_of(delivery.lane)))
        except TimeoutError:
            await self._open_breaker(session)
            raise QueueUnavailable("The broker did not confirm the message in time.") from None
        except Exception as error:
            # aio-pika raises a dozen unrelated classes here, which mean the same to the caller.
            raise QueueUnavailable("The broker did not take the message.", cause=reason_of(error)) from error

    async def consume(self, handler: Handler, slots: int, drain: Drain, lane: Lane = Lane.NORMAL) -> None:
        """Feed a lane's deliveries to ``handler`` until the drain; see ``ports.TaskQueue``.

        A message that cannot be decoded is dead-lettered. After a lost connection the handlers continue, and their
        messages are delivered again, to any consumer.

        Raises:
            QueueUnavailable: the queue is closed.
        """
        if self._closed.is_set():
            raise QueueUnavailable("The queue is closed.")
        consumer = Consumer(self._url, self._topology, lane, handler, slots=slots, timing=self._timing)
        await consumer.run(drain, self._closed)

    async def depth(self) -> Mapping[Lane, int]:
        """Returns the number of ready messages in each lane, within two seconds.

        Raises:
            QueueUnavailable: the broker did not answer, or blocks publishers.
        """
        deadline = now() + _DEPTH_TIMEOUT
        session = await self._connected(deadline)
        try:
            return await within(deadline - now(), self._topology.depth(session.connection))
        except TimeoutError:
            raise QueueUnavailable("The broker did not answer in time.") from None
        except Exception as error:
            raise QueueUnavailable("The broker did not answer.", cause=reason_of(error)) from error

    @property
    def dead_letters(self) -> int:
        """Number of dead letters at the last check; see ``depth``."""
        return self._topology.dead_letters

    async def _connected(self, deadline: float) -> Session:
        if self._closed.is_set():
            raise QueueUnavailable("The queue is closed.")
        return await self._connection.usable(deadline)

    async def _send(self, session: Session, message: Message, queue: str) -> None:
        for last_try in (False, False, True):
            try:
                await session.channel.default_exchange.publish(message, queue, mandatory=True)
            except PublishError:
                # The queue was deleted. Without `mandatory` the broker would have confirmed the message and lost it.
                if last_try:
                    raise
                _log.warning("queue is missing; declaring it again", queue=queue)
                await self._topology.declare(session.connection)
            except DeliveryError:
                # A negative acknowledgement: a quorum queue sends it while it is being created or elects a leader.
                if last_try:
                    raise
                await asyncio.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - jitter, not cryptography
            else:
                return

    async def _open_breaker(self, session: Session) -> None:
        """Make publishes fail at once for a while, so that a silent broker delays a few uploads instead of each."""
        self._breaker_open_until = now() + _BREAKER_SECONDS
        _log.warning("broker did not confirm in time; publishing pauses", seconds=_BREAKER_SECONDS)
        # A new connection may work, unless the broker blocks this one: then it is healthy, and unblocked in time.
        if not await session.blocked():
            session.lost.set()

    async def _set_up(self, session: Session) -> None:
        await session.open(publisher_confirms=True)
        await self._topology.declare(session.connection)
