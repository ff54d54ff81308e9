"""What event streams may cost: their number, their clients that read nothing or are gone, and their end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from starlette.types import Message

from harness.api import accepted
from harness.counted import counted
from harness.waiting import eventually, wait_for
from image_service.api.connections import ConnectionLimits
from image_service.api.dependencies import ApiContext
from image_service.api.event_stream import Choice, EventSource, EventStream
from image_service.api.stream_places import StreamPlaces
from image_service.domain.event import START, Event
from image_service.errors import DatabaseUnavailable, TooManyEventStreams
from image_service.services.event_feed import EventFeed, Subscription
from tests.integration.test_http_server import Connection, Server, serving

STREAM = b"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n"
END = b"0\r\n\r\n"
"""Of a response without errors."""


@pytest.fixture
async def server(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(sqlite_url, tmp_path) as server:
        yield server


def places(server: Server) -> StreamPlaces:
    context: ApiContext = server.api.app.state.context
    return context.stream_places


def shown(server: Server, name: str, **labels: str) -> float | None:
    assert server.api.resources.metrics is not None
    return counted(server.api.resources.metrics, name, **labels)


async def begun(connection: Connection, *headers: str) -> None:
    """Opens a stream; it has sent its first block."""
    more = "".join(f"{header}\r\n" for header in headers).encode()
    await connection.send(STREAM[:-2] + more + b"\r\n")
    assert b" 200 " in await connection.head()
    assert b"retry" in await connection.read(20)


async def ended(connection: Connection) -> bool:
    """Waits for the end of the response."""
    async with asyncio.timeout(30):
        return (await connection._reader.readuntil(END)).endswith(END)


# --- their number ----------------------------------------------------------------------------------------------------


async def test_stream_beyond_the_limit_returns_429(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path, max_event_streams=2) as server, AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(server.connection()) for _ in range(2)]
        for connection in opened:
            await begun(connection)
        reply = await server.ask(STREAM)
        assert (reply.status, reply.json["code"]) == (429, "too-many-event-streams")
        assert (reply.headers["retry-after"], reply.headers["vary"]) == ("10", "Accept")
        assert shown(server, "event_streams") == 2
        opened[0].cut()
        await eventually(lambda: places(server).in_use == 1)
        await begun(await stack.enter_async_context(server.connection()))


async def test_no_streams_are_served_if_the_setting_says_so(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path, max_event_streams=0) as server:
        assert (await server.ask(STREAM)).status == 429


async def test_network_with_more_than_half_of_the_places_gives_one_up(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path, max_event_streams=4) as server, AsyncExitStack() as stack:
        first, *_, last = opened = [await stack.enter_async_context(server.connection()) for _ in range(4)]
        for connection in opened:
            await begun(connection, "X-Forwarded-For: 192.0.2.1")
        for address in ("192.0.2.2", "192.0.2.3"):
            await begun(await stack.enter_async_context(server.connection()), f"X-Forwarded-For: {address}")
        assert await ended(last)
        assert places(server).in_use == 4
        reply = await server.ask(STREAM[:-2] + b"X-Forwarded-For: 192.0.2.4\r\n\r\n")
        assert reply.status == 429
        first.cut()


async def test_ended_stream_gives_up_no_place_of_another() -> None:
    limited = StreamPlaces(1, asyncio.Event())
    with limited.place("192.0.2.1"):
        with pytest.raises(TooManyEventStreams):
            limited._displace_for("192.0.2.2")
        assert limited.in_use == 1
    assert limited.in_use == 0


# --- clients that are gone or read nothing ---------------------------------------------------------------------------


async def test_stream_whose_client_has_gone_is_freed(server: Server) -> None:
    async with server.connection() as closed, server.connection() as cut:
        for connection in (closed, cut):
            await begun(connection)
        assert places(server).in_use == 2
        await closed.close()
        cut.cut()
        await eventually(lambda: not places(server).in_use)
    await eventually(lambda: not server.api.app.state.context.services.feed._users)


async def test_unread_stream_is_ended_and_costs_little(sqlite_url: str, tmp_path: Path) -> None:
    limits = replace(ConnectionLimits(), write_timeout=1)
    async with serving(sqlite_url, tmp_path, limits) as server, server.connection() as connection:
        served = 0

        async def large() -> AsyncGenerator[bytes]:
            nonlocal served
            while True:
                served += 1
                yield b":" + bytes(60_000) + b"\n\n"

        async def endless() -> EventStream:
            return EventStream(large(), places(server), "client")

        server.api.app.add_api_route("/endless", endless)
        await connection.send(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        await eventually(lambda: places(server).in_use)
        await eventually(lambda: not places(server).in_use, timeout=20)
        assert served * 60_000 < 20_000_000  # what the buffers of both sockets take
        assert shown(server, "http_connections_closed_total", reason="write-timeout") == 1


class Client:
    """What an application sends to a client, which may stop taking anything, or go."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.gone = asyncio.Event()

    async def send(self, message: Message) -> None:
        await self.takes.wait()
        self.sent.append(message)

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def get(self, stream: EventStream) -> None:
        scope = {"type": "http", "method": "GET", "state": {}}
        await stream(scope, self.receive, self.send)


async def endless() -> AsyncGenerator[bytes]:
    while True:
        yield b":\n\n"
        await asyncio.sleep(0)


async def test_place_of_a_client_that_takes_nothing_is_freed_before_its_connection() -> None:
    limited, client = StreamPlaces(1, asyncio.Event()), Client()
    answering = asyncio.create_task(client.get(EventStream(endless(), limited, "", write_timeout=0.05)))
    await eventually(lambda: len(client.sent) > 2)
    client.takes.clear()
    await eventually(lambda: not limited.in_use)
    assert not answering.done()
    client.takes.set()
    await wait_for(answering)
    assert client.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


# --- their end -------------------------------------------------------------------------------------------------------


async def test_streams_end_when_the_process_stops(server: Server) -> None:
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(server.connection()) for _ in range(3)]
        for connection in opened:
            await begun(connection)
        server.stop.set()
        for connection in opened:
            assert await ended(connection)
        await wait_for(server.task)


async def test_stream_that_begins_while_the_process_stops_ends_after_its_beginning() -> None:
    stopping, client = asyncio.Event(), Client()
    stopping.set()
    limited = StreamPlaces(1, stopping)
    await wait_for(client.get(EventStream(endless(), limited, "")))
    assert client.sent[0]["status"] == 200
    assert client.sent[-1]["more_body"] is False
    assert limited.in_use == 0


async def test_stream_ends_when_its_life_is_over() -> None:
    limited, client = StreamPlaces(1, asyncio.Event(), life=0.05), Client()
    await wait_for(client.get(EventStream(endless(), limited, "")))
    assert client.sent[-1]["more_body"] is False


async def test_stream_ends_in_an_outage_and_can_be_resumed() -> None:
    async def broken() -> AsyncGenerator[bytes]:
        yield b":\n\n"
        raise DatabaseUnavailable

    client = Client()
    await wait_for(client.get(EventStream(broken(), StreamPlaces(1, asyncio.Event()), "")))
    assert [message.get("more_body") for message in client.sent] == [None, True, False]


async def test_outage_before_the_beginning_is_answered_as_usual() -> None:
    async def broken(*blocks: bytes) -> AsyncGenerator[bytes]:
        for block in blocks:
            yield block
        raise DatabaseUnavailable

    client, limited = Client(), StreamPlaces(1, asyncio.Event())
    with pytest.raises(DatabaseUnavailable):
        await client.get(EventStream(broken(), limited, ""))
    assert (client.sent, limited.in_use) == ([], 0)


# --- what is sent and measured ---------------------------------------------------------------------------------------


async def test_comment_is_sent_while_nothing_happens(server: Server) -> None:
    services = server.api.app.state.context.services
    source = EventSource(
        feed=services.feed, log=services.event_log, choice=Choice(), encode=lambda _: b"", heartbeat=0.01
    )
    blocks = source.blocks(None, missed=False)
    assert (await anext(blocks)).startswith(b"retry")
    assert [await anext(blocks) for _ in range(2)] == [b":\n\n"] * 2
    await blocks.aclose()


async def test_client_that_is_ahead_of_the_process_gets_no_event_again(server: Server) -> None:
    """It has got events from a replica that reads the log earlier."""
    for _ in range(3):
        await accepted(server.api)
    log = server.api.app.state.context.services.event_log
    first, second, third = await log.page(START, limit=3)

    class Behind:
        @asynccontextmanager
        async def subscribe(self, **_: object) -> AsyncIterator[Subscription]:
            subscription = Subscription(first.position, None, 256)
            for event in (second, third):
                subscription.add(event)
            yield subscription

    source = EventSource(feed=cast("EventFeed", Behind()), log=log, choice=Choice(), encode=lambda _: b"{}")
    blocks = source.blocks(second.position, missed=False)
    await anext(blocks)
    assert third.id.encode() in await anext(blocks)
    await blocks.aclose()


async def test_duration_of_a_stream_is_the_time_until_it_begins(server: Server) -> None:
    labels = {"method": "GET", "route": "/events", "status": "200"}
    async with server.connection() as connection:
        await begun(connection)
        assert shown(server, "event_streams") == 1
        await asyncio.sleep(2)
    await eventually(lambda: shown(server, "http_request_duration_seconds_count", **labels) == 1)
    seconds = shown(server, "http_request_duration_seconds_sum", **labels)
    assert seconds is not None
    assert 0 < seconds < 2
    assert shown(server, "event_streams") == 0


async def test_documents_for_many_streams_are_made_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    context: ApiContext = server.api.app.state.context

    def encode(event: Event, *_: object) -> bytes:
        made.append(event.id)
        return b"{}"

    monkeypatch.setattr("image_service.api.event_stream.encode_event", encode)
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(server.connection()) for _ in range(5)]
        for connection in opened:
            await begun(connection)
        await accepted(server.api)
        context.services.feed._recorded.set()
        for connection in opened:
            async with asyncio.timeout(10):
                await connection._reader.readuntil(b"data: {}")
    assert len(made) == 1
