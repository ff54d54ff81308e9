"""Serializes the write transactions of one process on SQLite, first come, first served.

SQLite lets one transaction write at a time, and lets the others retry at growing intervals. One that happens to retry
at the right moment gets ahead of those that wait longer, which may then wait a second while dozens overtake them.
"""

import asyncio
from typing import Any, Final

from sqlalchemy import Connection, Executable, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

_WRITING: Final = "writing"


def serialize_writes(engine: AsyncEngine) -> None:
    """Let the transactions of this process write in the order of their first change.

    Other processes on the same file are waited for by the driver, up to its own time limit.
    """
    lock = asyncio.Lock()

    def acquire(connection: Connection, statement: Executable, *_: Any) -> None:  # noqa: ANN401 — not used
        if statement.is_dml and _WRITING not in connection.info:
            # SQLAlchemy: "Using awaitable-only driver methods in connection pool and other events".
            connection.connection.dbapi_connection.run_async(lambda _: lock.acquire())  # type: ignore[union-attr]
            connection.info[_WRITING] = True

    def release(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        """Release the lock once the transaction has ended, however it did."""
        if record.info.pop(_WRITING, False):
            lock.release()

    event.listen(engine.sync_engine, "before_execute", acquire)
    event.listen(engine.sync_engine, "checkin", release)
