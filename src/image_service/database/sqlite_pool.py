"""Transactions on SQLite: changes go to the writer's connection, reads to connections of their own.

Until its first change a transaction only reads, each time what is committed by then. So reads neither wait for changes
nor delay them.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any, cast

from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from image_service.database.engine import create_sqlite_engine
from image_service.database.failures import Progress
from image_service.database.queries import Query, bound
from image_service.database.repositories import Repositories, SingleStatements
from image_service.database.sqlite_writer import QueryUnit, Session, Writer


class SqlitePool:
    """One writing connection, and several that read.

    Args:
        url: A SQLAlchemy URL.
        time_limit: Seconds that a transaction may take until its commit begins.
        pool_size: Connections: one writes, and the others, at least one, read.
    """

    commits_at_once = True

    def __init__(self, url: str, *, time_limit: float, pool_size: int) -> None:
        readers = max(1, pool_size - 1)
        self._time_limit = time_limit
        self.engine: Engine = create_sqlite_engine(url, time_limit=time_limit, pool_size=readers + 1)
        self._writer = Writer(self.engine)
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="reader")

    @asynccontextmanager
    async def transaction(self, progress: Progress) -> AsyncIterator[Repositories]:
        """See ``Database.transaction``."""
        session: Session | None = None

        async def run(query: Query[Any]) -> Any:  # noqa: ANN401 — of the query's type
            nonlocal session
            if session is None:
                await self._read(query)
            if query.wanted is not None:
                if session is None:
                    session = Session()
                    self._writer.submit(session)
                await session.run(query)
            return query.answer

        async with asyncio.timeout(self._time_limit) as limit:
            try:
                yield bound(Repositories, run)
            except BaseException:
                if session is not None:
                    session.roll_back()
                raise
            if session is not None:
                progress.committing = True
                # A slow commit to a local file always ends and tells its result. Giving up on it would hide whether it
                # took effect: a claim committed so would hold its image for a whole lease.
                limit.reschedule(None)
                await session.commit()

    @asynccontextmanager
    async def statement(self, progress: Progress) -> AsyncIterator[SingleStatements]:
        """See ``Database.statement``. Here a query may be several statements."""

        async def run(query: Query[Any]) -> Any:  # noqa: ANN401 — of the query's type
            async with asyncio.timeout(self._time_limit):
                await self._read(query)
            if query.wanted is not None:
                unit = QueryUnit(query)
                self._writer.submit(unit)
                try:
                    await unit.outcome(self._time_limit)
                finally:
                    progress.committing = unit.committing
            return query.answer

        yield bound(SingleStatements, run)

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are in use, and how many are idle."""
        pool, resting = cast("QueuePool", self.engine.pool), int(self._writer.resting)
        return pool.checkedout() - resting, pool.checkedin() + resting

    async def close(self) -> None:
        """Close all connections, after what waits to be written."""
        await self._writer.close()
        await asyncio.to_thread(self._close_readers)

    def _close_readers(self) -> None:
        self._readers.shutdown()
        self.engine.dispose()

    async def _read(self, query: Query[Any]) -> None:
        """Run a query until it ends or wants to change something."""
        if query.wanted is not None and query.wanted.only_reads:
            loop, context = asyncio.get_running_loop(), copy_context()
            await loop.run_in_executor(self._readers, context.run, self._run_reads, query)

    def _run_reads(self, query: Query[Any]) -> None:
        with self.engine.connect() as connection:
            query.run(connection, only_reads=True)
