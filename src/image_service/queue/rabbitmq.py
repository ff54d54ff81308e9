"""The task queue on RabbitMQ: one durable quorum queue, and a dead-letter queue that only raises an alarm.

Publishing and consuming use connections of their own, because the broker stops reading from connections that publish
while it is short of memory or disk. Each connection is kept by a small loop of ours rather than by aio-pika's robust
one, whose hidden waiting would let a publish hang: here an operation on a lost connection fails at once.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeVar, cast

import structlog
from aio_pika import DeliveryMode, Message, connect
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, ChannelPreconditionFailed, DeliveryError, PublishError

from image_service.errors import Outage, QueueUnavailable
from image_service.ports import Delivery, Drain, Handler
from image_service.queue import messages

_HEARTBEAT: Final = 10
"""Seconds between AMQP heartbeats, unless the URL says otherwise."""

_CONNECT_LIMIT: Final = 5.0
_SETUP_LIMIT: Final = 10.0  # a broker that has just started takes seconds to create a quorum queue
_FIRST_CONNECT_WAIT: Final = 1.0
_ANSWER_LIMIT: Final = 1.9
_SETTLE_LIMIT: Final = 2.0
_CLOSE_LIMIT: Final = 3.0

_BACKOFF_BASE: Final = 0.2
_BACKOFF_CAP: Final = 5.0
_STEADY: Final = 5.0
"""Seconds that a connection must have lasted for the backoff to start anew."""

_REDECLARE_PAUSE: Final = 0.3
_BREAKER_SECONDS: Final = 3.0
_GIVE_BACK_CAP: Final = 10.0

_DELIVERY_LIMIT: Final = 20
_DEAD_LETTERS_KEPT: Final = 10_000

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class RabbitMQQueue:
    """``ports.TaskQueue`` on a RabbitMQ broker.

    Args:
        url: ``amqp://`` or ``amqps://``, with credentials and virtual host. A wrong one is retried and logged.
        publish_timeout: Seconds that one publish may take in all.
        queue_name: Name of the queue; its dead-letter queue is called the same with ``.dead`` added.
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
        self._topology = _Topology(queue_name)
        self._give_back_pause = give_back_pause
        self._idle_refresh = idle_refresh
        self._link = _Link(url, f"image-service publisher {queue_name}", self._set_up)
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
        deadline = _now() + self._publish_timeout
        session = await self._connected(deadline)
        if _now() < self._tripped_until:
            raise QueueUnavailable("The broker did not confirm a recent message in time.")
        message = Message(
            messages.encode(delivery),
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
            correlation_id=messages.correlation_id(delivery),
        )
        try:
            await _within(deadline - _now(), self._hand_over(session, message))
        except TimeoutError:
            await self._trip(session)
            raise QueueUnavailable("The broker did not confirm the message in time.") from None
        except Exception as error:
            # Whatever aio-pika raises here, from a dozen unrelated classes, means the same to the caller.
            raise QueueUnavailable("The broker did not take the message.") from error

    async def consume(self, handler: Handler, slots: int, drain: Drain) -> None:
        """Feed deliveries to ``handler`` until the drain; see ``ports.TaskQueue``.

        A message that cannot be decoded goes to the dead-letter queue. After a lost connection the handlers run on,
        and their messages are delivered again, here or elsewhere.

        Raises:
            QueueUnavailable: the queue was closed before.
        """
        if self._closed.is_set():
            raise QueueUnavailable("The queue is closed.")
        consumer = _Consumer(self._url, self._topology, handler, slots, self._give_back_pause)
        await consumer.run(drain, self._closed, self._idle_refresh)

    async def depth(self) -> int:
        """How many messages are ready; answers or raises within two seconds.

        Raises:
            QueueUnavailable: the broker did not answer, or blocks publishers.
        """
        deadline = _now() + _ANSWER_LIMIT
        session = await self._connected(deadline)
        try:
            return await _within(deadline - _now(), self._topology.declare_on(session.connection))
        except TimeoutError:
            raise QueueUnavailable("The broker did not answer in time.") from None
        except Exception as error:
            raise QueueUnavailable("The broker did not answer.") from error

    async def probe(self) -> None:
        """Return after a round trip which shows that a message could be published now; takes two seconds at most.

        Raises:
            QueueUnavailable: the broker did not answer, or blocks publishers.
        """
        await self.depth()

    async def _connected(self, deadline: float) -> "_Session":
        """The live session. Waits only while the very first attempt to connect is under way, and not for long."""
        if self._keeper is not None and not self._link.tried.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(deadline, _now() + _FIRST_CONNECT_WAIT)):
                    await self._link.tried.wait()
        if self._closed.is_set():
            raise QueueUnavailable("The queue is closed.")
        session = self._link.session
        if session is None:
            raise QueueUnavailable
        if await session.blocked():
            raise QueueUnavailable("The broker is short of memory or disk and takes no messages.")
        return session

    async def _hand_over(self, session: "_Session", message: Message) -> None:
        for last_try in (False, False, True):
            try:
                await session.channel.default_exchange.publish(message, self._topology.name, mandatory=True)
            except PublishError:
                # Somebody deleted the queue. Without `mandatory` the broker would have confirmed and lost the message.
                if last_try:
                    raise
                _log.warning("queue is missing; declaring it again", queue=self._topology.name)
                # Not at once: RabbitMQ 3.10 would then move the deleted queue's consumers to the new one, and count
                # messages as delivered to them that it never sends. Given a moment it cancels them, and they come back.
                await asyncio.sleep(_REDECLARE_PAUSE)
                await self._topology.declare_on(session.connection)
            except DeliveryError:
                # A negative acknowledgement, as a quorum queue gives while it is just being created or elects a leader.
                if last_try:
                    raise
                await asyncio.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - jitter, not cryptography
            else:
                return

    async def _trip(self, session: "_Session") -> None:
        """Let publishes fail fast for a while, so that a silent broker costs a few uploads their wait, not each."""
        self._tripped_until = _now() + _BREAKER_SECONDS
        _log.warning("broker did not confirm in time; publishing pauses", seconds=_BREAKER_SECONDS)
        # A new connection may fare better, but one that the broker blocks is healthy, and is told when to go on.
        if not await session.blocked():
            session.lost.set()

    async def _set_up(self, session: "_Session") -> None:
        await session.open(publisher_confirms=True)
        await self._topology.declare(session.channel)


class _Consumer:
    """One call of ``consume``. Handlers belong to it, not to a connection: they outlive a lost one."""

    def __init__(self, url: str, topology: "_Topology", handler: Handler, slots: int, give_back_pause: float) -> None:
        self._topology = topology
        self._handler = handler
        self._prefetch = slots
        self._give_back_pause = give_back_pause
        self._link = _Link(url, f"image-service consumer {topology.name}", self._set_up)
        self._slots = asyncio.Semaphore(slots)
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: set[asyncio.Task[None]] = set()
        """Those that hold a message but run no handler: nothing is lost by cancelling them."""
        self._draining = asyncio.Event()
        self._last_arrival = 0.0

    async def run(self, drain: Drain, closed: asyncio.Event, idle_refresh: float) -> None:
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
            await _cancel(self._tasks)
            # The connection goes last: messages are given back on it.
            await _cancel(watchers)
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
        """Connect anew when nothing has come for long.

        A broker can lose track of a consumer without a word (see ``_hand_over``), and hold messages for it; they are
        delivered again once the connection is closed.
        """
        while True:
            await asyncio.sleep(after)
            if not self._tasks and _now() - self._last_arrival >= after:
                self._link.renew()

    async def _set_up(self, session: "_Session") -> None:
        await session.open(publisher_confirms=False)
        channel = session.channel
        await channel.set_qos(prefetch_count=self._prefetch)
        await self._topology.declare(channel)
        # The broker cancels a consumer whose queue is deleted; the connection and the channel stay as they are.
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(session.on_close)
        queue = await channel.get_queue(self._topology.name, ensure=False)

        async def arrived(message: AbstractIncomingMessage) -> None:
            # A task of our own: aio-pika's ends with the channel, and would take the handler with it.
            self._last_arrival = _now()
            task = asyncio.create_task(self._handle(message, session))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        tag = await queue.consume(arrived)
        session.stop_delivery = lambda: queue.cancel(tag)

    async def _handle(self, message: AbstractIncomingMessage, session: "_Session") -> None:
        try:
            delivery = messages.decode(message.body, message.correlation_id)
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

    async def _attempt(self, delivery: Delivery, message: AbstractIncomingMessage, session: "_Session") -> bool:
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


class _Topology:
    """The queues. Whoever connects declares them, in the same words, so nobody has to come first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._dead_letters = 0

    async def declare(self, channel: AbstractChannel) -> int:
        """Create what is missing; returns how many messages are ready in the queue.

        Declaring what exists changes nothing, so this also serves as the round trip of a probe.
        """
        dead = await self._queue(channel, f"{self.name}.dead", {"x-max-length": _DEAD_LETTERS_KEPT})
        if dead > self._dead_letters:
            # No image is lost with them, for the database is the truth; but something put them there.
            _log.error("messages were dead-lettered", queue=f"{self.name}.dead", messages=dead)
        self._dead_letters = dead
        return await self._queue(
            channel,
            self.name,
            {
                "x-delivery-limit": _DELIVERY_LIMIT,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": f"{self.name}.dead",
            },
        )

    async def declare_on(self, connection: AbstractConnection) -> int:
        """The same on a channel of its own: an error closes the channel, and must not close the publisher's."""
        async with connection.channel(publisher_confirms=False) as channel:
            return await self.declare(channel)

    async def _queue(self, channel: AbstractChannel, name: str, arguments: dict[str, Any]) -> int:
        quorum = {"x-queue-type": "quorum", **arguments}
        queue = await channel.declare_queue(name, durable=True, arguments=quorum)
        return queue.declaration_result.message_count or 0


@dataclass(eq=False)
class _Session:
    """A live connection with one channel."""

    connection: AbstractConnection
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the connection, its channel or its consumer is gone, or is given up."""

    stop_delivery: Callable[[], Awaitable[object]] | None = None
    channel: AbstractChannel = field(init=False)

    async def open(self, *, publisher_confirms: bool) -> None:
        self.connection.close_callbacks.add(self.on_close)
        self.channel = self.connection.channel(
            publisher_confirms=publisher_confirms, on_return_raises=publisher_confirms
        )
        await self.channel.initialize()
        self.channel.close_callbacks.add(self.on_close)

    def on_close(self, *_: object) -> None:
        """A callback for every way of losing the session."""
        self.lost.set()

    async def blocked(self) -> bool:
        """Whether the broker has told this connection that it takes no messages for lack of memory or disk."""
        transport = self.connection.transport
        if transport is None:
            return False
        try:
            async with asyncio.timeout(0):
                await transport.ready()
        except TimeoutError:
            return True
        return False


class _Link:
    """Keeps one connection: connects, sets it up, and starts over whenever it is lost, with a growing, jittered pause.

    Args:
        url: Of the broker.
        name: Shown among the broker's connections.
        set_up: Makes a new session usable.
    """

    def __init__(self, url: str, name: str, set_up: Callable[[_Session], Awaitable[None]]) -> None:
        self._url = url
        self._name = name
        self._set_up = set_up
        self._closing: set[asyncio.Task[None]] = set()
        self._renewing = False
        self.session: _Session | None = None
        """Set while connected."""
        self.tried = asyncio.Event()
        """Set once the first attempt has succeeded or failed."""

    def renew(self) -> None:
        """Replace the connection, if there is one, by a new one."""
        if self.session is not None:
            self._renewing = True
            self.session.lost.set()

    async def keep(self) -> NoReturn:
        failures = 0
        try:
            while True:
                reason = "connection lost"
                lasted = 0.0
                try:
                    lasted = await self._connect_and_hold()
                except Exception as error:  # noqa: BLE001 - a supervisor survives whatever it supervises
                    reason = _reason(error)
                self.tried.set()
                if self._renewing and lasted:
                    continue  # at our own wish: no reason to wait, or to tell
                self._renewing = False
                failures = 1 if lasted > _STEADY else failures + 1
                # After the 1st, 2nd, 4th, 8th … failure in a row: seen, but no flood.
                if failures & (failures - 1) == 0:
                    _log.warning("broker is away", connection=self._name, reason=reason, failures=failures)
                pause = min(_BACKOFF_CAP, _BACKOFF_BASE * 2 ** min(failures, 10))
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - jitter, not cryptography
        finally:
            self.tried.set()
            if self._closing:
                await asyncio.wait(self._closing, timeout=_CLOSE_LIMIT)

    async def _connect_and_hold(self) -> float:
        """Returns after the connection is lost how many seconds it lasted."""
        # A heartbeat in the URL is the operator's word; aio-pika would let ours win.
        options: dict[str, Any] = {} if "heartbeat=" in self._url else {"heartbeat": _HEARTBEAT}
        properties: dict[str, Any] = {"connection_name": self._name}
        connection = await _within(_CONNECT_LIMIT, connect(self._url, client_properties=properties, **options))
        session = _Session(connection)
        try:
            await _within(_SETUP_LIMIT, self._set_up(session))
            self.session = session
            self.tried.set()
            if not self._renewing:
                _log.info("broker connected", connection=self._name)
            self._renewing = False
            since = _now()
            await session.lost.wait()
            return _now() - since
        finally:
            self.session = None
            session.lost.set()
            # Not awaited: saying goodbye to a silent broker takes seconds that the next connection need not wait for.
            closing = asyncio.create_task(_swallow(connection.close()))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


_abandoned: Final[set[asyncio.Task[Any]]] = set()


async def _within(seconds: float, work: Awaitable[T]) -> T:
    """The result of ``work``, or ``TimeoutError`` after ``seconds`` at the latest.

    Unlike ``asyncio.timeout`` it does not wait for cancelled work to end: aiormq's clean-up writes to the connection,
    which takes its time when nobody reads at the other end.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=max(0.0, seconds))
    except asyncio.CancelledError:
        _abandon(task)
        raise
    if not done:
        _abandon(task)
        raise TimeoutError
    if task.cancelled():
        # aiormq cancels what waits on a connection that goes away. Here that must not look like our own cancellation.
        raise ConnectionError("the connection went away")
    return task.result()


def _abandon(task: asyncio.Future[Any]) -> None:
    task.cancel()
    if isinstance(task, asyncio.Task):
        _abandoned.add(task)
        task.add_done_callback(_forget)


def _forget(task: asyncio.Task[Any]) -> None:
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not complain about it


async def _settle(verdict: Awaitable[object]) -> None:
    """Send an acknowledgement or its opposite. If the connection is gone, the broker delivers the message again."""
    try:
        await _within(_SETTLE_LIMIT, verdict)
    except Exception as error:  # noqa: BLE001 - no way of failing matters here: see above
        _log.info("acknowledgement not sent; the message will be delivered again", reason=_reason(error))


async def _swallow(work: Awaitable[object]) -> None:
    with suppress(Exception):
        await work


async def _cancel(tasks: Collection[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _reason(error: Exception) -> str:
    """What may be logged of an error: a malformed URL's message can quote a piece of the password."""
    if isinstance(error, ChannelPreconditionFailed):
        return f"a queue of this name exists with other arguments; delete it or use another name: {error}"
    if isinstance(error, TimeoutError):
        # Also what a quorum queue does that has lost its members for good: it is declared, but never served.
        return "no answer in time"
    if isinstance(error, AMQPError | OSError):
        return f"{type(error).__name__}: {error}"
    return type(error).__name__


def _now() -> float:
    return asyncio.get_running_loop().time()
