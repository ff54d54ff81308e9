"""All open connections of the server: their number, their deadlines, and which one gives way to a new one."""

import asyncio
import errno
import os
import time
from collections import OrderedDict
from enum import StrEnum
from typing import Final, Protocol

import structlog

from image_service.api.connections.limits import ConnectionLimits
from image_service.errors import (
    HeadTimeout,
    HeadTooLarge,
    MalformedRequest,
    ServiceError,
    TooManyConnections,
    UrlTooLong,
)
from image_service.observability.metrics import Metrics

_LOG_INTERVAL: Final = 60.0
"""Seconds between two log lines about one shortage."""
_FREED: Final = 16
"""Connections that are closed when no file can be opened any more."""

_log = structlog.get_logger(__name__)


class CloseReason(StrEnum):
    """Why the server closed a connection without a response."""

    DISPLACED = "displaced"
    """It had no request in progress, and a new connection needed its place."""
    HEAD_TIMEOUT = "head-timeout"
    """No head arrived in time: the client sent nothing."""
    BODY_TIMEOUT = "body-timeout"
    """The rest of a body whose request was answered already did not arrive in time."""
    WRITE_TIMEOUT = "write-timeout"
    """The client took no byte of the response for too long."""
    DRAIN_TIMEOUT = "drain-timeout"
    """The process was ending, and the client sent no byte for too long."""


REASONS: Final = frozenset(
    {*CloseReason}
    | {error.code for error in (HeadTimeout, HeadTooLarge, MalformedRequest, TooManyConnections, UrlTooLong)}
)
"""Why the server closes connections: the codes of its refusals, and the reasons without a response."""


class WatchedConnection(Protocol):
    """A connection as seen from here."""

    def check(self, now: float, *, draining: bool) -> None:
        """Closes the connection if a deadline has passed."""

    def close_now(self, reason: CloseReason) -> None:
        """Closes the connection without a response."""

    def refuse(self, error: ServiceError) -> None:
        """Answers with an error and closes the connection."""


class OpenConnections:
    """Counts the connections, and checks their deadlines with one timer for all.

    Args:
        limits: The bounds.
        metrics: Where connections are counted, if anywhere.
    """

    def __init__(self, limits: ConnectionLimits, metrics: Metrics | None = None) -> None:
        self.limits = limits
        self._metrics = metrics
        self._open: set[WatchedConnection] = set()
        self._waiting: OrderedDict[WatchedConnection, None] = OrderedDict()
        """Those without a request in progress, and since when: the first has waited longest."""
        self._draining = False
        self._logged: dict[str, float] = {}
        if metrics is not None:
            metrics.track_http_connections(lambda: self.number, limit=limits.max_connections, reasons=REASONS)

    @property
    def number(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def opened(self, connection: WatchedConnection) -> None:
        """Adds a new connection; at the limit, another gives way, or this one is refused."""
        self._open.add(connection)
        self._waiting[connection] = None
        if len(self._open) <= self.limits.max_connections:
            return
        oldest = next(iter(self._waiting))
        if oldest is not connection:
            self._displace(oldest)
        else:
            connection.refuse(TooManyConnections())
        if self._may_log("connections"):
            _log.warning("connection limit reached", open=len(self._open), limit=self.limits.max_connections)

    def closed(self, connection: WatchedConnection) -> None:
        """Removes a connection."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def works(self, connection: WatchedConnection) -> None:
        """Notes that a connection has a request in progress, and gives way no longer."""
        self._waiting.pop(connection, None)

    def waits(self, connection: WatchedConnection) -> None:
        """Notes that a connection has no request in progress any more, and nothing to send."""
        if connection in self._open:
            self._waiting[connection] = None

    def count(self, reason: str) -> None:
        """Counts a connection that the server closes, by one of ``REASONS``."""
        if self._metrics is not None:
            self._metrics.connection_closed(str(reason))

    def drain(self) -> None:
        """From now on, clients that neither send nor take anything are waited for only shortly."""
        self._draining = True

    async def watch(self) -> None:
        """Checks all deadlines again and again, until cancelled."""
        while True:
            await asyncio.sleep(self.limits.interval)
            self.check()

    def check(self) -> None:
        """Closes the connections whose deadline has passed; frees some if no file can be opened any more."""
        now = asyncio.get_running_loop().time()
        for connection in tuple(self._open):
            connection.check(now, draining=self._draining)
        if not _can_open_files():
            for oldest in tuple(self._waiting)[:_FREED]:
                self._displace(oldest)
            if self._may_log("files"):
                _log.error("no file can be opened: the limit of open files is reached", connections=len(self._open))

    def _displace(self, connection: WatchedConnection) -> None:
        self.closed(connection)
        connection.close_now(CloseReason.DISPLACED)

    def _may_log(self, shortage: str) -> bool:
        """Whether a shortage has not been logged lately."""
        now = time.monotonic()
        if now - self._logged.get(shortage, float("-inf")) < _LOG_INTERVAL:
            return False
        self._logged[shortage] = now
        return True


def _can_open_files() -> bool:
    """Whether a file can be opened: where none can, the event loop closes new connections without telling us."""
    try:
        os.close(os.open(os.sep, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno not in {errno.EMFILE, errno.ENFILE}
    return True
