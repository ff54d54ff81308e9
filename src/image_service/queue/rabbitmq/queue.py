"""The port's side of it: publishing, and asking the broker how it is."""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NoReturn

import structlog
from aio_pika import DeliveryMode, Message
from aio_pika.exceptions import DeliveryError, PublishError

from image_service.domain.lane import Lane
from image_service.errors import QueueUnavailable
from image_service.ports import Delivery, Drain, Handler
from image_service.queue import messages
from image_service.queue.rabbitmq.consumer import Consumer
from image_service.queue.rabbitmq.link import Link, Session
from image_service.queue.rabbitmq.topology import Topology
from image_service.queue.rabbitmq.waiting import now, within

_FIRST_CONNECT_WAIT: Final = 1.0
_ANSWER_LIMIT: Final = 1.9
_BREAKER_SECONDS: Final = 3.0

_log = structlog.get_logger(__name__)


class RabbitMQQueue:
    """``ports.TaskQueue`` on a RabbitMQ broker.

    Args:
        url: ``amqp://`` or ``amqps://``, with credentials and virtual host. A wrong one is retried and logged.
        publish_timeout: Seconds that one publish may take in all.
        queue_name: Name of the normal lane's queue; the others, and the dead-letter queue, have it before a dot.
        give_back_pause: Seconds before a message whose handler raised goes back to the queue for the first time;
            doubled with each further try, up to ten seconds.
        idle_refresh: Seconds without a message after which a consumer connects anew, for it may have been forgotten.
    """

    def __init__(
        self,
        url: str,
        publish_timeout: float = 5.0,
        queue_name: str = "images",
        give_back_pause: float = 0.5,
        idle_refresh: float = 60.0,
    ) -> None:
        self._url = url
        self._publish_timeout = publish_timeout
        self._topology = Topology(queue_name)
        self._give_back_pause = give_back_pause
        self._idle_refresh = idle_refresh
        self._link = Link(url, f"image-service publisher {queue_name}", self._set_up)
        self._keeper: asyncio.Task[NoReturn] | None = None
        self._tripped_until = 0.0
        self._closed = asyncio.Event()

    async def start(self) -> None:
        """Begin connecting; returns at once."""
        if self._keeper is None and not self._closed.is_set():
            self._keeper = asyncio.create_task(self._link.keep())

    async def close(self) -> None:
        """Disconnect, and end every consumer of this object. Takes three seconds at most."""
        self._closed.set()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})

    async def publish(self, delivery: Delivery) -> None:
        """Hand a message over, durably and routably, within the time limit.

        Raises:
            QueueUnavailable: not connected, blocked, unroutable, refused, or not confirmed in time.
        """
        deadline = now() + self._publish_timeout
        session = await self._connected(deadline)
        if now() < self._tripped_until:
            raise QueueUnavailable("The broker did not confirm a recent message in time.")
        message = Message(
            messages.encode(delivery),
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
            correlation_id=messages.correlation_id(delivery),
            headers=messages.headers(delivery),
        )
        try:
            await within(deadline - now(), self._hand_over(session, message, self._topology.queue_of(delivery.lane)))
        except TimeoutError:
            await self._trip(session)
            raise QueueUnavailable("The broker did not confirm the message in time.") from None
        except Exception as error:
            # Whatever aio-pika raises here, from a dozen unrelated classes, means the same to the caller.
            raise QueueUnavailable("The broker did not take the message.") from error

    async def consume(self, handler: Handler, slots: int, drain: Drain, lane: Lane = Lane.NORMAL) -> None:
        """Feed a lane's deliveries to ``handler`` until the drain; see ``ports.TaskQueue``.

        A message that cannot be decoded goes to the dead-letter queue. After a lost connection the handlers run on,
        and their messages are delivered again, here or elsewhere.

        Raises:
            QueueUnavailable: the queue was closed before.
        """
        if self._closed.is_set():
            raise QueueUnavailable("The queue is closed.")
        consumer = Consumer(
            self._url, self._topology, lane, handler, slots=slots, give_back_pause=self._give_back_pause
        )
        await consumer.run(drain, self._closed, self._idle_refresh)

    async def depth(self) -> Mapping[Lane, int]:
        """How many messages are ready in each lane; answers or raises within two seconds.

        Raises:
            QueueUnavailable: the broker did not answer, or blocks publishers.
        """
        deadline = now() + _ANSWER_LIMIT
        session = await self._connected(deadline)
        try:
            return await within(deadline - now(), self._topology.depth(session.connection))
        except TimeoutError:
            raise QueueUnavailable("The broker did not answer in time.") from None
        except Exception as error:
            raise QueueUnavailable("The broker did not answer.") from error

    @property
    def dead_letters(self) -> int:
        """How many dead letters there were when the broker was last asked; see ``depth``."""
        return self._topology.dead_letters

    async def probe(self) -> None:
        """Return after a round trip which shows that a message could be published now; takes two seconds at most.

        Raises:
            QueueUnavailable: the broker did not answer, or blocks publishers.
        """
        await self.depth()

    async def _connected(self, deadline: float) -> Session:
        """The live session. Waits only while the very first attempt to connect is under way, and not for long."""
        if self._keeper is not None and not self._link.tried.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(deadline, now() + _FIRST_CONNECT_WAIT)):
                    await self._link.tried.wait()
        if self._closed.is_set():
            raise QueueUnavailable("The queue is closed.")
        session = self._link.session
        if session is None:
            raise QueueUnavailable
        if await session.blocked():
            raise QueueUnavailable("The broker is short of memory or disk and takes no messages.")
        return session

    async def _hand_over(self, session: Session, message: Message, queue: str) -> None:
        for last_try in (False, False, True):
            try:
                await session.channel.default_exchange.publish(message, queue, mandatory=True)
            except PublishError:
                # Somebody deleted the queue. Without `mandatory` the broker would have confirmed and lost the message.
                if last_try:
                    raise
                _log.warning("queue is missing; declaring it again", queue=queue)
                await self._topology.declare(session.connection)
            except DeliveryError:
                # A negative acknowledgement, as a quorum queue gives while it is just being created or elects a leader.
                if last_try:
                    raise
                await asyncio.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - jitter, not cryptography
            else:
                return

    async def _trip(self, session: Session) -> None:
        """Let publishes fail fast for a while, so that a silent broker costs a few uploads their wait, not each."""
        self._tripped_until = now() + _BREAKER_SECONDS
        _log.warning("broker did not confirm in time; publishing pauses", seconds=_BREAKER_SECONDS)
        # A new connection may fare better, but one that the broker blocks is healthy, and is told when to go on.
        if not await session.blocked():
            session.lost.set()

    async def _set_up(self, session: Session) -> None:
        await session.open(publisher_confirms=True)
        await self._topology.declare(session.connection)
