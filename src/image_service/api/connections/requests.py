"""Parses the requests of one connection, one at a time and each within bounds."""

import asyncio
import re
from abc import abstractmethod
from typing import Any, Final

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from image_service.api.connections.limits import (
    CHUNKED_STEP,
    FRAMING_PER_BYTE,
    MAX_HEAD,
    MAX_HEADER_LINE,
    MAX_HEADER_LINES,
    MAX_URL,
)
from image_service.errors import HeadTooLarge, MalformedRequest, ServiceError, UrlTooLong

_BLANK_LINE: Final = b"\r\n\r\n"
"""Ends a head, and a chunked body; the parser accepts no bare line feeds."""
_LINE_OVERHEAD: Final = len(": ")
_HOST: Final = re.compile(rb"(\[[\w.:%~-]*\]|[\w.%~!$&'()*+,;=-]*)(:\d*)?")
"""A Host header's value (RFC 9110 section 7.2, RFC 3986 section 3.2.2): an address, or a name that may be empty."""


class RequestParser(HttpToolsProtocol):
    """uvicorn's protocol, with bounds on what is parsed and kept.

    - A head has a largest size (RFC 9110 section 15.5.15, RFC 6585 section 5) and exactly one ``Host``, which has the
      form of one (RFC 9112 section 3.2). Only bytes within the bounds reach the parser, which keeps a line until it is
      complete.
    - Trailers never become headers (RFC 9110 section 6.5.1), and a chunked body's framing has a largest size.
    - One request can wait for the response before it. What follows is neither parsed nor read until then.
    """

    flow: "Flow"
    transport: asyncio.Transport

    def __init__(self, **uvicorn: Any) -> None:  # noqa: ANN401 — as uvicorn gives them
        super().__init__(**uvicorn)
        self._running: RequestResponseCycle | None = None
        """The request that is being answered, or was last; uvicorn's ``cycle`` is the one that was parsed last."""
        self._unparsed: tuple[bytes, int] | None = None
        """Received bytes, and the position of the first one that is not parsed yet."""
        self._violation: ServiceError | None = None
        self._head_bytes = 0
        """Bytes of a head that is not complete yet."""
        self._in_body = False
        """Whether a request's head is complete, and its body is not."""
        self._lines = 0
        self._hosts = 0
        self._content_left: int | None = None
        """Bytes of the body still to come; None of a chunked one."""
        self._framing = 0
        """Bytes of a chunked body's framing, less what its content justifies."""

    @abstractmethod
    def violated(self, error: ServiceError, *, in_running: bool) -> None:
        """Called once, when what was received breaks a rule; nothing is parsed after that.

        Args:
            error: The rule.
            in_running: Whether the bytes may belong to the request in progress, not to one after it: where a body is
                longer than its ``Content-Length`` says, a parser sees another request, which is none.
        """

    @property
    def is_answered(self) -> bool:
        """Whether no request is in progress."""
        return self._running is None or self._running.response_complete or self._running.disconnected

    def parse(self, data: bytes, at: int = 0) -> None:
        """Parses what was received from a position on, until a request has to wait for the response before it."""
        if self._unparsed is not None:  # received before reading had stopped
            before, first = self._unparsed
            self._unparsed = (before[first:] + data, 0)
            return
        while at < len(data):
            if self.pipeline:
                self._unparsed = (data, at)
                self.flow.stop_reading()
                return
            end = self._end_of_piece(data, at)
            if not self._in_body:
                self._head_bytes += end - at
            elif self._content_left is None:
                self._framing += end - at
            garbled = False
            try:
                self.parser.feed_data(data[at:end])
            except httptools.HttpParserError:
                garbled = self._violation is None
                self._violation = self._violation or MalformedRequest()
            except httptools.HttpParserUpgrade:
                pass  # no other protocol is spoken here: what follows is the next request
            if self._head_bytes > MAX_HEAD or self._framing > MAX_HEAD:
                self._violation = self._violation or HeadTooLarge()
            self._framing = max(0, self._framing)
            if self._violation is not None:
                in_body = self._in_body and self.cycle is self._running
                self.violated(self._violation, in_running=garbled or in_body)
                return
            at = end

    def _end_of_piece(self, data: bytes, at: int) -> int:
        """Returns where to stop parsing: where a request may end, so that the next can wait, or a bound is reached."""
        if not self._in_body:
            limit = at + MAX_HEAD + 1 - self._head_bytes
            found = data.find(_BLANK_LINE, at, limit)
        elif self._content_left is not None:
            limit = at + max(1, self._content_left)
            found = -1
        else:
            limit = at + MAX_HEAD
            found = data.find(_BLANK_LINE, at + CHUNKED_STEP, limit)
        return min(limit, len(data)) if found < 0 else found + len(_BLANK_LINE)

    # --- called by the parser ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begins a head."""
        super().on_message_begin()
        self._lines = self._hosts = 0
        self._content_left = None

    def on_url(self, url: bytes) -> None:
        """Collects the target."""
        self.url += url
        if len(self.url) > MAX_URL:
            self._reject(UrlTooLong())

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collects a header line; a trailer line is counted and dropped."""
        self._lines += 1
        if self._lines > MAX_HEADER_LINES or len(name) + len(value) + _LINE_OVERHEAD > MAX_HEADER_LINE:
            self._reject(HeadTooLarge())
        if self._in_body:
            return
        name = name.lower()
        if name == b"host":
            self._hosts += 1
            if not _HOST.fullmatch(value):
                self._reject(MalformedRequest("The Host header is no host name or address. Send that of the URL."))
        elif name == b"content-length":
            self._content_left = int(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Starts the request, or lets it wait for the one before it."""
        if self._head_bytes > MAX_HEAD:
            self._reject(HeadTooLarge())
        if self._hosts != 1 and (self._hosts or self.parser.get_http_version() == "1.1"):
            self._reject(
                MalformedRequest("A request has exactly one Host header. Send it with an ordinary HTTP client.")
            )
        super().on_headers_complete()
        self._head_bytes = self._lines = self._framing = 0
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        """Passes a part of the body on."""
        if self._content_left is not None:
            self._content_left -= len(body)
        else:
            self._framing -= len(body) * FRAMING_PER_BYTE
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Ends the body."""
        self._in_body = False
        super().on_message_complete()

    def _reject(self, error: ServiceError) -> None:
        self._violation = error
        raise error  # stops the parser

    # --- called for the application ----------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 — as uvicorn has it
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Goes on with the next request, if it has arrived."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if self._unparsed is not None:
            data, at = self._unparsed
            self._unparsed = None
            self.parse(data, at)
        if self._unparsed is None:
            self.flow.continue_reading()

    def abandon(self) -> None:
        """Drops what waits, and tells the request in progress that its client is gone."""
        self.pipeline.clear()
        self._unparsed = None
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.waiting_for_100_continue = False
            running.message_event.set()
            self.flow.resume_writing()


class Flow(FlowControl):
    """Flow control that does not resume reading while a request waits."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._stopped = False

    def stop_reading(self) -> None:
        """Stops reading until ``continue_reading``."""
        self._stopped = True
        self.pause_reading()

    def continue_reading(self) -> None:
        """Reads again."""
        self._stopped = False
        self.resume_reading()

    def resume_reading(self) -> None:
        """Reads again, unless reading was stopped."""
        if not self._stopped:
            super().resume_reading()
