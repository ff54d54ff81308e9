"""What one client can send, leave unread or keep open, from raw sockets; see ``api/connections``."""

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from harness.counted import counted
from harness.pace import slowness
from harness.waiting import eventually, wait_for
from image_service.api.connections import Connection as ServerConnection
from image_service.api.connections import ConnectionLimits, connections_within, raise_descriptor_limit
from image_service.api.connections.connection import _acknowledged
from image_service.api.connections.limits import MAX_CONNECTIONS, MAX_HEAD, MAX_HEADER_LINE, MAX_URL
from image_service.domain.image import ImageFormat, ImageHeader, Original
from image_service.domain.keys import original_key
from image_service.domain.lane import Lane
from tests.integration.test_http_server import CHUNKED, FORM, Reply, Server, chunked, serving, upload

LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
BEGINNING = b"GET /health/live HTTP/1.1\r\nHost: a\r\n"
USUAL = ConnectionLimits()
LARGE = 12_000_000
LARGE_ID = UUID("01900000-0000-7000-8000-000000000001")


def impatient(**limits: float) -> ConnectionLimits:
    """Limits for tests of one of them: so many seconds on an idle machine."""
    scaled: dict[str, Any] = {name: seconds * slowness() for name, seconds in limits.items()}
    return replace(USUAL, **scaled)


@pytest.fixture
async def server(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(sqlite_url, tmp_path) as server:
        yield server


def closed_for(server: Server, reason: str) -> float | None:
    assert server.api.resources.metrics is not None
    return counted(server.api.resources.metrics, "http_connections_closed_total", reason=reason)


async def refused(server: Server, *pieces: bytes) -> Reply:
    """Sends bytes that must be refused; returns the response, after which the connection is closed."""
    async with server.connection() as connection:
        for piece in pieces:
            await connection.send(piece)
        reply = await connection.reply()
        assert await connection.is_closed()
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["connection"] == "close"
    assert reply.headers["x-request-id"]
    assert reply.json["status"] == reply.status
    assert closed_for(server, reply.json["code"]) == 1
    return reply


async def accepted(server: Server, *pieces: bytes) -> None:
    async with server.connection() as connection:
        for piece in pieces:
            await connection.send(piece)
        assert (await connection.reply()).status == 200
        await connection.send(LIVE)
        assert (await connection.reply()).status == 200


def line(size: int, name: str = "x") -> bytes:
    return f"{name}: ".encode() + b"y" * (size - len(name) - 2) + b"\r\n"


def target(size: int) -> bytes:
    return b"GET " + b"/health/live?".ljust(size, b"a") + b" HTTP/1.1\r\nHost: a\r\n\r\n"


def head(size: int) -> bytes:
    """Returns a request of that many bytes, each line within its own bound."""
    rest = size - len(LIVE)
    lines = [line(8000) for _ in range(rest // 8002)]
    return BEGINNING + b"".join(lines) + line(rest - 8002 * len(lines) - 2) + b"\r\n"


# --- the size of a head ----------------------------------------------------------------------------------------------


async def test_heads_at_their_bounds_are_accepted(server: Server) -> None:
    assert len(head(MAX_HEAD)) == MAX_HEAD
    await accepted(server, target(MAX_URL))
    await accepted(server, BEGINNING + line(MAX_HEADER_LINE) + b"\r\n")
    await accepted(server, BEGINNING + b"a:b\r\n" * 99 + b"\r\n")
    await accepted(server, head(MAX_HEAD))
    await accepted(server, *(head(MAX_HEAD)[at : at + 1000] for at in range(0, MAX_HEAD, 1000)))


@pytest.mark.parametrize("pieces", [[target(MAX_URL + 1)], [b"GET /", b"a" * MAX_URL], [b"GET /" + b"a" * 200_000]])
async def test_too_long_url_returns_414(server: Server, pieces: list[bytes]) -> None:
    reply = await refused(server, *pieces)
    assert (reply.status, reply.json["code"]) == (414, "url-too-long")


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([BEGINNING + line(MAX_HEADER_LINE + 1) + b"\r\n"], id="line"),
        pytest.param([BEGINNING + b"a:b\r\n" * 100 + b"\r\n"], id="lines"),
        pytest.param([head(MAX_HEAD + 1)], id="head"),
        pytest.param([BEGINNING, b"x: ", b"y" * MAX_HEAD], id="unfinished line"),
        pytest.param([b"\r\n" * (MAX_HEAD // 2), b"\r\n"], id="blank lines"),
        pytest.param([CHUNKED, b"0\r\n", line(MAX_HEADER_LINE + 1), b"a: b\r\n"], id="trailer"),
        pytest.param([CHUNKED, b"0\r\n", b"a:b\r\n" * 101, b"c:d\r\n"], id="trailers"),
        pytest.param([CHUNKED, b"1;", b"y" * (MAX_HEAD + 10)], id="chunk extension"),
        pytest.param(
            [CHUNKED, b"1;" + b"y" * 1000 + b"\r\n-\r\n"] + [b"1;" + b"y" * 1000 + b"\r\n-\r\n"] * 40, id="all"
        ),
    ],
)
async def test_too_large_head_returns_431(server: Server, pieces: list[bytes]) -> None:
    reply = await refused(server, *pieces)
    assert (reply.status, reply.json["code"]) == (431, "head-too-large")


async def test_chunks_of_one_byte_are_accepted(server: Server) -> None:
    async with server.connection() as connection:
        await connection.send(CHUNKED + b"".join(chunked(FORM, 1)) + b"0\r\n\r\n")
        assert (await connection.reply()).status == 202


async def test_chunked_body_full_of_blank_lines_is_accepted(server: Server) -> None:
    body = FORM.replace(b"--", b"\r\n\r\n" * 20_000 + b"--", 1)
    async with server.connection() as connection:
        await connection.send(CHUNKED + b"".join(chunked(body)) + b"0\r\n\r\n" + LIVE)
        assert (await connection.reply()).status == 202
        assert (await connection.reply()).status == 200


async def test_trailers_are_no_headers(server: Server) -> None:
    image = (await server.ask(upload(FORM))).json["id"]
    request = f"GET /images/{image} HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    reply = await server.ask(request.encode() + b"X-Forwarded-Host: evil.example\r\nX-Request-ID: evil\r\n\r\n")
    assert reply.status == 200
    assert reply.json["original_url"] == f"http://api.example/images/{image}/original"
    assert reply.headers["x-request-id"] != "evil"


@pytest.mark.parametrize("lines", [b"", b"Host: a\r\nHost: a\r\n", b"Host: a\r\nhOsT: b\r\n"])
async def test_request_without_exactly_one_host_returns_400(server: Server, lines: bytes) -> None:
    reply = await refused(server, b"GET /health/live HTTP/1.1\r\n" + lines + b"\r\n")
    assert (reply.status, reply.json["code"]) == (400, "malformed-request")
    assert "Host" in reply.json["detail"]


async def test_host_that_is_no_host_returns_400(server: Server) -> None:
    bad = ("a b", "a/b", "user@a", "a,b<c>", '"a"', "a\\b", "a#b", "a?b", "a:b", "[::1", "[a/b]", "\u00e4", "a\x7f")
    for host in bad:
        reply = await server.ask(f"GET /health/live HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert (reply.status, reply.json["code"]) == (400, "malformed-request"), host
    for host in ("", "a", "A_b-c.example.", "192.0.2.1:8000", "[::1]:80", "[fe80::1%25eth0]", "xn--bcher-kva.example:"):
        assert (await server.ask(f"GET /health/live HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())).status == 200, host


async def test_http_1_0_needs_no_host(server: Server) -> None:
    async with server.connection() as connection:
        await connection.send(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert (await connection.reply()).status == 200
        assert await connection.is_closed()


@pytest.mark.parametrize(
    "request_bytes", [b"no request\r\n\r\n", b"GET / HTTP/1.1\nHost: a\n\n", b"\x16\x03\x01\x02\x00"]
)
async def test_no_http_returns_400(server: Server, request_bytes: bytes) -> None:
    reply = await refused(server, request_bytes)
    assert (reply.status, reply.json["code"]) == (400, "malformed-request")


async def test_offered_upgrade_is_ignored(server: Server) -> None:
    await accepted(server, BEGINNING + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n")


# --- pipelining ------------------------------------------------------------------------------------------------------


class Gate:
    """Requests to ``/slow`` wait until it is open."""

    def __init__(self, server: Server) -> None:
        self.open = asyncio.Event()
        self.started = self.ended = 0
        server.api.app.add_api_route("/slow", self._slow)

    async def _slow(self, _request: Request) -> None:
        self.started += 1
        await self.open.wait()
        self.ended += 1


SLOW = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"


def unparsed(there: ServerConnection) -> bytes:
    return b"" if there._unparsed is None else there._unparsed[0]


def connections_of(server: Server) -> list[ServerConnection]:
    return [each for each in server.connections._open if isinstance(each, ServerConnection)]


async def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    requests = b"".join(LIVE[:-2] + f"X-Request-ID: r-{number}\r\n\r\n".encode() for number in range(1000))
    async with server.connection() as connection:
        await connection.send(requests)
        for number in range(1000):
            assert (await connection.reply()).headers["x-request-id"] == f"r-{number}"


@pytest.mark.parametrize("size", [1, 3, 100_000])
async def test_pipelined_bodies_are_kept_apart(server: Server, size: int) -> None:
    requests = upload(FORM) + CHUNKED + b"".join(chunked(FORM, 50)) + b"0\r\n\r\n" + LIVE + upload(FORM) + LIVE
    async with server.connection() as connection:
        for at in range(0, len(requests), size):
            await connection.send(requests[at : at + size])
        assert [(await connection.reply()).status for _ in range(5)] == [202, 202, 200, 202, 200]


async def test_one_request_waits_and_the_rest_is_not_read(server: Server) -> None:
    gate = Gate(server)
    requests = SLOW + LIVE * 200_000
    async with server.connection() as connection:
        sending = asyncio.create_task(connection.send(requests))
        await eventually(lambda: gate.started)
        (there,) = connections_of(server)
        await eventually(lambda: unparsed(there))
        assert len(unparsed(there)) <= 256 * 1024
        assert len(there.pipeline) == 1
        assert there.flow.read_paused
        gate.open.set()
        assert (await connection.reply()).status == 200
        for _ in range(5000):
            assert (await connection.reply()).status == 200
        assert len(there.pipeline) <= 1
        sending.cancel()
    await eventually(lambda: not connections_of(server))
    assert not unparsed(there)
    assert not there.pipeline


async def test_requests_that_wait_on_a_closed_connection_never_start(server: Server) -> None:
    gate = Gate(server)
    async with server.connection() as connection:
        await connection.send(SLOW * 3)
        await eventually(lambda: gate.started)
        await eventually(lambda: connections_of(server)[0].pipeline)
        connection.cut()
    gate.open.set()
    await eventually(lambda: not connections_of(server))
    await eventually(lambda: gate.ended == gate.started)
    assert gate.started == 1


@pytest.mark.parametrize(
    "bad",
    [target(MAX_URL + 1), BEGINNING + line(MAX_HEADER_LINE + 1) + b"\r\n", b"GET /health/live HTTP/1.1\r\n\r\n"],
    ids=["URL", "line", "no host"],
)
async def test_refusal_waits_for_the_response_before_it(server: Server, bad: bytes) -> None:
    gate = Gate(server)
    async with server.connection() as connection:
        await connection.send(SLOW + bad + LIVE * 1000)
        await eventually(lambda: gate.started)
        gate.open.set()
        assert (await connection.reply()).status == 200
        assert (await connection.reply()).status in {400, 414, 431}
        assert await connection.is_closed()


async def test_garbage_after_the_beginning_of_a_response_waits_for_its_end(server: Server) -> None:
    rest = asyncio.Event()

    async def parts() -> StreamingResponse:
        async def content() -> AsyncIterator[bytes]:
            yield b"begin"
            await rest.wait()
            yield b"ning"

        return StreamingResponse(content(), headers={"Content-Length": "9"})

    server.api.app.add_api_route("/parts", parts)
    async with server.connection() as connection:
        await connection.send(b"GET /parts HTTP/1.1\r\nHost: a\r\n\r\n")
        await connection.head()
        await connection.send(b"no request\r\n\r\n")
        await eventually(lambda: connections_of(server)[0]._refused)
        rest.set()
        assert await connection.read(9) == b"beginning"
        assert (await connection.reply()).status == 400
        assert await connection.is_closed()


async def test_bytes_that_were_on_their_way_when_reading_stopped_are_kept(server: Server) -> None:
    gate = Gate(server)
    async with server.connection() as connection:
        await connection.send(SLOW + LIVE + LIVE[:20])
        await eventually(lambda: gate.started and connections_of(server)[0].pipeline)
        connections_of(server)[0].data_received(LIVE[20:] + LIVE)
        gate.open.set()
        assert [(await connection.reply()).status for _ in range(4)] == [200] * 4


# --- deadlines -------------------------------------------------------------------------------------------------------


async def test_silent_connection_is_closed(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path, impatient(head_timeout=0.3)) as server, server.connection() as connection:
        assert await connection.is_closed()
        assert closed_for(server, "head-timeout") == 1


@pytest.mark.parametrize("first", [b"", LIVE])
async def test_head_that_does_not_end_returns_408(sqlite_url: str, tmp_path: Path, first: bytes) -> None:
    async with serving(sqlite_url, tmp_path, impatient(head_timeout=0.5)) as server, server.connection() as connection:
        if first:
            await connection.send(first)
            assert (await connection.reply()).status == 200

        async def trickle() -> None:
            await connection.send(BEGINNING)
            while True:
                await connection.send(b"a:b\r\n")
                await asyncio.sleep(0.1)

        trickling = asyncio.create_task(trickle())
        reply = await connection.reply()
        trickling.cancel()
        assert (reply.status, reply.json["code"]) == (408, "head-timeout")
        assert await connection.is_closed()
        assert closed_for(server, "head-timeout") == 1


async def test_body_outlives_the_deadlines_of_heads(sqlite_url: str, tmp_path: Path) -> None:
    limits = impatient(head_timeout=0.2, keep_alive=0.2, discard_timeout=0.2)
    async with (
        serving(sqlite_url, tmp_path, limits, upload_idle_timeout=30) as server,
        server.connection() as connection,
    ):
        await connection.send(upload(FORM[:60], length=len(FORM)))
        async with server.connection() as other:
            assert await other.is_closed()
        await connection.send(FORM[60:])
        assert (await connection.reply()).status == 202
        assert await connection.is_closed()


async def test_rest_of_a_refused_body_has_a_deadline(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path, impatient(head_timeout=0.3)) as server, server.connection() as connection:
        await connection.send(upload(FORM, length=5_000_000))
        assert (await connection.reply()).status == 413
        assert await connection.is_closed()
        assert closed_for(server, "body-timeout") == 1


async def test_refused_client_that_stays_is_cut(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path, replace(USUAL, linger=0.01)) as server, server.connection() as connection:
        await connection.send(b"no request\r\n\r\n")
        assert (await connection.reply()).status == 400
        await eventually(lambda: not server.connections.number)


async def test_idle_connection_is_closed(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path, impatient(keep_alive=0.3)) as server, server.connection() as connection:
        await connection.send(LIVE)
        assert (await connection.reply()).status == 200
        assert await connection.is_closed()


@asynccontextmanager
async def download(server: Server, folder: Path) -> AsyncIterator[socket.socket]:
    """Yields a client of a large original, with a small buffer, that has read nothing of it yet."""
    (folder / "large").touch()
    os.truncate(folder / "large", LARGE)
    header = ImageHeader(format=ImageFormat.PNG, width=1, height=1)
    original = Original(id=LARGE_ID, header=header, size_bytes=LARGE, sha256="0" * 64)
    await server.api.resources.storage.adopt({original_key(LARGE_ID): folder / "large"})
    async with server.api.database.transaction() as repositories:
        await repositories.images.add(original, lane=Lane.NORMAL, due_in=60)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.settimeout(0)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", server.port))
        await loop.sock_sendall(client, f"GET /images/{LARGE_ID}/original HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        yield client


def is_open() -> bool:
    return any(str(LARGE_ID) in file.path for file in psutil.Process().open_files())


async def test_unread_download_is_cut(sqlite_url: str, tmp_path: Path) -> None:
    limits = impatient(write_timeout=0.5)
    async with serving(sqlite_url, tmp_path, limits) as server, download(server, tmp_path):
        await eventually(is_open)
        await eventually(lambda: closed_for(server, "write-timeout"))
        await eventually(lambda: not is_open() and not connections_of(server))


async def test_slow_download_is_not_cut(sqlite_url: str, tmp_path: Path) -> None:
    limits = impatient(write_timeout=1)
    loop = asyncio.get_running_loop()
    async with serving(sqlite_url, tmp_path, limits) as server, download(server, tmp_path) as client:
        received = 0
        slow_until = loop.time() + 4 * limits.write_timeout
        while content := await loop.sock_recv(client, 65_536):
            received += len(content)
            if loop.time() < slow_until:
                await asyncio.sleep(0.1)
            if received > LARGE:
                break
        assert received > LARGE
        assert loop.time() > slow_until
        assert closed_for(server, "write-timeout") == 0


async def test_shutdown_does_not_wait_for_a_stalled_upload(sqlite_url: str, tmp_path: Path) -> None:
    limits = impatient(drain_timeout=0.5)
    async with serving(sqlite_url, tmp_path, limits, upload_idle_timeout=60) as server:
        async with server.connection() as stalled, server.connection() as good:
            for connection in (stalled, good):
                await connection.send(upload(FORM[:60], length=len(FORM)))
            await eventually(lambda: len(server.api.scratch) == 2)
            server.stop.set()
            at = 60
            while server.connections.number == 2:
                await good.send(FORM[at : at + 1])
                at += 1
                await asyncio.sleep(0.05)
            assert await stalled.is_closed()
            assert closed_for(server, "drain-timeout") == 1
            await good.send(FORM[at:])
            assert (await good.reply()).status == 202
        await wait_for(server.task)


# --- the number of connections ---------------------------------------------------------------------------------------


async def test_oldest_idle_connection_gives_way(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path, replace(USUAL, max_connections=3)) as server, AsyncExitStack() as stack:
        busy, half, idle = [await stack.enter_async_context(server.connection()) for _ in range(3)]
        await idle.send(LIVE)
        assert (await idle.reply()).status == 200
        await busy.send(upload(FORM[:60], length=len(FORM)))
        await eventually(lambda: server.api.scratch)
        await half.send(BEGINNING)
        await eventually(lambda: any(each._head_bytes for each in connections_of(server)))
        third = await stack.enter_async_context(server.connection())
        assert await half.is_closed()
        fourth = await stack.enter_async_context(server.connection())
        assert await idle.is_closed()
        for new in (third, fourth):
            await new.send(LIVE)
            assert (await new.reply()).status == 200
        await busy.send(FORM[60:])
        assert (await busy.reply()).status == 202
        assert closed_for(server, "displaced") == 2
        assert server.connections.number == 3


async def test_connection_beyond_busy_ones_returns_503(sqlite_url: str, tmp_path: Path) -> None:
    limits = replace(USUAL, max_connections=2)
    async with serving(sqlite_url, tmp_path, limits) as server, AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(server.connection()) for _ in range(2)]
        gate = Gate(server)
        for connection in busy:
            await connection.send(SLOW)
        await eventually(lambda: gate.started == 2)
        reply = await refused(server, LIVE)
        assert (reply.status, reply.json["code"]) == (503, "too-many-connections")
        assert reply.headers["retry-after"] == "5"
        gate.open.set()
        for connection in busy:
            assert (await connection.reply()).status == 200
        await accepted(server, LIVE)


async def test_connection_with_an_unsent_response_does_not_give_way(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path, replace(USUAL, max_connections=1)) as server:

        async def big() -> Response:
            return Response(bytes(LARGE))

        server.api.app.add_api_route("/big", big)
        async with server.connection() as slow:
            await slow.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: connections_of(server)[0].server_state.total_requests)
            assert (await refused(server, LIVE)).status == 503
            reply = await slow.reply()
            assert (reply.status, len(reply.body)) == (200, LARGE)
            await eventually(lambda: not connections_of(server)[0].transport.get_write_buffer_size())
            server.connections.check()
            async with server.connection() as new:
                assert await slow.is_closed()
                await new.send(LIVE)
                assert (await new.reply()).status == 200


async def test_connections_give_way_when_no_file_can_be_opened(server: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with server.connection() as connection:
        await eventually(lambda: server.connections.number == 1)
        server.connections.check()
        assert server.connections.number == 1
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            server.connections.check()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await connection.is_closed()
    assert closed_for(server, "displaced") == 1


@pytest.mark.parametrize(
    ("descriptors", "wanted", "possible"),
    [
        (256, None, 96),
        (64, None, 16),
        (2, None, 1),
        (1024, 100, 100),
        (1024, 5000, 480),
        (1_000_000, None, MAX_CONNECTIONS),
        (1_000_000, 9000, 9000),
        (resource.RLIM_INFINITY, None, MAX_CONNECTIONS),
    ],
)
def test_connections_leave_descriptors_for_everything_else(descriptors: int, wanted: int | None, possible: int) -> None:
    assert connections_within(descriptors, wanted) == possible


def test_limit_of_open_files_is_raised() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
        assert raise_descriptor_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_progress_without_tcp_is_what_is_left_to_write() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        _, writer = await asyncio.open_connection(sock=ours)
        assert _acknowledged(writer.transport) == 0
        writer.close()
        await writer.wait_closed()


def test_deadlines_are_checked_often_enough() -> None:
    assert USUAL.interval == 1
    assert replace(USUAL, write_timeout=0.4).interval == pytest.approx(0.1)
