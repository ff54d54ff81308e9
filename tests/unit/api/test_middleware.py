"""Forwarded headers, request ids and the request log."""

import re
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from harness.asgi import Answer, call, raw_headers, scope
from image_service.api.middleware import ForwardedHeaders, RequestContext, request_id_of

TRUSTED = tuple(ip_network(network) for network in ("10.0.0.0/8", "::1/128"))
PROXY = ("10.1.2.3", 1234)


class RecordingApp:
    """An application that records the request and answers 200."""

    def __init__(self) -> None:
        self.scope: Scope = {}
        self.context: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.context = get_contextvars()
        await PlainTextResponse("ok")(scope, receive, send)

    @property
    def request(self) -> Request:
        return Request(self.scope)


async def forwarded(
    *headers: dict[str, str], client: tuple[str, int] | None = PROXY, own: str = "api:8000"
) -> tuple[str | None, str, str]:
    """Returns the client, scheme and host as the application sees them."""
    app = RecordingApp()
    raw = [pair for each in ({"host": own}, *headers) for pair in raw_headers(each)]
    await call(ForwardedHeaders(app, trusted=TRUSTED), {**scope(client=client), "headers": raw})
    peer = app.scope["client"]
    return peer and peer[0], app.scope["scheme"], ",".join(app.request.headers.getlist("host"))


ALL = {"x-forwarded-for": "198.51.100.9", "x-forwarded-proto": "https", "x-forwarded-host": "img.example.org"}


@pytest.mark.parametrize("peer", ["10.0.0.1", "10.255.255.255", "::1"])
async def test_forwarded_headers_of_a_trusted_proxy_apply(peer: str) -> None:
    assert await forwarded(ALL, client=(peer, 1)) == ("198.51.100.9", "https", "img.example.org")


@pytest.mark.parametrize("peer", ["11.0.0.1", "203.0.113.7", "::2", "", "testclient", "10.0.0.1 ", "10.0.0"])
async def test_forwarded_headers_of_other_peers_are_ignored(peer: str) -> None:
    assert await forwarded(ALL, client=(peer, 1)) == (peer, "http", "api:8000")


async def test_forwarded_headers_without_a_peer_address_are_ignored() -> None:
    assert await forwarded(ALL, client=None) == (None, "http", "api:8000")


async def test_request_without_forwarded_headers_is_unchanged() -> None:
    assert await forwarded() == ("10.1.2.3", "http", "api:8000")


async def test_each_forwarded_header_applies_by_itself() -> None:
    assert await forwarded({"x-forwarded-proto": "https"}) == ("10.1.2.3", "https", "api:8000")
    assert await forwarded({"x-forwarded-host": "a"}) == ("10.1.2.3", "http", "a")
    assert await forwarded({"x-forwarded-for": "2001:db8::1"}) == ("2001:db8::1", "http", "api:8000")


async def test_last_forwarded_value_applies() -> None:
    lists = {
        "x-forwarded-for": "1.1.1.1, 198.51.100.9",
        "x-forwarded-proto": "http,https",
        "x-forwarded-host": "evil.example , img.example.org",
    }
    expected = ("198.51.100.9", "https", "img.example.org")
    assert await forwarded(lists) == expected
    forged = {"x-forwarded-for": "1.1.1.1", "x-forwarded-proto": "http", "x-forwarded-host": "evil.example"}
    assert await forwarded(forged, ALL) == expected
    assert await forwarded(lists, ALL) == expected


@pytest.mark.parametrize("scheme", ["ftp", "HTTPS://", "javascript", "https;", "", ",", "https,", "\xff"])
async def test_forwarded_scheme_other_than_http_is_ignored(scheme: str) -> None:
    assert (await forwarded({"x-forwarded-proto": scheme}))[1] == "http"


@pytest.mark.parametrize("empty", ["", " ", ",", "a,", " , "])
async def test_empty_forwarded_values_are_ignored(empty: str) -> None:
    values = dict.fromkeys(ALL, empty)
    assert await forwarded(values) == ("10.1.2.3", "http", "api:8000")


@given(value=st.text(st.characters(max_codepoint=255)))
async def test_arbitrary_forwarded_values_never_fail(value: str) -> None:
    _, scheme, _ = await forwarded(dict.fromkeys(ALL, value))
    assert scheme in {"http", "https"}


async def test_other_protocols_pass_unchanged() -> None:
    protocols: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        protocols.append(scope["type"])

    await call(ForwardedHeaders(RequestContext(app), trusted=TRUSTED), {"type": "lifespan"})
    assert protocols == ["lifespan"]


async def ask(headers: dict[str, str] | None = None, path: str = "/images") -> tuple[Answer, RecordingApp]:
    app = RecordingApp()
    answer = await call(RequestContext(app), scope(path=path, headers=headers))
    return answer, app


@pytest.mark.parametrize(
    "given_id", ["r-1", "01932b5c-8f2a-7c3e-9d41-5a6b7c8d9e0f", "Root=1-67891233-abcdef012345678912345678", "a" * 128]
)
async def test_valid_request_id_is_kept(given_id: str) -> None:
    answer, app = await ask({"X-Request-ID": given_id})
    assert answer.headers["x-request-id"] == given_id
    assert request_id_of(app.request) == given_id
    assert app.context == {"request_id": given_id}


@pytest.mark.parametrize(
    "given_id", ["", " ", "a b", "a" * 129, "a\r\nb", "a\n", "sp\xe4t", "\xff", "<script>", 'a"b', "a,b"]
)
async def test_invalid_request_id_is_replaced(given_id: str) -> None:
    answer, app = await ask({"X-Request-ID": given_id})
    generated = answer.headers["x-request-id"]
    assert UUID(generated).version == 7
    assert request_id_of(app.request) == generated


async def test_request_without_an_id_gets_a_unique_one() -> None:
    ids = {(await ask())[0].headers["x-request-id"] for _ in range(10)}
    assert len(ids) == 10


async def test_request_id_leaves_the_log_context_after_the_request() -> None:
    await ask()
    assert "request_id" not in get_contextvars()


async def test_request_is_logged_once() -> None:
    with capture_logs() as log:
        await ask()
    (line,) = log
    assert re.fullmatch(r"\d+\.\d", str(line.pop("milliseconds")))
    assert line == {
        "event": "request",
        "log_level": "info",
        "method": "GET",
        "path": "/images",
        "status": 200,
        "client": "203.0.113.7",
    }


async def test_log_names_the_client_behind_a_trusted_proxy() -> None:
    app = ForwardedHeaders(RequestContext(RecordingApp()), trusted=TRUSTED)
    with capture_logs() as log:
        await call(app, scope(client=PROXY, headers=ALL))
        await call(app, scope(client=None))
    assert [line["client"] for line in log] == ["198.51.100.9", None]


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/docs-assets/swagger-ui.css"])
async def test_probes_and_assets_are_logged_at_debug_level(path: str) -> None:
    with capture_logs() as log:
        await ask(path=path)
    assert [line["log_level"] for line in log] == ["debug"]


async def test_request_without_a_response_is_logged_without_a_status() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise KeyboardInterrupt

    with capture_logs() as log, pytest.raises(KeyboardInterrupt):
        await call(RequestContext(app), scope())
    assert [(line["event"], line["status"]) for line in log] == [("request", None)]
