"""Creates the engine: a connection pool, set up for SQLite or PostgreSQL."""

from typing import Final

from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from image_service.database import pgbouncer
from image_service.database.connecting import connect_arguments
from image_service.database.driver import FastCloseConnection, check_idle_connections, discard_failed_connections
from image_service.database.sqlite_writes import serialize_writes

_SERVER_LIMITS: Final = {"statement_timeout": "10000", "idle_in_transaction_session_timeout": "10000"}
"""Milliseconds. A transaction whose client vanished must not hold its row locks for ever."""


def create_engine(url: str, *, time_limit: float, pool_size: int, check_idle_after: float) -> AsyncEngine:
    """Return an engine that has no connections yet.

    Args:
        url: As the settings have it: with the asyncpg or the aiosqlite driver, and parameters of libpq.
        time_limit: Seconds to wait for a free connection, and for a new one to be opened.
        pool_size: Connections to keep.
        check_idle_after: Seconds without use after which a connection is checked before it is used again.
    """
    pool = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": time_limit}
    address, arguments = connect_arguments(url)
    if address.get_backend_name() == "sqlite":
        engine = create_async_engine(address, **pool, connect_args={"timeout": time_limit})
        event.listen(engine.sync_engine, "connect", _set_pragmas)
        serialize_writes(engine)
        return engine
    pooled = pgbouncer.behind_pgbouncer(address)
    if not pooled:
        arguments["server_settings"] |= _SERVER_LIMITS
    engine = create_async_engine(
        address,
        isolation_level="READ COMMITTED" if pooled else "AUTOCOMMIT",
        **pool,
        connect_args={"timeout": time_limit, "connection_class": FastCloseConnection, **arguments},
    )
    check_idle_connections(engine, check_idle_after)
    discard_failed_connections(engine)
    if pooled:
        pgbouncer.set_in_each_transaction(engine, _SERVER_LIMITS)
    return engine


def _set_pragmas(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
