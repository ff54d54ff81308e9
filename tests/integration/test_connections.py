"""Connections to a PostgreSQL that is restarted."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from harness.servers import PostgresServer
from image_service.database import Database, session
from image_service.database.migrations import upgrade
from image_service.errors import DatabaseUnavailable


@pytest.fixture
async def database(own_postgres: PostgresServer) -> AsyncIterator[Database]:
    await asyncio.to_thread(upgrade, own_postgres.url)
    database = Database(own_postgres.url)
    yield database
    await database.close()


async def fill_the_pool(database: Database) -> None:
    await asyncio.gather(*(database.probe() for _ in range(5)))


async def test_connections_that_were_idle_while_the_server_was_restarted_are_replaced_unnoticed(
    database: Database, own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_TRUSTED_FOR", 0.0)
    await fill_the_pool(database)
    await asyncio.to_thread(own_postgres.restart)
    await fill_the_pool(database)


async def test_a_connection_in_steady_use_is_not_tried_first_and_its_loss_is_an_outage_once(
    database: Database, own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_TRUSTED_FOR", 3600.0)
    await fill_the_pool(database)
    await asyncio.to_thread(own_postgres.restart)
    with pytest.raises(DatabaseUnavailable):
        await database.probe()
    await fill_the_pool(database)


async def test_while_the_server_is_away_idle_connections_are_an_outage(
    database: Database, own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_TRUSTED_FOR", 0.0)
    await fill_the_pool(database)
    await asyncio.to_thread(own_postgres.stop)
    with pytest.raises(DatabaseUnavailable):
        await database.probe()
    await asyncio.to_thread(own_postgres.start)
    await database.probe()
