"""Who asked, under which id, and what the log says about it."""

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


class Seen:
    """An application that remembers the request, and answers 200."""

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
    """What the application takes for the client, the scheme and the host."""
    seen = Seen()
    raw = [pair for each in ({"host": own}, *headers) for pair in raw_headers(each)]
    await call(ForwardedHeaders(seen, trusted=TRUSTED), {**scope(client=client), "headers": raw})
    peer = seen.scope["client"]
    return peer and peer[0], seen.scope["scheme"], ",".join(seen.request.headers.getlist("host"))


ALL = {"x-forwarded-for": "198.51.100.9", "x-forwarded-proto": "https", "x-forwarded-host": "img.example.org"}


@pytest.mark.parametrize("peer", ["10.0.0.1", "10.255.255.255", "::1"])
async def test_a_trusted_proxy_is_believed(peer: str) -> None:
    assert await forwarded(ALL, client=(peer, 1)) == ("198.51.100.9", "https", "img.example.org")


@pytest.mark.parametrize("peer", ["11.0.0.1", "203.0.113.7", "::2", "", "testclient", "10.0.0.1 ", "10.0.0"])
async def test_nobody_else_is_believed(peer: str) -> None:
    assert await forwarded(ALL, client=(peer, 1)) == (peer, "http", "api:8000")


async def test_a_peer_without_an_address_is_not_believed() -> None:
    assert await forwarded(ALL, client=None) == (None, "http", "api:8000")


async def test_a_proxy_that_says_nothing_changes_nothing() -> None:
    assert await forwarded() == ("10.1.2.3", "http", "api:8000")


async def test_each_header_counts_by_itself() -> None:
    assert await forwarded({"x-forwarded-proto": "https"}) == ("10.1.2.3", "https", "api:8000")
    assert await forwarded({"x-forwarded-host": "a"}) == ("10.1.2.3", "http", "a")
    assert await forwarded({"x-forwarded-for": "2001:db8::1"}) == ("2001:db8::1", "http", "api:8000")


async def test_of_several_values_the_last_counts_however_they_are_written() -> None:
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
async def test_a_scheme_that_is_none_of_the_web_is_ignored(scheme: str) -> None:
    assert (await forwarded({"x-forwarded-proto": scheme}))[1] == "http"


@pytest.mark.parametrize("empty", ["", " ", ",", "a,", " , "])
async def test_empty_values_are_ignored(empty: str) -> None:
    values = dict.fromkeys(ALL, empty)
    assert await forwarded(values) == ("10.1.2.3", "http", "api:8000")


@given(value=st.text(st.characters(max_codepoint=255)))
async def test_garbage_never_breaks_a_request(value: str) -> None:
    _, scheme, _ = await forwarded(dict.fromkeys(ALL, value))
    assert scheme in {"http", "https"}


async def test_what_is_not_http_passes_untouched() -> None:
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    await call(ForwardedHeaders(RequestContext(app), trusted=TRUSTED), {"type": "lifespan"})
    assert seen == ["lifespan"]


async def ask(headers: dict[str, str] | None = None, path: str = "/images") -> tuple[Answer, Seen]:
    seen = Seen()
    answer = await call(RequestContext(seen), scope(path=path, headers=headers))
    return answer, seen


@pytest.mark.parametrize(
    "given_id", ["r-1", "01932b5c-8f2a-7c3e-9d41-5a6b7c8d9e0f", "Root=1-67891233-abcdef012345678912345678", "a" * 128]
)
async def test_a_good_request_id_is_kept(given_id: str) -> None:
    answer, seen = await ask({"X-Request-ID": given_id})
    assert answer.headers["x-request-id"] == given_id
    assert request_id_of(seen.request) == given_id
    assert seen.context == {"request_id": given_id}


@pytest.mark.parametrize(
    "given_id", ["", " ", "a b", "a" * 129, "a\r\nb", "a\n", "sp\xe4t", "\xff", "<script>", 'a"b', "a,b"]
)
async def test_any_other_is_replaced_by_one_of_ours(given_id: str) -> None:
    answer, seen = await ask({"X-Request-ID": given_id})
    ours = answer.headers["x-request-id"]
    assert UUID(ours).version == 7
    assert request_id_of(seen.request) == ours


async def test_every_request_without_one_gets_an_id_of_its_own() -> None:
    ids = {(await ask())[0].headers["x-request-id"] for _ in range(10)}
    assert len(ids) == 10


async def test_the_id_is_forgotten_after_the_request() -> None:
    await ask()
    assert "request_id" not in get_contextvars()


async def test_every_request_leaves_one_line() -> None:
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


async def test_the_line_names_the_client_behind_a_trusted_proxy() -> None:
    app = ForwardedHeaders(RequestContext(Seen()), trusted=TRUSTED)
    with capture_logs() as log:
        await call(app, scope(client=PROXY, headers=ALL))
        await call(app, scope(client=None))
    assert [line["client"] for line in log] == ["198.51.100.9", None]


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/docs-assets/swagger-ui.css"])
async def test_what_is_asked_all_the_time_is_only_logged_for_debugging(path: str) -> None:
    with capture_logs() as log:
        await ask(path=path)
    assert [line["log_level"] for line in log] == ["debug"]


async def test_a_client_that_goes_away_before_the_answer_leaves_a_line_without_a_status() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise KeyboardInterrupt

    with capture_logs() as log, pytest.raises(KeyboardInterrupt):
        await call(RequestContext(app), scope())
    assert [(line["event"], line["status"]) for line in log] == [("request", None)]
