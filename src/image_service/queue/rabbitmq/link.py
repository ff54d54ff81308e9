"""One connection to the broker, made again whenever it is lost."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import structlog
from aio_pika import connect
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError, ChannelPreconditionFailed

from image_service.queue.rabbitmq.waiting import now, swallow, within

_HEARTBEAT: Final = 10
"""Seconds between AMQP heartbeats, unless the URL says otherwise."""

_CONNECT_LIMIT: Final = 5.0
_SETUP_LIMIT: Final = 10.0  # a broker that has just started takes seconds to create a quorum queue
_CLOSE_LIMIT: Final = 3.0

_BACKOFF_BASE: Final = 0.2
_BACKOFF_CAP: Final = 5.0
_STEADY: Final = 5.0
"""Seconds that a connection must have lasted for the backoff to start anew."""

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Session:
    """A live connection with one channel."""

    connection: AbstractConnection
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the connection, its channel or its consumer is gone, or is given up."""

    stop_delivery: Callable[[], Awaitable[object]] | None = None
    channel: AbstractChannel = field(init=False)

    async def open(self, *, publisher_confirms: bool) -> None:
        """Open the channel; with confirms, a message that cannot be routed raises."""
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


async def open_connection(url: str, name: str) -> AbstractConnection:
    """A new connection, within five seconds; the name is shown among the broker's connections."""
    # A heartbeat in the URL is the operator's word; aio-pika would let ours win.
    options: dict[str, Any] = {} if "heartbeat=" in url else {"heartbeat": _HEARTBEAT}
    properties: dict[str, Any] = {"connection_name": name}
    return await within(_CONNECT_LIMIT, connect(url, client_properties=properties, **options))


class Link:
    """Keeps one connection: connects, sets it up, and starts over whenever it is lost, with a growing, jittered pause.

    Args:
        url: Of the broker.
        name: Shown among the broker's connections.
        set_up: Makes a new session usable.
    """

    def __init__(self, url: str, name: str, set_up: Callable[[Session], Awaitable[None]]) -> None:
        self._url = url
        self._name = name
        self._set_up = set_up
        self._closing: set[asyncio.Task[None]] = set()
        self._renewing = False
        self.session: Session | None = None
        """Set while connected."""
        self.tried = asyncio.Event()
        """Set once the first attempt has succeeded or failed."""

    def renew(self) -> None:
        """Replace the connection, if there is one, by a new one."""
        if self.session is not None:
            self._renewing = True
            self.session.lost.set()

    async def keep(self) -> NoReturn:
        """Connect, again and again, until cancelled."""
        failures = 0
        try:
            while True:
                reason = "connection lost"
                lasted = 0.0
                try:
                    lasted = await self._connect_and_hold()
                except Exception as error:  # noqa: BLE001 - a supervisor survives whatever it supervises
                    reason = reason_of(error)
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
        connection = await open_connection(self._url, self._name)
        session = Session(connection)
        try:
            await within(_SETUP_LIMIT, self._set_up(session))
            self.session = session
            self.tried.set()
            if not self._renewing:
                _log.info("broker connected", connection=self._name)
            self._renewing = False
            since = now()
            await session.lost.wait()
            return now() - since
        finally:
            self.session = None
            session.lost.set()
            # Not awaited: saying goodbye to a silent broker takes seconds that the next connection need not wait for.
            closing = asyncio.create_task(swallow(connection.close()))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def reason_of(error: Exception) -> str:
    """What may be logged of an error: a malformed URL's message can quote a piece of the password."""
    if isinstance(error, ChannelPreconditionFailed):
        return f"a queue of this name exists with other arguments; delete it or use another name: {error}"
    if isinstance(error, TimeoutError):
        # Also what a quorum queue does that has lost its members for good: it is declared, but never served.
        return "no answer in time"
    if isinstance(error, AMQPError | OSError):
        return f"{type(error).__name__}: {error}"
    return type(error).__name__
