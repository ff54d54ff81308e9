"""Keeps a connection to the broker open, and reconnects whenever it is lost."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl, urlsplit

import structlog
from aio_pika import connect
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPConnectionError, AMQPError, ChannelPreconditionFailed
from aiormq.exceptions import InvalidFrameError

from image_service.causes import address_of, cause_of, one_line
from image_service.errors import QueueUnavailable
from image_service.queue.rabbitmq.timeouts import ignore_errors, now, within
from image_service.tls import amqp_tls

_HEARTBEAT: Final = 10
"""Seconds between AMQP heartbeats, unless the URL says otherwise."""

_FIRST_CONNECT_TIMEOUT: Final = 1.0
_CONNECT_TIMEOUT: Final = 5.0
_SETUP_TIMEOUT: Final = 10.0  # a broker that has just started takes seconds to create a quorum queue
_CLOSE_TIMEOUT: Final = 3.0

_BACKOFF_BASE: Final = 0.2
_BACKOFF_CAP: Final = 5.0
_STABLE_AFTER: Final = 5.0
"""Seconds that a connection must have lasted before the backoff starts again from its minimum."""

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Session:
    """An open connection with one channel."""

    connection: AbstractConnection
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the connection, its channel or its consumer is lost or abandoned."""

    stop_delivery: Callable[[], Awaitable[object]] | None = None
    channel: AbstractChannel = field(init=False)

    async def open(self, *, publisher_confirms: bool) -> None:
        """Open the channel; with confirms, publishing a message that cannot be routed raises."""
        self.connection.close_callbacks.add(self.on_close)
        self.channel = self.connection.channel(
            publisher_confirms=publisher_confirms, on_return_raises=publisher_confirms
        )
        await self.channel.initialize()
        self.channel.close_callbacks.add(self.on_close)

    def on_close(self, *_: object) -> None:
        """Callback for every way of losing the session."""
        self.lost.set()

    async def blocked(self) -> bool:
        """Whether the broker has told this connection that it accepts no messages for lack of memory or disk."""
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
    """Returns a new connection, within five seconds; the broker lists it under the name."""
    # A heartbeat in the URL has precedence; aio-pika would use ours.
    options: dict[str, Any] = {} if "heartbeat=" in url else {"heartbeat": _HEARTBEAT}
    properties: dict[str, Any] = {"connection_name": name}
    if url.startswith("amqps://"):
        # Made again for each connection, so that renewed certificates are used. In a thread: the system's are many.
        options["ssl_context"] = await asyncio.to_thread(amqp_tls, dict(parse_qsl(urlsplit(url).query)))
    return await within(_CONNECT_TIMEOUT, connect(url, client_properties=properties, **options))


class BrokerConnection:
    """Keeps one connection open: connects, sets it up, and reconnects after a loss, with a growing, jittered pause.

    Args:
        url: The broker's.
        name: Listed among the broker's connections.
        set_up: Prepares a new session.
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
        self.reason: str | None = None
        """Why it is not open; None while it is, and before the first attempt."""

    def renew(self) -> None:
        """Replace an open connection by a new one."""
        if self.session is not None:
            self._renewing = True
            self.session.lost.set()

    async def usable(self, deadline: float) -> Session:
        """Returns the open session. Waits only for the first attempt to connect, and for a second at most.

        Args:
            deadline: The event loop's time at which to stop waiting.

        Raises:
            QueueUnavailable: it is not open, or the broker takes no messages on it.
        """
        if not self.tried.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(deadline, now() + _FIRST_CONNECT_TIMEOUT)):
                    await self.tried.wait()
        session = self.session
        if session is None:
            raise QueueUnavailable(cause=self.reason)
        if await session.blocked():
            raise QueueUnavailable("The broker is short of memory or disk and takes no messages.")
        return session

    async def keep_open(self) -> NoReturn:
        """Connect and reconnect until cancelled."""
        failures = 0
        try:
            while True:
                reason = "connection lost"
                lasted = 0.0
                try:
                    lasted = await self._connect_and_hold()
                except Exception as error:  # noqa: BLE001 - the loop has to survive every error
                    reason = reason_of(error)
                if self._renewing and lasted:
                    continue  # at our own request: no pause, no warning
                address = address_of(self._url)
                reason = f"{reason} (at {address})" if address else reason
                changed, self.reason = self.reason != reason, reason
                self.tried.set()
                self._renewing = False
                failures = 1 if lasted > _STABLE_AFTER else failures + 1
                # After the 1st, 2nd, 4th, 8th … failure in a row, so that the log is not flooded.
                if failures & (failures - 1) == 0 or changed:
                    _log.warning("broker unavailable", connection=self._name, reason=reason, failures=failures)
                pause = min(_BACKOFF_CAP, _BACKOFF_BASE * 2 ** min(failures, 10))
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - jitter, not cryptography
        finally:
            self.tried.set()
            if self._closing:
                await asyncio.wait(self._closing, timeout=_CLOSE_TIMEOUT)

    async def _connect_and_hold(self) -> float:
        """Connect, and wait until the connection is lost; returns how many seconds it lasted."""
        connection = await open_connection(self._url, self._name)
        session = Session(connection)
        try:
            await within(_SETUP_TIMEOUT, self._set_up(session))
            self.session = session
            self.reason = None
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
            # Not awaited: closing takes seconds if the broker does not answer, and need not delay the next connection.
            closing = asyncio.create_task(ignore_errors(connection.close()))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def reason_of(error: BaseException) -> str:
    """Returns what may be logged of an error: a malformed URL's message may quote a part of the password."""
    if isinstance(error, ChannelPreconditionFailed):
        told = one_line(str(error))
        return f"a queue or exchange of this name exists with other arguments; delete it or use another name: {told}"
    if isinstance(error, TimeoutError):
        # A quorum queue that has lost its members for good is declared, but never served: that times out, too.
        return "no answer in time"
    if isinstance(error, InvalidFrameError) and "Connection.Close" in str(error):
        # aiormq expects the virtual host to be opened, and keeps nothing of the broker's answer but its type.
        return "the broker refused the virtual host: it is missing, not this account's, or has too many connections"
    if isinstance(error, AMQPConnectionError) and isinstance(error.__cause__, OSError):
        return cause_of(error.__cause__)
    if isinstance(error, AMQPError | OSError):
        return cause_of(error)
    return type(error).__name__
