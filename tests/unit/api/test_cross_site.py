"""What pages of other sites cannot make a browser send: requests to a rebound host name, and changes."""

import json
import socket
from collections.abc import Collection, Mapping
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from harness.asgi import Answer, call, raw_headers, scope
from image_service.api.cross_site import CrossSiteProtection
from image_service.api.middleware import ForwardedHeaders, RequestContext

PROXY = ip_network("203.0.113.7")
"""The peer of the harness's requests."""
MACHINE = "rack-7.example.net"


@pytest.fixture(autouse=True)
def name_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: MACHINE)


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("ok")(scope, receive, send)


async def ask(
    method: str = "GET",
    *headers: Mapping[str, str],
    hosts: Collection[str] | None = None,
    origins: Collection[str] = (),
    public_url: str | None = None,
    trusted: bool = False,
) -> Answer:
    """Returns the answer to a request with these headers, each mapping a line or more."""
    guarded = CrossSiteProtection(ok, hosts=hosts, origins=origins, public_url=public_url)
    app = ForwardedHeaders(RequestContext(guarded), trusted=[PROXY] if trusted else [])
    lines = [pair for each in headers for pair in raw_headers(each)]
    return await call(app, {**scope(method), "headers": lines})


def code_of(answer: Answer) -> str | None:
    """Returns the code of a refusal; None if the application has answered."""
    if answer.body == b"ok":
        return None
    document = json.loads(answer.body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    assert document["status"] == answer.status == {"host-not-allowed": 421, "origin-not-allowed": 403}[document["code"]]
    return str(document["code"])


OWN = [
    "127.0.0.1",
    "127.0.0.1:8000",
    "192.168.1.5:80",
    "[::1]",
    "[::1]:8000",
    "[2001:DB8::1]:8000",
    "localhost",
    "LOCALHOST:8000",
    "localhost.",
    MACHINE,
    f"{MACHINE.upper()}:8000",
    "rack-7",
    "rack-7.local:8000",
]
FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evil-localhost",
    "2130706433",
    "127.1",
    "0x7f.0.0.1",
    "[::1].evil.example",
    "[evil.example]",
    "[]",
    "::1",
    "",
    " ",
    "localhost evil.example",
    "localhost,evil.example",
    "user@localhost",
    "localhost/",
    "localhost:port",
    "localhost:123456",
    "\xff",
    "a" * 256,
    "img.example.org",
]


@pytest.mark.parametrize("host", OWN)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
async def test_own_names_and_addresses_are_known(method: str, host: str) -> None:
    assert code_of(await ask(method, {"host": host}, hosts=())) is None


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_other_names_are_refused(method: str, host: str) -> None:
    with capture_logs() as logs:
        assert code_of(await ask(method, {"host": host}, hosts=())) == "host-not-allowed"
    refused = [line for line in logs if line["event"] == "host not allowed"]
    assert [(line["host"], line["setting"]) for line in refused] == [(host[:255], "ALLOWED_HOSTS")]


@pytest.mark.parametrize("host", [*OWN, *FOREIGN])
@pytest.mark.parametrize("hosts", [None, ("*",), ("img.example.org", "*")])
async def test_where_any_name_is_allowed_none_is_refused(host: str, hosts: Collection[str] | None) -> None:
    assert code_of(await ask("GET", {"host": host}, hosts=hosts)) is None


async def test_names_of_the_setting_and_of_the_public_url_are_known() -> None:
    async def known(host: str) -> bool:
        answer = await ask("GET", {"host": host}, hosts=("img.example.org",), public_url="https://Example.org:8443/api")
        return code_of(answer) is None

    assert await known("img.example.org")
    assert await known("IMG.example.org.:8000")
    assert await known("example.org")
    assert not await known("other.example.org")


async def test_a_request_without_host_is_of_no_browser() -> None:
    assert code_of(await ask("GET", hosts=())) is None


async def test_every_host_line_is_checked() -> None:
    for lines in ([{"host": "localhost"}, {"host": "evil.example"}], [{"host": "evil.example"}, {"host": "localhost"}]):
        assert code_of(await ask("GET", *lines, hosts=())) == "host-not-allowed"


async def test_the_forwarded_and_the_received_host_are_both_checked() -> None:
    """A page of a rebound name is of the same site for the browser, and may send X-Forwarded-Host."""

    async def refused(host: str, forwarded: str, *, trusted: bool = True) -> bool:
        lines = {"host": host, "x-forwarded-host": forwarded}
        return code_of(await ask("GET", lines, hosts=("img.example.org",), trusted=trusted)) is not None

    assert not await refused("127.0.0.1:8000", "img.example.org")
    assert await refused("127.0.0.1:8000", "evil.example")
    assert await refused("evil.example", "localhost")
    assert await refused("evil.example", "localhost", trusted=False)
    assert not await refused("127.0.0.1:8000", "evil.example", trusted=False)


HOST = {"host": "img.example.org"}
CHANGES = ["POST", "DELETE", "PUT", "PATCH", "OTHER"]


@pytest.mark.parametrize("method", CHANGES)
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "anything"},
        {"sec-fetch-site": "cross-site", "origin": "https://img.example.org"},
        {"origin": "https://evil.example"},
        {"origin": "https://img.example.org.evil.example"},
        {"origin": "https://img.example.org:8443"},
        {"origin": "https://evil.example/img.example.org"},
        {"origin": "https://user@img.example.org"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "img.example.org"},
        {"origin": "https://img.example.org, https://evil.example"},
        {"origin": "https://evil.example", "sec-fetch-site": "none"},
    ],
)
async def test_changes_for_pages_of_other_sites_are_refused(method: str, headers: dict[str, str]) -> None:
    with capture_logs() as logs:
        assert code_of(await ask(method, HOST, headers)) == "origin-not-allowed"
    refused = [line for line in logs if line["event"] == "origin not allowed"]
    assert [(line["origin"], line["setting"]) for line in refused] == [(headers.get("origin", ""), "ALLOWED_ORIGINS")]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_pages_of_other_sites_may_read(method: str) -> None:
    """They may show images; what they read otherwise, the browser keeps from them."""
    headers = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    assert code_of(await ask(method, HOST, headers)) is None


@pytest.mark.parametrize("method", CHANGES)
@pytest.mark.parametrize(
    "headers",
    [
        {},  # no browser
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"origin": "https://img.example.org"},
        {"origin": "http://img.example.org"},
        {"origin": "https://img.example.org:443"},
        {"origin": "HTTPS://IMG.example.org"},
        {"origin": "https://img.example.org", "sec-fetch-site": "same-origin"},
        {"origin": "https://img.example.org", "sec-fetch-site": "none"},
        # Of a page of the service, behind a proxy that changes Host.
        {"origin": "https://elsewhere.example", "sec-fetch-site": "same-origin"},
        {"origin": "null", "sec-fetch-site": "same-origin"},
    ],
)
async def test_other_programs_and_own_pages_may_change_something(method: str, headers: dict[str, str]) -> None:
    assert code_of(await ask(method, HOST, headers)) is None


@pytest.mark.parametrize(
    ("host", "origin", "same"),
    [
        ("img.example.org:443", "https://img.example.org", True),
        ("img.example.org:80", "http://img.example.org", True),
        ("img.example.org:80", "https://img.example.org", False),
        ("localhost:8000", "http://localhost:8000", True),
        ("localhost:8000", "http://localhost:3000", False),
        ("localhost:8000", "http://127.0.0.1:8000", False),
        ("[::1]:8000", "http://[::1]:8000", True),
        ("[::1]", "http://[::1]", True),
    ],
)
async def test_a_page_is_the_services_own_at_the_address_that_was_asked(host: str, origin: str, *, same: bool) -> None:
    answer = await ask("POST", {"host": host, "origin": origin})
    assert (code_of(answer) is None) == same


async def test_a_page_at_the_public_url_is_the_services_own() -> None:
    lines = {"host": "api:8000", "origin": "https://example.org:8443"}
    assert code_of(await ask("POST", lines)) == "origin-not-allowed"
    assert code_of(await ask("POST", lines, public_url="https://example.org:8443/images-api")) is None


async def test_a_page_at_the_host_that_a_trusted_proxy_forwards_is_the_services_own() -> None:
    lines = {"host": "api:8000", "x-forwarded-host": "img.example.org", "origin": "https://img.example.org"}
    assert code_of(await ask("POST", lines, trusted=True)) is None
    assert code_of(await ask("POST", lines, trusted=False)) == "origin-not-allowed"


async def test_every_origin_line_counts() -> None:
    lines = [{"origin": "https://img.example.org"}, {"origin": "https://evil.example"}]
    assert code_of(await ask("POST", HOST, *lines)) == "origin-not-allowed"
    assert code_of(await ask("POST", HOST, *reversed(lines))) == "origin-not-allowed"
    assert code_of(await ask("POST", HOST, *lines, origins=("https://evil.example",))) == "origin-not-allowed"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
async def test_pages_of_allowed_origins_may_change_something(site: str) -> None:
    async def allowed(origin: str, *origins: str) -> bool:
        lines = {"sec-fetch-site": site, "origin": origin}
        return code_of(await ask("POST", HOST, lines, origins=origins)) is None

    assert await allowed("https://app.example", "https://app.example", "https://b.example")
    assert await allowed("https://APP.example", "https://app.example")
    assert not await allowed("http://app.example", "https://app.example")
    assert not await allowed("https://app.example:8443", "https://app.example")
    assert not await allowed("https://evil.example", "https://app.example")
    assert await allowed("https://evil.example", "*")
    assert await allowed("null", "*")


async def test_a_cross_site_change_without_an_origin_needs_all_origins_to_be_allowed() -> None:
    lines = {"sec-fetch-site": "cross-site"}
    assert code_of(await ask("POST", HOST, lines, origins=("https://app.example",))) == "origin-not-allowed"
    assert code_of(await ask("POST", HOST, lines, origins=("*",))) is None


text = st.text(st.characters(max_codepoint=255), max_size=300)


@given(host=text, origin=text, site=text)
async def test_arbitrary_headers_are_answered(host: str, origin: str, site: str) -> None:
    lines = {"host": host, "origin": origin, "sec-fetch-site": site}
    assert (await ask("POST", lines, hosts=())).status in {200, 403, 421}


async def test_other_protocols_pass_unchanged() -> None:
    protocols: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        protocols.append(scope["type"])

    await call(CrossSiteProtection(app, hosts=(), origins=(), public_url=None), {"type": "lifespan"})
    assert protocols == ["lifespan"]
