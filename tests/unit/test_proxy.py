"""The fault proxy's lost replies; the tests that use its other modes cover these."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from harness.proxy import Mode, Proxy


@pytest.fixture
async def received() -> list[bytes]:
    """Data that the server received."""
    return []


@pytest.fixture
async def proxy(received: list[bytes]) -> AsyncIterator[Proxy]:
    """A proxy for a server that answers ``done`` to everything."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            received.append(data)
            writer.write(b"done")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with Proxy(*server.sockets[0].getsockname()[:2]) as proxy:
        proxy.fatal = b"COMMIT"
        yield proxy
    server.close()


async def test_reply_is_lost_after_the_request_arrived(proxy: Proxy, received: list[bytes]) -> None:
    proxy.switch(Mode.LOSE_REPLY)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"INSERT")
    assert await reader.read(100) == b"done"
    writer.write(b"COMMIT;")
    with pytest.raises(ConnectionResetError):
        await reader.read(100)
    assert received == [b"INSERT", b"COMMIT;"]
    assert proxy.lost == 1
    writer.close()


async def test_other_replies_are_forwarded(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    for mode in (Mode.PASS, Mode.LOSE_REPLY, Mode.PASS):
        proxy.switch(mode)
        writer.write(b"SELECT" if mode is Mode.LOSE_REPLY else b"COMMIT")
        assert await reader.read(100) == b"done"
    assert proxy.lost == 0
    writer.close()
