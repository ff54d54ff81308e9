"""Transactions, and what counts as the database being away."""

import asyncio
import math
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, cast

import asyncpg
from sqlalchemy import URL, Connection, Engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, QueuePool

from image_service.database.catalogue import CatalogueRepository
from image_service.database.claims import ClaimRepository
from image_service.database.images import ImageRepository
from image_service.database.removals import RemovalRepository
from image_service.database.scheduling import SchedulingRepository
from image_service.database.sqlite_writes import serialize_writes
from image_service.errors import DatabaseUnavailable

# What PostgreSQL says while it starts, stops, fails over or is full, or does not let us in (yet): no image is to blame.
# SQLSTATE classes 08, 28, 3D, 53, 57P.
_PASSING: Final = ("08", "28", "3D", "53", "57P")

# The same for SQLite: locked for too long, unreadable, full, cannot be opened. https://sqlite.org/rescode.html
_PASSING_SQLITE: Final = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN}
)
_PRIMARY_CODE: Final = 0xFF

_TRUSTED_FOR: Final = 0.5
"""Seconds since its last use for which a connection is taken to work."""
_RETURNED: Final = "returned"

_CLOSE_TIMEOUT: Final = 0.3
"""Seconds. SQLAlchemy would give a cancelled connection two."""

# A transaction whose client vanished must not hold its row locks for ever.
_GUARDS: Final = {"statement_timeout": "10000", "idle_in_transaction_session_timeout": "10000"}

# A table or column that does not exist: this program is newer than the database's schema, or older.
_UNKNOWN_SCHEMA: Final = frozenset({"42P01", "42703"})
_UNKNOWN_SCHEMA_SQLITE: Final = ("no such table", "no such column", "has no column named")


class Repositories:
    """Every query of the program, inside one transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.images = ImageRepository(connection)
        self.claims = ClaimRepository(connection)
        self.scheduling = SchedulingRepository(connection)
        self.catalogue = CatalogueRepository(connection)
        self.removals = RemovalRepository(connection)
        self.connection = connection
        """The transaction itself, for statements that no repository has: those of tests and benchmarks."""


class Database:
    """A pool of connections to PostgreSQL or SQLite."""

    def __init__(self, url: str, *, time_limit: float = 3.0, pool_size: int = 10) -> None:
        """Connects to nothing yet.

        Args:
            url: A SQLAlchemy URL with the asyncpg or the aiosqlite driver.
            time_limit: Seconds one transaction may take before the database counts as away.
            pool_size: Connections, which are kept: to open one takes PostgreSQL longer than many a transaction.
        """
        self._time_limit = time_limit
        self._engine = _engine(url, time_limit, pool_size)
        self.commits_at_once = _commits_at_once(self._engine.url)
        """Whether a ``statement`` has been committed once its query returns, rather than at the end of its block."""
        # The same connections. What is done most often is what they are set to by themselves.
        self._transactions = (
            self._engine.execution_options(isolation_level="READ COMMITTED") if self.commits_at_once else self._engine
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Repositories]:
        """Commit when the block ends, roll back when it raises. The block must do nothing but queries.

        Raises:
            DatabaseUnavailable: the database is away. If that was found out at the commit, the commit may or may not
                have happened.
        """
        async with self._translate_errors(), self._transactions.begin() as connection:
            yield Repositories(connection)

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[Repositories]:
        """A transaction of one query that is one statement: where it can be, it is made and committed in one go.

        That is one round trip to the server in the place of three.

        Raises:
            DatabaseUnavailable: the database is away. The statement may or may not have taken effect.
        """
        if not self.commits_at_once:
            async with self.transaction() as repositories:
                yield repositories
            return
        async with self._translate_errors(), self._engine.connect() as connection:
            yield Repositories(connection)

    @asynccontextmanager
    async def _translate_errors(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._time_limit):
                yield
        except (OSError, TimeoutError, PoolTimeout) as error:
            raise DatabaseUnavailable from error
        except DBAPIError as error:
            if _is_outage(error):
                raise DatabaseUnavailable from error
            if _is_unknown_schema(error):
                raise DatabaseUnavailable(
                    "The database's tables do not fit this version of the service: run `image-service migrate`."
                ) from error
            raise

    async def probe(self) -> None:
        """Return if the database answers now.

        Raises:
            DatabaseUnavailable: it does not.
        """
        async with self.statement() as repositories:
            await repositories.images.probe()

    @property
    def engine(self) -> Engine:
        """What executes the statements, for whoever watches it."""
        return self._engine.sync_engine

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are in use, and how many are kept for later."""
        pool = cast("QueuePool", self._engine.pool)
        return pool.checkedout(), pool.checkedin()

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


def _is_outage(error: DBAPIError) -> bool:
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is not None:
        return str(sqlstate).startswith(_PASSING)
    return getattr(error.orig, "sqlite_errorcode", 0) & _PRIMARY_CODE in _PASSING_SQLITE


def _is_unknown_schema(error: DBAPIError) -> bool:
    if getattr(error.orig, "sqlstate", None) in _UNKNOWN_SCHEMA:
        return True
    return isinstance(error.orig, sqlite3.Error) and str(error.orig).startswith(_UNKNOWN_SCHEMA_SQLITE)


def _engine(url: str, time_limit: float, pool_size: int) -> AsyncEngine:
    pool = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": time_limit}
    if url.startswith("sqlite"):
        engine = create_async_engine(url, **pool, connect_args={"timeout": time_limit})
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        serialize_writes(engine)
        return engine
    pooler = behind_pgbouncer(make_url(url))
    engine = create_async_engine(
        url,
        isolation_level="READ COMMITTED" if pooler else "AUTOCOMMIT",
        **pool,
        connect_args={
            "timeout": time_limit,
            "connection_class": FastCloseConnection,
            "server_settings": {"application_name": "image-service", **({} if pooler else _GUARDS)},
            **(_NOTHING_KEPT if pooler else {}),
        },
    )
    event.listen(engine.sync_engine, "checkin", _note_return)
    event.listen(engine.sync_engine, "checkout", _try_if_idle)
    if pooler:
        event.listen(engine.sync_engine, "begin", _guard)
    return engine


def _commits_at_once(url: URL) -> bool:
    """Behind a pooler, limits are set in each transaction (``_guard``); SQLite is no round trip away."""
    return url.get_backend_name() == "postgresql" and not behind_pgbouncer(url)


def behind_pgbouncer(url: URL) -> bool:
    """Whether the URL says that connections go through PgBouncer in transaction mode."""
    return url.query.get("prepared_statement_cache_size") == "0"


# Behind a pooler, each transaction may be on another of the server's connections: what outlives a transaction is lost,
# or met by somebody else. A statement without a name goes with the next one.
_NOTHING_KEPT: Final = {"statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}


def _guard(connection: Connection) -> None:
    settings = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in _GUARDS.items())
    connection.exec_driver_sql(f"SELECT {settings}")


class FastCloseConnection(asyncpg.Connection):  # type: ignore[misc]  # it carries no types
    """A connection that waits only briefly for the server when it is closed: the caller waits for that, too."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109, D102 — asyncpg's signature
        await super().close(timeout=_CLOSE_TIMEOUT)


def _note_return(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.info[_RETURNED] = time.monotonic()


def _try_if_idle(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
    """See that a connection still works that nobody has used for a while: the server may have been restarted since.

    One that has just been used is not worth a round trip: at high load that would be each one.
    """
    if time.monotonic() - record.info.get(_RETURNED, math.inf) < _TRUSTED_FOR:
        return
    try:
        connection.ping()  # asyncpg's adapter has it
    except Exception as error:
        raise InvalidatePoolError from error


def _prepare_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
