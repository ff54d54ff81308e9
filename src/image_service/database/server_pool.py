"""Transactions and single statements on a pool of connections to PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from image_service.database.engine import create_engine
from image_service.database.failures import Progress
from image_service.database.pgbouncer import behind_pgbouncer
from image_service.database.repositories import Repositories, SingleStatements


class ServerPool:
    """A pool of connections to PostgreSQL, or to a pooler of it.

    Args:
        url: A SQLAlchemy URL with the asyncpg driver, and parameters of libpq.
        time_limit: Seconds that a transaction may take.
        pool_size: Connections, which are kept.
        check_idle_after: Seconds without use after which a connection is checked before it is used again.
    """

    def __init__(self, url: str, *, time_limit: float, pool_size: int, check_idle_after: float) -> None:
        self._time_limit = time_limit
        self._engine = create_engine(url, time_limit=time_limit, pool_size=pool_size, check_idle_after=check_idle_after)
        # Not behind PgBouncer, where server settings are applied in each transaction.
        self.commits_at_once = not behind_pgbouncer(self._engine.url)
        # The same connections. Their own setting is autocommit, since single statements are the most frequent.
        self._transactions = (
            self._engine.execution_options(isolation_level="READ COMMITTED") if self.commits_at_once else self._engine
        )

    @asynccontextmanager
    async def transaction(self, progress: Progress) -> AsyncIterator[Repositories]:
        """See ``Database.transaction``."""
        async with asyncio.timeout(self._time_limit), self._transactions.begin() as connection:
            yield Repositories(connection)
            progress.committing = True

    @asynccontextmanager
    async def statement(self, progress: Progress) -> AsyncIterator[SingleStatements]:
        """See ``Database.statement``."""
        async with asyncio.timeout(self._time_limit), self._engine.connect() as connection:
            progress.committing = True
            yield SingleStatements(connection)

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
