"""The API behind its real server, with clients that violate HTTP or close their connection."""

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest

from harness.api import Api, api_on
from harness.forms import BEFORE_SLOT, CONTENT_TYPE, form, part
from harness.images import encoded, gradient
from harness.waiting import eventually, wait_for
from image_service.api.connections import ConnectionLimits, OpenConnections
from image_service.api.server import serve
from image_service.domain.image import ImageFormat, ImageHeader, Original
from image_service.domain.keys import original_key
from image_service.domain.lane import Lane

PNG = encoded(gradient(60, 40), "PNG")
FORM = form(part(PNG))
LONG_FORM = form(part(bytes(BEFORE_SLOT), b"note", None), part(PNG))
BEGUN = BEFORE_SLOT + 200
"""Bytes of the long form, not all of it, with which an upload takes its slot."""
MAX_FILE_SIZE = 300_000
TOO_LARGE = 5_000_000
IDLE_TIMEOUT = 1.0


@dataclass(frozen=True)
class Reply:
    """A response as received from the socket."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body)
        return content


class Connection:
    """A client that sends exactly the given bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(self) -> bytes:
        """Returns the next status line and headers."""
        async with asyncio.timeout(10):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def reply(self) -> Reply:
        head = (await self.head()).decode("latin-1")
        headers = dict(re.findall(r"^([\w-]+): (.*)\r$", head, re.MULTILINE))
        async with asyncio.timeout(10):
            body = await self._reader.readexactly(int(headers["content-length"]))
        return Reply(int(head.split()[1]), headers, body)

    async def read(self, size: int) -> bytes:
        """Returns the next bytes."""
        async with asyncio.timeout(10):
            return await self._reader.readexactly(size)

    async def is_closed(self) -> bool:
        async with asyncio.timeout(10):
            return await self._reader.read() == b""

    def cut(self) -> None:
        """Resets the connection, as when a client crashes."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Closes the connection cleanly."""
        self._writer.close()
        await self._writer.wait_closed()


class Server:
    """The server under test."""

    def __init__(
        self, api: Api, port: int, stop: asyncio.Event, task: asyncio.Task[None], connections: OpenConnections
    ) -> None:
        self.api = api
        self.connections = connections
        self.port = port
        self.stop = stop
        self.task = task

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Connection(reader, writer)
        finally:
            writer.transport.abort()

    async def ask(self, request: bytes) -> Reply:
        async with self.connection() as connection:
            await connection.send(request)
            return await connection.reply()

    async def assert_nothing_stored(self) -> None:
        """Asserts that nothing of an upload is left, and that the next one is accepted."""
        await eventually(lambda: not self.api.scratch)
        assert not self.api.originals
        assert (await self.ask(upload(FORM))).status == 202


def upload(body: bytes, *headers: str, length: int | None = None) -> bytes:
    """Returns an upload with this Content-Length: by default the true one."""
    announced = f"Content-Length: {len(body) if length is None else length}"
    lines = ["POST /images HTTP/1.1", "Host: api.example", f"Content-Type: {CONTENT_TYPE}", announced, *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def chunked(body: bytes, size: int = 60_000) -> list[bytes]:
    """Returns the body as HTTP chunks, without the last, empty one."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return [f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces]


CHUNKED = (
    f"POST /images HTTP/1.1\r\nHost: a\r\nContent-Type: {CONTENT_TYPE}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
)


@asynccontextmanager
async def serving(
    database_url: str,
    folder: Path,
    limits: ConnectionLimits | None = None,
    **settings: Any,  # noqa: ANN401 (as they are)
) -> AsyncIterator[Server]:
    usual: dict[str, Any] = {"max_file_size": MAX_FILE_SIZE, "upload_idle_timeout": IDLE_TIMEOUT, "public_url": None}
    async with api_on(database_url, folder, **{**usual, **settings}) as api:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        stop, started = api.stop, asyncio.Event()
        connections = OpenConnections(limits or ConnectionLimits(), api.resources.metrics)
        task = asyncio.create_task(
            serve(api.app, listener, stop, drain_timeout=10, started=started.set, connections=connections)
        )
        await wait_for(started.wait(), 10)
        yield Server(api, port, stop, task, connections)
        stop.set()
        async with asyncio.timeout(10):
            await task
        assert listener.fileno() == -1


@pytest.fixture
async def server(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(sqlite_url, tmp_path) as server:
        yield server


@pytest.fixture
async def single_upload_server(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    """A server with one upload slot."""
    async with serving(sqlite_url, tmp_path, max_concurrent_uploads=1, upload_idle_timeout=30) as server:
        yield server


async def test_upload_over_a_socket(server: Server) -> None:
    async with server.connection() as connection:
        await connection.send(upload(FORM, "X-Request-ID: r-1"))
        accepted = await connection.reply()
        assert accepted.status == 202
        assert accepted.headers["x-request-id"] == "r-1"
        assert "server" not in accepted.headers
        await connection.send(b"GET %b HTTP/1.1\r\nHost: api.example\r\n\r\n" % accepted.headers["location"].encode())
        image = await connection.reply()
    assert image.status == 200
    assert image.json["original_url"] == f"http://api.example/images/{accepted.json['id']}/original"


async def test_chunked_upload_over_a_socket(server: Server) -> None:
    reply = await server.ask(CHUNKED + b"".join(chunked(FORM, 7)) + b"0\r\n\r\n")
    assert reply.status == 202
    assert [path.read_bytes() for path in server.api.originals] == [PNG]


async def test_compressed_upload_is_refused(server: Server) -> None:
    reply = await server.ask(upload(FORM, "Content-Encoding: gzip"))
    assert (reply.status, reply.json["code"]) == (415, "unsupported-encoding")
    assert reply.headers["accept-encoding"] == "identity"
    await server.assert_nothing_stored()


@pytest.mark.parametrize("sent", [0, 1, 60, len(FORM) - 20, len(FORM)])
@pytest.mark.parametrize("cut", [True, False])
async def test_disconnect_during_an_upload_leaves_nothing_behind(server: Server, sent: int, *, cut: bool) -> None:
    async with server.connection() as connection:
        await connection.send(upload(FORM[:sent], length=len(FORM) + 1000))
        await eventually(lambda: server.api.scratch)
        if cut:
            connection.cut()
        else:
            await connection.close()
    await server.assert_nothing_stored()


@pytest.mark.parametrize("sent", [0, 60, len(FORM)])
async def test_body_shorter_than_content_length_times_out(server: Server, sent: int) -> None:
    reply = await server.ask(upload(FORM[:sent], length=len(FORM) + 1000))
    assert reply.status == 408
    assert reply.json["code"] == "upload-stalled"
    await server.assert_nothing_stored()


async def test_slow_upload_is_accepted(server: Server) -> None:
    async with server.connection() as connection:
        await connection.send(upload(b"", length=len(FORM)))
        began = asyncio.get_running_loop().time()
        for at in range(0, len(FORM), len(FORM) // 5):
            await connection.send(FORM[at : at + len(FORM) // 5])
            await asyncio.sleep(IDLE_TIMEOUT / 4)
        assert asyncio.get_running_loop().time() - began > IDLE_TIMEOUT
        assert (await connection.reply()).status == 202


@pytest.mark.parametrize("length", [0, len(FORM) - 30, len(FORM)])
async def test_body_longer_than_content_length_closes_the_connection(server: Server, length: int) -> None:
    async with server.connection() as connection:
        await connection.send(upload(FORM + b"more bytes, which are no request", length=length))
        assert (await connection.reply()).status == 400
        assert await connection.is_closed()
    await server.assert_nothing_stored()


async def test_garbage_after_an_upload_closes_the_connection(server: Server) -> None:
    async with server.connection() as connection:
        await connection.send(upload(FORM))
        assert (await connection.reply()).status == 202
        await connection.send(b"more bytes, which are no request")
        assert (await connection.reply()).status == 400
        assert await connection.is_closed()
    assert [path.read_bytes() for path in server.api.originals] == [PNG]


async def test_expect_continue_of_a_too_large_body_returns_413(server: Server) -> None:
    async with server.connection() as connection:
        await connection.send(upload(b"", "Expect: 100-continue", length=TOO_LARGE))
        reply = await connection.reply()
    assert reply.status == 413
    assert reply.json["code"] == "upload-too-large"
    await server.assert_nothing_stored()


async def test_expect_continue_returns_100(server: Server) -> None:
    async with server.connection() as connection:
        await connection.send(upload(b"", "Expect: 100-continue", length=len(FORM)))
        assert await connection.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await connection.send(FORM)
        assert (await connection.reply()).status == 202


async def test_too_large_body_is_refused_before_it_has_arrived(server: Server) -> None:
    async with server.connection() as connection:
        await connection.send(upload(FORM[:60], length=TOO_LARGE))
        reply = await connection.reply()
        assert reply.status == 413
        assert reply.json["code"] == "upload-too-large"
        # A client that reads the response only after sending the body must be able to send all of it.
        await connection.send(bytes(TOO_LARGE - 60))
        await connection.send(upload(FORM))
        assert (await connection.reply()).status == 202


async def test_client_that_reads_after_sending_receives_413(server: Server) -> None:
    body = form(part(PNG + bytes(TOO_LARGE)))
    reply = await server.ask(upload(body))
    assert reply.status == 413
    await server.assert_nothing_stored()


async def test_chunks_beyond_the_limit_are_refused_while_they_arrive(server: Server) -> None:
    async with server.connection() as connection:
        await connection.send(CHUNKED)
        for chunk in chunked(form(part(PNG + bytes(MAX_FILE_SIZE + 200_000)))):
            await connection.send(chunk)
        reply = await connection.reply()
    assert reply.status == 413
    assert reply.json["code"] == "upload-too-large"
    await server.assert_nothing_stored()


async def test_disconnect_during_a_download_closes_the_file(server: Server, tmp_path: Path) -> None:
    size = 50_000_000
    original = Original(
        id=UUID("01900000-0000-7000-8000-000000000001"),
        header=ImageHeader(format=ImageFormat.PNG, width=1, height=1),
        size_bytes=size,
        sha256="0" * 64,
    )
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", size)
    await server.api.resources.storage.adopt({original_key(original.id): tmp_path / "large"})
    async with server.api.database.transaction() as repositories:
        await repositories.images.add(original, lane=Lane.NORMAL, due_in=60)

    def is_open() -> bool:
        return any(str(original.id) in file.path for file in psutil.Process().open_files())

    async with server.connection() as connection:
        await connection.send(f"GET /images/{original.id}/original HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert (await connection.head()).startswith(b"HTTP/1.1 200 ")
        await eventually(is_open)
        connection.cut()
    await eventually(lambda: not is_open())
    assert (await server.ask(upload(FORM))).status == 202


async def test_unsupported_format_is_refused_before_the_body_has_arrived(server: Server) -> None:
    body = form(part(b"text" * 25_000))
    async with server.connection() as connection:
        await connection.send(upload(body[:10_000], length=len(body)))
        reply = await connection.reply()
    assert reply.status == 415
    await server.assert_nothing_stored()


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /images/\xff HTTP/1.1",
        b"GET /nothing?\xff HTTP/1.1",
        b"GET /images/%ff?%ff HTTP/1.1",
        b"GET /%00 HTTP/1.1",
    ],
)
async def test_malformed_path_returns_4xx(server: Server, request_line: bytes) -> None:
    reply = await server.ask(request_line + b"\r\nHost: a b\r\n\r\n")
    assert 400 <= reply.status < 500


@pytest.mark.parametrize("length", ["-1", "x", "99999999999999999999999", "1, 2", "+5"])
async def test_invalid_content_length_is_refused(server: Server, length: str) -> None:
    request = f"POST /images HTTP/1.1\r\nHost: a\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {length}\r\n\r\n"
    assert (await server.ask(request.encode())).status == 400


async def test_shutdown_completes_uploads_in_progress(server: Server) -> None:
    async with server.connection() as idle, server.connection() as connection:
        await idle.send(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await idle.reply()).status == 200
        await connection.send(upload(FORM[:60], length=len(FORM)))
        await eventually(lambda: server.api.scratch)
        server.stop.set()
        assert await idle.is_closed()
        ended, _ = await asyncio.wait({server.task}, timeout=IDLE_TIMEOUT / 4)
        assert not ended
        await connection.send(FORM[60:])
        reply = await connection.reply()
        assert reply.status == 202
        assert reply.headers["connection"] == "close"
        assert await connection.is_closed()
    async with asyncio.timeout(5):
        await server.task
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)
    assert [path.read_bytes() for path in server.api.originals] == [PNG]


async def test_shutdown_answers_connections_that_had_not_yet_sent_their_first_request(server: Server) -> None:
    async with AsyncExitStack() as stack:
        # The event loop has no time to accept them before the server is stopped.
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(3)]
        server.stop.set()
        await eventually(lambda: listener_is_closed(server))
        for client in clients:
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        for client in clients:
            reader, writer = await asyncio.open_connection(sock=client)
            stack.push_async_callback(writer.wait_closed)
            stack.callback(writer.close)
            connection = Connection(reader, writer)
            reply = await connection.reply()
            assert (reply.status, reply.headers["connection"]) == (200, "close")
            assert await connection.is_closed()
    async with asyncio.timeout(10):
        await server.task


async def test_shutdown_closes_a_connection_that_sends_nothing(server: Server) -> None:
    async with server.connection() as connection:
        server.stop.set()
        assert await connection.is_closed()


def listener_is_closed(server: Server) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) != 0


@asynccontextmanager
async def upload_in_progress(server: Server) -> AsyncIterator[Connection]:
    """Yields a client in the middle of an upload that the service is receiving."""
    async with server.connection() as connection:
        await connection.send(upload(LONG_FORM[:BEGUN], length=len(LONG_FORM)))
        await eventually(lambda: server.api.slots_in_use)
        yield connection


async def test_upload_beyond_the_limit_returns_429(single_upload_server: Server) -> None:
    async with upload_in_progress(single_upload_server) as first:
        reply = await single_upload_server.ask(upload(FORM))
        assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (429, "too-many-uploads", "2")
        await first.send(LONG_FORM[BEGUN:])
        assert (await first.reply()).status == 202
        assert (await single_upload_server.ask(upload(FORM))).status == 202


async def test_expect_continue_beyond_the_limit_returns_429(single_upload_server: Server) -> None:
    async with upload_in_progress(single_upload_server) as first, single_upload_server.connection() as second:
        await second.send(upload(b"", "Expect: 100-continue", length=len(FORM)))
        assert (await second.reply()).status == 429
        await first.send(LONG_FORM[BEGUN:])
        assert (await first.reply()).status == 202


@pytest.mark.parametrize("request_line", [b"POST /images HTTP/1.1", b"POST /images/ HTTP/1.1"])
async def test_client_that_reads_after_sending_receives_an_early_refusal(
    single_upload_server: Server, request_line: bytes
) -> None:
    request = upload(form(part(PNG + bytes(TOO_LARGE)))).replace(b"POST /images HTTP/1.1", request_line, 1)
    async with upload_in_progress(single_upload_server) as first:
        reply = await single_upload_server.ask(request)
        assert reply.status == (404 if b"/images/" in request_line else 429)
        await first.send(LONG_FORM[BEGUN:])
        assert (await first.reply()).status == 202


@pytest.mark.parametrize("cut", [True, False])
async def test_disconnect_releases_the_upload_slot(single_upload_server: Server, *, cut: bool) -> None:
    for _ in range(3):
        async with upload_in_progress(single_upload_server) as connection:
            assert (await single_upload_server.ask(upload(FORM))).status == 429
            if cut:
                connection.cut()
            else:
                await connection.close()
        await eventually(lambda: not single_upload_server.api.scratch)
    await single_upload_server.assert_nothing_stored()


@pytest.mark.parametrize("cut", [True, False])
async def test_disconnect_ends_the_wait_of_a_request(server: Server, *, cut: bool) -> None:
    waiting = server.api.app.state.context.waiting
    async with server.connection() as connection:
        await connection.send(upload(FORM, "Prefer: wait=20"))
        await eventually(lambda: waiting.number == 1)
        if cut:
            connection.cut()
        else:
            await connection.close()
        await eventually(lambda: waiting.number == 0)


async def test_drain_answers_requests_that_wait(server: Server) -> None:
    async with server.connection() as connection:
        await connection.send(upload(FORM, "Prefer: wait=20"))
        await eventually(lambda: server.api.originals)
        server.stop.set()
        assert (await connection.reply()).status == 202
    await wait_for(server.task)


async def test_upload_repeated_after_a_disconnect_creates_one_image(server: Server) -> None:
    request = upload(FORM, "Idempotency-Key: 8e03978e-40d5")
    async with server.connection() as connection:
        await connection.send(request[:-1])
        await eventually(lambda: server.api.scratch)
        connection.cut()
    await eventually(lambda: not server.api.scratch)
    assert not server.api.originals
    async with server.connection() as connection:
        await connection.send(request)
        await eventually(lambda: server.api.originals)
        connection.cut()  # it may or may not have received the response
    first, second = await server.ask(request), await server.ask(request)
    assert (first.status, first.headers["idempotent-replayed"]) == (202, "true")
    assert first.json["id"] == second.json["id"]
    assert [path.name for path in server.api.originals] == [first.json["id"]]


async def test_control_character_in_a_key_returns_400(server: Server) -> None:
    for value in (b"a\0b", b"a\x01b", b"a\x7fb", b"a\xffb", "späť".encode()):
        request = upload(FORM).replace(b"\r\n\r\n", b"\r\nIdempotency-Key: " + value + b"\r\n\r\n", 1)
        assert (await server.ask(request)).status == 400
    assert not server.api.originals


async def test_deletion_keeps_the_connection_usable(server: Server) -> None:
    async with server.connection() as connection:
        await connection.send(upload(FORM))
        address = (await connection.reply()).headers["location"].encode()
        await connection.send(b"DELETE %b HTTP/1.1\r\nHost: a\r\n\r\n" % address)
        head = await connection.head()
        assert head.startswith(b"HTTP/1.1 204 ")
        assert b"content-length" not in head.lower()
        await connection.send(b"DELETE %b HTTP/1.1\r\nHost: a\r\n\r\n" % address)
        assert (await connection.reply()).status == 404
