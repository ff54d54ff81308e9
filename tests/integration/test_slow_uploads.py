"""Clients that send an upload as slowly as they may keep neither a slot nor a connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from harness.waiting import eventually, wait_for
from tests.integration.test_http_server import BEGUN, FORM, LONG_FORM, Connection, Server, serving, upload

SLOTS = 8
LONG = 600.0
"""Seconds that no test lasts."""


@asynccontextmanager
async def trickling(server: Server, count: int) -> AsyncIterator[list[Connection]]:
    """Yields clients whose uploads the service has begun to receive, and that go on with a byte now and then."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(server.connection()) for _ in range(count)]
        for client in clients:
            await client.send(upload(LONG_FORM[:BEGUN], length=len(LONG_FORM) + 100_000))
        await eventually(lambda: server.api.slots_in_use == count)
        tasks = [asyncio.create_task(trickle(client)) for client in clients]
        try:
            yield clients
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def trickle(client: Connection) -> None:
    while True:
        await asyncio.sleep(0.1)
        await client.send(b"-")


async def test_upload_below_the_least_rate_is_ended(sqlite_url: str, tmp_path: Path) -> None:
    async with (
        serving(sqlite_url, tmp_path, upload_idle_timeout=0.5, upload_min_rate=1_000_000) as server,
        trickling(server, 1) as [client],
    ):
        reply = await wait_for(client.reply())
        assert (reply.status, reply.json["code"]) == (408, "upload-stalled")
        assert reply.headers["connection"] == "close"
        await server.assert_nothing_stored()


async def test_good_uploads_are_accepted_while_trickled_ones_hold_all_slots(sqlite_url: str, tmp_path: Path) -> None:
    async with (
        serving(sqlite_url, tmp_path, max_concurrent_uploads=SLOTS, upload_idle_timeout=LONG) as server,
        trickling(server, SLOTS) as clients,
    ):

        async def accepted() -> bool:
            reply = await server.ask(upload(FORM))
            assert reply.status == 202 or reply.json["code"] == "too-many-uploads"
            return reply.status == 202

        await eventually(accepted, timeout=30, interval=0.2)
        replies = [asyncio.create_task(client.reply()) for client in clients]
        done, pending = await asyncio.wait(replies, return_when=asyncio.FIRST_COMPLETED)
        (reply,) = [task.result() for task in done]
        assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (429, "upload-displaced", "5")
        assert reply.headers["connection"] == "close"
        # One gave way, and now that a slot is free no other has to.
        assert (await server.ask(upload(FORM))).status == 202
        await eventually(lambda: server.api.slots_in_use == SLOTS - 1)
        for task in pending:
            task.cancel()


async def test_trickled_uploads_take_no_slot_and_do_not_delay_good_ones(sqlite_url: str, tmp_path: Path) -> None:
    """Here each connects again and again, and has sent less than an upload that takes a slot."""
    async with (
        serving(sqlite_url, tmp_path, max_concurrent_uploads=1, upload_idle_timeout=LONG) as server,
        AsyncExitStack() as stack,
    ):
        for _ in range(5):
            client = await stack.enter_async_context(server.connection())
            await client.send(upload(LONG_FORM[:1000], length=len(LONG_FORM)))
            assert (await server.ask(upload(FORM))).status == 202
        assert server.api.slots_in_use == 0


async def test_slots_are_free_again_when_trickling_clients_vanish(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path, max_concurrent_uploads=SLOTS, upload_idle_timeout=LONG) as server:
        async with trickling(server, SLOTS):
            pass
        await server.assert_nothing_stored()
        async with trickling(server, SLOTS):
            pass


async def test_refused_upload_holds_no_slot_while_its_body_is_sent(sqlite_url: str, tmp_path: Path) -> None:
    async with serving(sqlite_url, tmp_path, max_concurrent_uploads=1) as server, server.connection() as refused:
        await refused.send(upload(b"", length=5_000_000))
        assert (await refused.reply()).status == 413
        await refused.send(b"-")
        assert (await server.ask(upload(FORM))).status == 202


async def test_network_with_more_than_half_of_the_slots_gives_one_to_another(sqlite_url: str, tmp_path: Path) -> None:
    """The clients are those that a trusted proxy names."""

    def from_client(address: str, body: bytes) -> bytes:
        return upload(body, f"X-Forwarded-For: {address}", length=len(LONG_FORM))

    async with (
        serving(sqlite_url, tmp_path, max_concurrent_uploads=3, upload_idle_timeout=LONG, upload_min_rate=1) as server,
        AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(server.connection()) for _ in range(3)]
        for client in clients:
            await client.send(from_client("192.0.2.1", LONG_FORM[:BEGUN]))
        await eventually(lambda: server.api.slots_in_use == len(clients))
        assert (await server.ask(from_client("192.0.2.1", LONG_FORM))).status == 429
        assert (await server.ask(from_client("192.0.2.2", LONG_FORM))).status == 202
        for client in clients:
            with suppress(ConnectionError):  # the displaced one is closed
                await client.send(LONG_FORM[BEGUN:])
        replies = [await client.reply() for client in clients]
        assert sorted(reply.status for reply in replies) == [202, 202, 429]
