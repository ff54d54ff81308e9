"""JSON bodies from raw sockets: how much of one is read."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from image_service.api.json_body import MAX_BODY
from tests.integration.test_http_server import Server, chunked, serving

HEAD = "POST /webhooks HTTP/1.1\r\nHost: api.example\r\nContent-Type: application/json\r\n"
LARGEST = json.dumps({"url": "https://example.org/"}).encode().ljust(MAX_BODY)


@pytest.fixture
async def server(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(sqlite_url, tmp_path) as server:
        yield server


def whole(body: bytes, length: int | None = None) -> bytes:
    return f"{HEAD}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def in_chunks(body: bytes, size: int = 1000) -> bytes:
    return f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode() + b"".join(chunked(body, size)) + b"0\r\n\r\n"


@pytest.mark.parametrize("request_of", [whole, in_chunks])
async def test_body_of_the_largest_size_is_accepted_and_a_larger_one_refused(
    server: Server, request_of: Callable[[bytes], bytes]
) -> None:
    assert (await server.ask(request_of(LARGEST))).status == 201
    refused = await server.ask(request_of(LARGEST + b" "))
    assert (refused.status, refused.json["code"]) == (413, "body-too-large")
    assert len((await server.api.client.get("/webhooks")).json()["webhooks"]) == 1


async def test_body_that_says_it_is_larger_is_refused_before_it_arrives(server: Server) -> None:
    refused = await server.ask(whole(b"", length=10_000_000_000))
    assert (refused.status, refused.json["code"]) == (413, "body-too-large")


async def test_connection_goes_on_after_a_refused_body(server: Server) -> None:
    async with server.connection() as connection:
        await connection.send(whole(LARGEST * 3))
        assert (await connection.reply()).status == 413
        await connection.send(whole(LARGEST))
        assert (await connection.reply()).status == 201
