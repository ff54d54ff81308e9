"""Connections across a restart of PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from harness.servers import PostgresServer
from image_service.database import Database
from image_service.database.migrations import upgrade
from image_service.errors import DatabaseUnavailable


@asynccontextmanager
async def connected(server: PostgresServer, *, check_idle_after: float) -> AsyncIterator[Database]:
    """A migrated database whose pool is full of connections."""
    await asyncio.to_thread(upgrade, server.url)
    database = Database(server.url, check_idle_after=check_idle_after)
    try:
        await use_all_connections(database)
        yield database
    finally:
        await database.close()


async def use_all_connections(database: Database) -> None:
    await asyncio.gather(*(database.probe() for _ in range(5)))


async def test_idle_connections_are_replaced_after_a_restart(own_postgres: PostgresServer) -> None:
    async with connected(own_postgres, check_idle_after=0) as database:
        await asyncio.to_thread(own_postgres.restart)
        await use_all_connections(database)


async def test_connections_that_the_server_ended_are_replaced_without_asking_it(own_postgres: PostgresServer) -> None:
    async with connected(own_postgres, check_idle_after=3600) as database:
        await asyncio.to_thread(own_postgres.restart)
        await use_all_connections(database)


async def test_stopped_server_is_an_outage_for_idle_connections(own_postgres: PostgresServer) -> None:
    async with connected(own_postgres, check_idle_after=0) as database:
        await asyncio.to_thread(own_postgres.stop)
        with pytest.raises(DatabaseUnavailable):
            await database.probe()
        await asyncio.to_thread(own_postgres.start)
        await database.probe()
