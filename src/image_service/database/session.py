"""Opens transactions and single statements on the database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Engine, make_url

from image_service.causes import address_of
from image_service.database.failures import ErrorTranslator
from image_service.database.repositories import Repositories, SingleStatements
from image_service.database.server_pool import ServerPool
from image_service.database.sqlite_pool import SqlitePool


class Database:
    """PostgreSQL or SQLite."""

    def __init__(
        self, url: str, *, time_limit: float = 3.0, pool_size: int = 10, check_idle_after: float = 0.5
    ) -> None:
        """Connects to nothing yet.

        Args:
            url: A SQLAlchemy URL with the asyncpg or the aiosqlite driver.
            time_limit: Seconds that a transaction may take before the database counts as unavailable; on SQLite,
                until its commit begins.
            pool_size: Connections, which are kept: PostgreSQL takes longer to open one than for many a transaction.
            check_idle_after: Seconds without use after which a connection to a server is checked before it is used
                again.
        """
        self._errors = ErrorTranslator(address_of(url))
        self._pool: ServerPool | SqlitePool
        if make_url(url).get_backend_name() == "sqlite":
            self._pool = SqlitePool(url, time_limit=time_limit, pool_size=pool_size)
        else:
            self._pool = ServerPool(url, time_limit=time_limit, pool_size=pool_size, check_idle_after=check_idle_after)
        self.commits_at_once = self._pool.commits_at_once
        """Whether a ``statement`` is committed when its query returns, rather than at the end of its block."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Repositories]:
        """Commit when the block ends, roll back when it raises. The block must do nothing but queries.

        Raises:
            DatabaseUnavailable: the database is unavailable. If the commit failed, it may or may not have taken effect;
                ``unchanged`` tells whether it certainly has not.
        """
        with self._errors.translated() as progress:
            async with self._pool.transaction(progress) as repositories:
                yield repositories

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[SingleStatements]:
        """A transaction of one query that is a single statement, committed with it if ``commits_at_once``.

        On PostgreSQL that is one round trip to the server instead of three. On SQLite, one to the writer's thread.

        Raises:
            DatabaseUnavailable: the database is unavailable. The statement may or may not have taken effect;
                ``unchanged`` tells whether it certainly has not.
        """
        if not self.commits_at_once:
            async with self.transaction() as repositories:
                yield repositories
            return
        with self._errors.translated() as progress:
            async with self._pool.statement(progress) as repositories:
                yield repositories

    async def probe(self) -> None:
        """Return if the database can be written to now and has the tables of this version.

        Raises:
            DatabaseUnavailable: it does not.
        """
        async with self.statement() as repositories:
            await repositories.images.probe()

    @property
    def engine(self) -> Engine:
        """The engine, for instrumentation."""
        return self._pool.engine

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are in use, and how many are idle."""
        return self._pool.connections

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()
