"""Creates engines: connection pools, set up for SQLite or PostgreSQL."""

import sqlite3
from contextlib import suppress
from typing import Final

import sqlalchemy
from sqlalchemy import Engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from image_service.database import pgbouncer
from image_service.database.connecting import connect_arguments
from image_service.database.driver import FastCloseConnection, check_idle_connections, discard_failed_connections

_WRITE_AHEAD_LOG: Final = "PRAGMA journal_mode=WAL"
_SERVER_LIMITS: Final = {"statement_timeout": "10000", "idle_in_transaction_session_timeout": "10000"}
"""Milliseconds. A transaction whose client vanished must not hold its row locks for ever."""


def create_engine(url: str, *, time_limit: float, pool_size: int, check_idle_after: float) -> AsyncEngine:
    """Return an engine for PostgreSQL that has no connections yet.

    Args:
        url: As the settings have it: with the asyncpg driver, and parameters of libpq.
        time_limit: Seconds to wait for a free connection, and for a new one to be opened.
        pool_size: Connections to keep.
        check_idle_after: Seconds without use after which a connection is checked before it is used again.
    """
    address, arguments = connect_arguments(url)
    pooled = pgbouncer.behind_pgbouncer(address)
    if not pooled:
        arguments["server_settings"] |= _SERVER_LIMITS
    engine = create_async_engine(
        address,
        isolation_level="READ COMMITTED" if pooled else "AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=time_limit,
        connect_args={"timeout": time_limit, "connection_class": FastCloseConnection, **arguments},
    )
    check_idle_connections(engine, check_idle_after)
    discard_failed_connections(engine)
    if pooled:
        pgbouncer.set_in_each_transaction(engine, _SERVER_LIMITS)
    return engine


def create_sqlite_engine(url: str, *, time_limit: float, pool_size: int) -> Engine:
    """Return an engine for SQLite that has no connections yet, and begins no transactions by itself.

    Its calls block: they are for threads.

    Args:
        url: As the settings have it. Their driver, aiosqlite, would let the event loop wait for each call on its own.
        time_limit: Seconds to wait for a lock that another process holds.
        pool_size: Connections to keep.
    """
    engine = sqlalchemy.create_engine(
        make_url(url).set(drivername="sqlite"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=time_limit,
        connect_args={"timeout": time_limit, "isolation_level": None},
    )
    event.listen(engine, "connect", _set_pragmas)
    return engine


def _set_pragmas(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    _use_write_ahead_log(cursor)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _use_write_ahead_log(cursor: DBAPICursor) -> None:
    """Switch the file to its write-ahead log, which it keeps; wait for a lock that another process holds.

    Raises:
        sqlite3.OperationalError: the lock was held for too long.
    """
    with suppress(sqlite3.OperationalError):
        cursor.execute(_WRITE_AHEAD_LOG)
        return
    # The switch itself does not wait, unlike the beginning of a transaction.
    cursor.execute("BEGIN IMMEDIATE")
    cursor.execute("ROLLBACK")
    cursor.execute(_WRITE_AHEAD_LOG)
