"""Opens transactions and single statements on the connection pool."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from sqlalchemy import URL, Engine
from sqlalchemy.pool import QueuePool

from image_service.database.engine import create_engine
from image_service.database.failures import ErrorTranslator
from image_service.database.pgbouncer import behind_pgbouncer
from image_service.database.repositories import Repositories, SingleStatements


class Database:
    """A pool of connections to PostgreSQL or SQLite."""

    def __init__(
        self, url: str, *, time_limit: float = 3.0, pool_size: int = 10, check_idle_after: float = 0.5
    ) -> None:
        """Connects to nothing yet.

        Args:
            url: A SQLAlchemy URL with the asyncpg or the aiosqlite driver.
            time_limit: Seconds that a transaction may take before the database counts as unavailable; on SQLite,
                until its commit begins.
            pool_size: Connections, which are kept: PostgreSQL takes longer to open one than for many a transaction.
            check_idle_after: Seconds without use after which a connection is checked before it is used again.
        """
        self._time_limit = time_limit
        self._engine = create_engine(url, time_limit=time_limit, pool_size=pool_size, check_idle_after=check_idle_after)
        self._is_local = self._engine.url.get_backend_name() == "sqlite"
        self._errors = ErrorTranslator()
        self.commits_at_once = _commits_at_once(self._engine.url)
        """Whether a ``statement`` is committed when its query returns, rather than at the end of its block."""
        # The same connections. Their own setting is autocommit, since single statements are the most frequent.
        self._transactions = (
            self._engine.execution_options(isolation_level="READ COMMITTED") if self.commits_at_once else self._engine
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Repositories]:
        """Commit when the block ends, roll back when it raises. The block must do nothing but queries.

        Raises:
            DatabaseUnavailable: the database is unavailable. If the commit failed, it may or may not have taken effect;
                ``unchanged`` tells whether it certainly has not.
        """
        with self._errors.translated() as progress:
            async with asyncio.timeout(self._time_limit) as limit, self._transactions.begin() as connection:
                yield Repositories(connection)
                progress.committing = True
                if self._is_local:
                    # A slow commit to a local file always ends and tells its result. Giving up on it would hide whether
                    # it took effect: a claim committed so would hold its image for a whole lease.
                    limit.reschedule(None)

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[SingleStatements]:
        """A transaction of one query that is a single statement: on PostgreSQL it is committed with the statement.

        That is one round trip to the server instead of three.

        Raises:
            DatabaseUnavailable: the database is unavailable. The statement may or may not have taken effect;
                ``unchanged`` tells whether it certainly has not.
        """
        if not self.commits_at_once:
            async with self.transaction() as repositories:
                yield repositories
            return
        with self._errors.translated() as progress:
            async with asyncio.timeout(self._time_limit), self._engine.connect() as connection:
                progress.committing = True
                yield SingleStatements(connection)

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
        return self._engine.sync_engine

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are in use, and how many are idle."""
        pool = cast("QueuePool", self._engine.pool)
        return pool.checkedout(), pool.checkedin()

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


def _commits_at_once(url: URL) -> bool:
    """Whether single statements run in autocommit mode.

    Not behind PgBouncer, where server settings are applied in each transaction; nor on SQLite, which has no round trips
    to save.
    """
    return url.get_backend_name() == "postgresql" and not behind_pgbouncer(url)
