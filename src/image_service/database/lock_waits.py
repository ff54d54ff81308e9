"""Reports what a migration waits for: a lock that another session holds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_INTERVAL: Final = 1.0
_BLOCKERS: Final = text(
    "SELECT pid, application_name, state, left(query, 200) AS query,"
    " extract(epoch FROM now() - xact_start)\\:\\:float AS transaction_seconds"
    " FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(:pid)) ORDER BY xact_start LIMIT 1"
)

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def lock_waits_reported(engine: AsyncEngine, connection: AsyncConnection, *, limit: float) -> AsyncIterator[None]:
    """Log once for each session that keeps a connection waiting during the block; on PostgreSQL only.

    Args:
        engine: Opens a connection of its own.
        connection: What may wait.
        limit: Seconds after which it gives up, for the log.
    """
    if connection.dialect.name != "postgresql":
        yield
        return
    driver: Any = (await connection.get_raw_connection()).driver_connection
    reporting = asyncio.create_task(_report(engine, driver.get_server_pid(), limit))
    try:
        yield
    finally:
        reporting.cancel()
        await asyncio.wait({reporting})


async def _report(engine: AsyncEngine, pid: int, limit: float) -> None:
    reported: set[int] = set()
    while True:
        await asyncio.sleep(_INTERVAL)
        with suppress(OSError, DBAPIError):  # the next time, perhaps; it is only a report
            async with engine.connect() as connection:
                blocker = (await connection.execute(_BLOCKERS, {"pid": pid})).mappings().first()
            if blocker is not None and blocker["pid"] not in reported:
                reported.add(blocker["pid"])
                _log.warning("migration waits for a lock of another session", limit_seconds=limit, **blocker)
