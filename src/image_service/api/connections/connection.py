"""One HTTP connection: its deadlines, and how what breaks a rule is refused."""

import asyncio
import socket
import struct
from typing import Any, Final

import structlog
from starlette.responses import Response
from uuid_utils.compat import uuid7
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from image_service.api.connections.limits import MAX_DISCARDED
from image_service.api.connections.open import CloseReason, OpenConnections
from image_service.api.connections.requests import Flow, RequestParser
from image_service.api.problems import problem_response
from image_service.errors import HeadTimeout, ServiceError

_MAPPED: Final = "::ffff:"
"""Begins the address of an IPv4 client on a socket that takes both families (RFC 4291 section 2.5.5.2)."""
_ACKNOWLEDGED: Final = struct.Struct("=120xQ")
"""``tcpi_bytes_acked`` in Linux's ``struct tcp_info``."""

_log = structlog.get_logger(__name__)


class Connection(RequestParser):
    """A connection that waits for its client only for so long.

    Args:
        connections: All connections of the server.
        uvicorn: What uvicorn gives a protocol.
    """

    def __init__(self, connections: OpenConnections, **uvicorn: Any) -> None:  # noqa: ANN401 — as uvicorn gives them
        super().__init__(**uvicorn)
        self._connections = connections
        self._limits = connections.limits
        self._since = 0.0
        """When the present wait for the client began: the connect, a response's end, a head's first byte, a refusal."""
        self._received_at = 0.0
        self._unsent: tuple[int, float] | None = None
        """While a response waits to be sent: how much the client had acknowledged, and since when no more."""
        self._refused = False
        self._discarded = 0
        self._is_last = False
        """Whether the process ends, so that the first request of this connection is its last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See ``asyncio.Protocol``."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        if self.client and self.client[0].startswith(_MAPPED):
            self.client = (self.client[0].removeprefix(_MAPPED), self.client[1])
        self._since = self.loop.time()
        self._connections.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self.abandon()
        self._connections.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._received_at = self.loop.time()
        if self._refused:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED:
                self.transport.close()
            return
        begun = self._head_bytes
        self.parse(data)
        if self._head_bytes and not begun and self._running is not None:
            self._since = self._received_at

    def on_headers_complete(self) -> None:
        """Starts the request, or lets it wait for the one before it."""
        super().on_headers_complete()
        if self._is_last:
            self.cycle.keep_alive = False
        self._connections.works(self)

    def on_response_complete(self) -> None:
        """Goes on with what was received; without another request, the connection is idle."""
        self._since = self.loop.time()
        if self._violation is not None:
            self.refuse(self._violation)
            return
        super().on_response_complete()
        if self.is_answered and not self.transport.get_write_buffer_size():
            self._connections.waits(self)

    def shutdown(self) -> None:
        """Ends an idle connection, and a busy one after its response. A new one has time for its first request."""
        if self._running is None and not self._refused:
            self._is_last, self._since = True, self.loop.time()
        else:
            super().shutdown()

    def check(self, now: float, *, draining: bool) -> None:
        """Closes the connection if its client has kept the server waiting for too long."""
        limits = self._limits
        silent = now - self._received_at
        if self.transport.get_write_buffer_size():
            self._check_unsent(now, limits.drain_timeout if draining else limits.write_timeout)
            return
        self._unsent = None
        if self.is_answered:
            self._connections.waits(self)
            self._check_waiting(now - self._since, silent)
        elif draining and self._in_body and not self.flow.read_paused and silent > limits.drain_timeout:
            self.close_now(CloseReason.DRAIN_TIMEOUT)

    def _check_unsent(self, now: float, limit: float) -> None:
        acknowledged = _acknowledged(self.transport)
        if self._unsent is None or acknowledged != self._unsent[0]:
            self._unsent = (acknowledged, now)
        elif now - self._unsent[1] > limit:
            self.close_now(CloseReason.WRITE_TIMEOUT)

    def _check_waiting(self, waited: float, silent: float) -> None:
        """Checks a connection without a request in progress."""
        limits = self._limits
        if self._refused:
            if waited > limits.linger:
                self.transport.abort()
        elif self._in_body:
            if min(silent, waited) > limits.head_timeout or waited > limits.discard_timeout:
                self.close_now(CloseReason.BODY_TIMEOUT)
        elif self._head_bytes and not self._is_last:
            if waited > limits.head_timeout:
                self.refuse(HeadTimeout())
        elif waited > self._idle_limit():
            if self._running is None and not self._is_last:
                self._connections.count(CloseReason.HEAD_TIMEOUT)
            self.transport.close()

    def _idle_limit(self) -> float:
        if self._is_last:
            return self._limits.first_request
        return self._limits.head_timeout if self._running is None else self._limits.keep_alive

    def close_now(self, reason: CloseReason) -> None:
        """Closes the connection without a response."""
        self._connections.count(reason)
        self.transport.abort()

    def refuse(self, error: ServiceError) -> None:
        """Answers with a problem document, and closes the connection once the client has had time to read it."""
        self.abandon()
        self._refused, self._violation = True, None
        self._since = self.loop.time()
        if self.transport.is_closing():
            return
        request_id, client = str(uuid7()), self.client[0] if self.client else None
        _log.info("request refused", code=error.code, detail=error.detail, client=client, request_id=request_id)
        self._connections.count(error.code)
        response = problem_response(error, {"X-Request-ID": request_id, "Connection": "close"})
        self.transport.write(_on_the_wire(response, self.server_state.default_headers))
        self.transport.write_eof()
        self.flow.continue_reading()
        self._connections.waits(self)

    def violated(self, error: ServiceError, *, in_running: bool) -> None:
        """Refuses what was received: at once if it concerns the request in progress, else after its response."""
        if self.is_answered or (in_running and self._running is not None and not self._running.response_started):
            self.refuse(error)
        else:
            self._refused = True
            self.flow.stop_reading()


def _acknowledged(transport: asyncio.WriteTransport) -> int:
    """Returns a number that changes whenever the client has taken a byte of what is to be sent.

    The bytes that it acknowledged, where the system counts them. The write buffer's size would not do: the kernel takes
    nothing from it until a third of its own buffer is free, which with a slow client takes longer than the limit.
    """
    try:
        information = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        (acknowledged,) = _ACKNOWLEDGED.unpack_from(information)
    except (OSError, AttributeError, struct.error):
        return transport.get_write_buffer_size()
    return int(acknowledged)


def _on_the_wire(response: Response, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    headers = b"".join(b"%b: %b\r\n" % header for header in (*default_headers, *response.raw_headers))
    return STATUS_LINE[response.status_code] + headers + b"\r\n" + bytes(response.body)
