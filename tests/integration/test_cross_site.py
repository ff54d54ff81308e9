"""Requests as browsers send them, over real connections: rebound host names, foreign origins, preflights and HEAD."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.api import Api, api_on
from harness.forms import CONTENT_TYPE, form, part
from harness.images import encoded, gradient
from harness.waiting import wait_for
from image_service.api.server import serve

BODY = form(part(encoded(gradient(60, 40), "PNG")))
LIMIT = 10.0
"""Seconds for an answer."""
APP = "https://app.example"


@dataclass(frozen=True)
class Reply:
    """A response as received from the socket, until the server closed the connection."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Server:
    """A running server with its address."""

    api: Api
    port: int

    async def ask(self, method: str, path: str, host: str | None, *headers: str, body: bytes = b"") -> Reply:
        lines = [f"{method} {path} HTTP/1.1", *([] if host is None else [f"Host: {host}"]), *headers]
        if body:
            lines += [f"Content-Type: {CONTENT_TYPE}", f"Content-Length: {len(body)}"]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
            async with asyncio.timeout(LIMIT):
                head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.transport.abort()
        found = re.findall(r"^([\w-]+): (.*)$", head.decode().replace("\r", ""), re.MULTILINE)
        return Reply(int(head.split()[1]), {name.lower(): value for name, value in found}, rest)

    async def upload(self, *headers: str, host: str | None = None) -> Reply:
        return await self.ask("POST", "/images", host or f"127.0.0.1:{self.port}", *headers, body=BODY)


@asynccontextmanager
async def serving(database_url: str, folder: Path, **settings: Any) -> AsyncIterator[Server]:  # noqa: ANN401 (as they are)
    async with api_on(database_url, folder, **settings) as api:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        stop, started = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(serve(api.app, listener, stop, drain_timeout=1, started=started.set))
        await wait_for(started.wait(), LIMIT)
        try:
            yield Server(api, port)
        finally:
            stop.set()
            await task


async def test_a_rebound_name_reaches_nothing(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path, allowed_hosts=()) as server:
        for method, path in [("GET", "/images"), ("GET", "/health"), ("POST", "/images"), ("DELETE", "/images/x")]:
            reply = await server.ask(method, path, f"evil.example:{server.port}")
            assert (reply.status, b'"code":"host-not-allowed"' in reply.body) == (421, True), (method, path)
        same_origin = ["Sec-Fetch-Site: same-origin", "Origin: http://evil.example"]
        refused = await server.upload(*same_origin, "X-Forwarded-Host: localhost", host="evil.example")
        assert refused.status == 421
        assert b"ALLOWED_HOSTS" in refused.body
        assert not server.api.originals
        for host in ("127.0.0.1", f"localhost:{server.port}", "[::1]:1", socket.gethostname()):
            assert (await server.ask("GET", "/health/live", host)).status == 200, host


async def test_any_name_is_answered_unless_the_setting_is_given(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path) as server:
        assert (await server.ask("GET", "/health/live", "evil.example")).status == 200
    async with serving(sqlite_url, tmp_path, allowed_hosts="img.example.org") as server:
        assert (await server.ask("GET", "/health/live", "img.example.org")).status == 200
        assert (await server.ask("GET", "/health/live", "evil.example")).status == 421


@pytest.mark.parametrize("headers", [["Sec-Fetch-Site: cross-site"], ["Origin: https://evil.example"]])
async def test_an_upload_for_another_sites_page_stores_nothing(
    sqlite_url: str, tmp_path: Path, headers: list[str]
) -> None:
    async with serving(sqlite_url, tmp_path) as server:
        refused = await server.upload(*headers)
        assert (refused.status, b'"code":"origin-not-allowed"' in refused.body) == (403, True)
        assert b"ALLOWED_ORIGINS" in refused.body
        assert not server.api.originals
        own = await server.upload(f"Origin: http://127.0.0.1:{server.port}", "Sec-Fetch-Site: same-origin")
        location = own.headers["location"]
        assert own.status == 202
        for method, path in [("DELETE", location), ("POST", f"{location}/reprocess")]:
            assert (await server.ask(method, path, "127.0.0.1", *headers)).status == 403
        assert len(server.api.originals) == 1


def preflight(origin: str = APP, method: str = "POST", headers: str = "idempotency-key") -> list[str]:
    return [
        f"Origin: {origin}",
        f"Access-Control-Request-Method: {method}",
        f"Access-Control-Request-Headers: {headers}",
    ]


async def test_without_the_setting_there_is_no_cors(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path) as server:
        asked = await server.ask("OPTIONS", "/images", "127.0.0.1", *preflight())
        listed = await server.ask("GET", "/images", "127.0.0.1", f"Origin: {APP}")
    assert (asked.status, asked.headers["allow"], listed.status) == (405, "GET, HEAD, POST", 200)
    assert not any(name.startswith("access-control") for name in {**asked.headers, **listed.headers})


async def test_pages_of_an_allowed_origin_may_use_the_api(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path, allowed_origins=f"https://b.example, {APP}") as server:
        for method, wanted in [("POST", "idempotency-key"), ("DELETE", "x-request-id"), ("GET", "range, if-match")]:
            asked = await server.ask("OPTIONS", "/images", "127.0.0.1", *preflight(method=method, headers=wanted))
            assert asked.status == 200
            assert asked.headers["access-control-allow-origin"] == APP
            assert method in asked.headers["access-control-allow-methods"]
            assert "Idempotency-Key" in asked.headers["access-control-allow-headers"]
            assert "Origin" in asked.headers["vary"]
        stored = await server.upload(f"Origin: {APP}", "Sec-Fetch-Site: cross-site")
        missing = await server.ask("GET", "/nothing", "127.0.0.1", f"Origin: {APP}")
        assert (stored.status, missing.status) == (202, 404)
        for reply in (stored, missing):
            assert reply.headers["access-control-allow-origin"] == APP
            assert {"Location", "Retry-After", "ETag"} <= set(
                reply.headers["access-control-expose-headers"].split(", ")
            )
            assert reply.headers["vary"] == "Origin"
        # A cached answer to a request without Origin must not be given to a page.
        assert (await server.ask("GET", "/images", "127.0.0.1")).headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in stored.headers


async def test_pages_of_other_origins_may_not(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path, allowed_origins=APP) as server:
        asked = await server.ask("OPTIONS", "/images", "127.0.0.1", *preflight("https://evil.example"))
        refused = await server.upload("Origin: https://evil.example", "Sec-Fetch-Site: cross-site")
        listed = await server.ask("GET", "/images", "127.0.0.1", "Origin: https://evil.example")
    assert (asked.status, refused.status, listed.status) == (400, 403, 200)
    for reply in (asked, refused, listed):
        assert "access-control-allow-origin" not in reply.headers


async def test_all_origins_may_be_allowed(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path, allowed_origins="*") as server:
        asked = await server.ask("OPTIONS", "/images", "127.0.0.1", *preflight("https://any.example"))
        stored = await server.upload("Origin: https://any.example", "Sec-Fetch-Site: cross-site")
    assert (asked.status, stored.status) == (200, 202)
    assert asked.headers["access-control-allow-origin"] == stored.headers["access-control-allow-origin"] == "*"


async def test_head_has_the_headers_of_get_and_no_body(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path) as server:
        location = (await server.upload()).headers["location"]
        for path in ("/health/live", "/images", location, f"{location}/original", "/docs", "/openapi.json", "/", "/no"):
            got = await server.ask("GET", path, "127.0.0.1", "X-Request-ID: r")
            head = await server.ask("HEAD", path, "127.0.0.1", "X-Request-ID: r")
            assert (head.status, head.body) == (got.status, b""), path
            assert {**head.headers, "date": ""} == {**got.headers, "date": ""}, path
            assert int(head.headers["content-length"]) == len(got.body)
        assert (await server.ask("HEAD", "/health", "127.0.0.1")).status == 200
