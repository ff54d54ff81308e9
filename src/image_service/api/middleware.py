"""Middleware around every request: the client behind a proxy, a request id, a log line, and metrics."""

import re
import time
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from image_service.api.problems import refusal
from image_service.api.waiting import WAITED
from image_service.errors import ServiceError
from image_service.observability.metrics import Metrics

_HEADER: Final = "X-Request-ID"
_ACCEPTABLE_ID: Final = re.compile(r"[\w.:+/=@-]{1,128}", re.ASCII)
RECEIVED_HOSTS: Final = "received_hosts"
"""The key in a request's state of the values of ``Host`` that a forwarded one has replaced."""
_SCHEMES: Final = frozenset({"http", "https"})
_QUIET: Final = ("/health", "/docs-assets")
"""Paths whose requests are logged at debug level and not traced: probes, and static files."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER: Final = "other"
"""The label of unknown methods and paths: clients must not be able to create time series."""
_CONNECTION_CLOSED: Final = 499
"""The status, after nginx, of a request whose client closed the connection before the response."""

_log = structlog.get_logger(__name__)


class ForwardedHeaders:
    """Applies ``X-Forwarded-For``, ``-Proto`` and ``-Host`` of requests that come from a trusted proxy.

    Of several values the last one is used: the trusted proxy added it; the client may have sent the others.
    """

    def __init__(self, app: ASGIApp, *, trusted: Iterable[IPv4Network | IPv6Network]) -> None:
        self._app = app
        self._trusted = tuple(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on with the forwarded client, scheme and host."""
        if scope["type"] == "http" and scope.get("client") and self._is_trusted(scope["client"][0]):
            _apply_forwarded(scope)
        await self._app(scope, receive, send)

    def _is_trusted(self, client: str) -> bool:
        try:
            address = ip_address(client)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


class RequestContext:
    """Gives each request an id, logs it when it ends, and answers unexpected exceptions with a problem document."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on within its context."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(_HEADER, "")
        request_id = given if _ACCEPTABLE_ID.fullmatch(given) else str(uuid7())
        scope.setdefault("state", {})["request_id"] = request_id
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[_HEADER] = request_id
            await send(message)

        began = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                _log.exception("request failed", method=scope["method"], path=scope["path"])
                if status is not None:
                    raise  # the server closes the connection, which shows the client that the response is incomplete
                await refusal(scope, ServiceError())(scope, receive, send_with_id)
            finally:
                log = _log.debug if is_quiet(scope) else _log.info
                log(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    milliseconds=round((time.perf_counter() - began) * 1000, 1),
                    client=scope["client"][0] if scope.get("client") else None,
                )


class RequestMetrics:
    """Measures each request: duration, status, and bytes received and sent."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on and measures it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = _CONNECTION_CLOSED
        received = sent = 0

        async def count_received() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def count_sent(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            sent += len(message.get("body", b""))
            await send(message)

        began = time.perf_counter()
        with self._metrics.requests_in_progress.track_inprogress():
            try:
                await self._app(scope, count_received, count_sent)
            finally:
                method = scope["method"] if scope["method"] in _METHODS else _OTHER
                state = scope.get("state", {})
                # What a client wants to wait for says nothing of how fast the service is.
                route, seconds = _route_template(scope), time.perf_counter() - began - state.get(WAITED, 0)
                problem = state.get("problem")
                self._metrics.answered(method, route, status, seconds, problem=problem)
                self._metrics.transferred(route, received=received, sent=sent)


def is_quiet(scope: Scope) -> bool:
    """Whether requests to this path are logged at debug level only and not traced."""
    path: str = scope["path"]
    return path.startswith(_QUIET)


def request_id_of(request: Request) -> str:
    """Returns the id that ``RequestContext`` gave the request."""
    request_id: str = request.state.request_id
    return request_id


def _route_template(scope: Scope) -> str:
    """Returns the path with parameter names instead of values, so that the number of labels is bounded."""
    template = getattr(scope.get("route"), "path", None)
    return template if isinstance(template, str) else _OTHER


def _apply_forwarded(scope: Scope) -> None:
    headers = MutableHeaders(scope=scope)
    if client := _last(headers, "X-Forwarded-For"):
        scope["client"] = (client, 0)
    if (scheme := _last(headers, "X-Forwarded-Proto")) in _SCHEMES:
        scope["scheme"] = scheme
    if host := _last(headers, "X-Forwarded-Host"):
        scope.setdefault("state", {})[RECEIVED_HOSTS] = headers.getlist("Host")
        headers["Host"] = host


def _last(headers: MutableHeaders, name: str) -> str:
    return ",".join(headers.getlist(name)).rpartition(",")[2].strip()
