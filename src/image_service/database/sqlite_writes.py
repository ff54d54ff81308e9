"""Whose turn it is to write to SQLite, which lets one transaction write at a time.

The others it lets try again at growing intervals. Whoever comes just then is served first, and the unlucky ones wait
for a second while dozens pass them.
"""

import asyncio
from typing import Any, Final

from sqlalchemy import Connection, Executable, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

_WRITING: Final = "writing"


def serialize_writes(engine: AsyncEngine) -> None:
    """Let the transactions of this process write in the order in which they come to their first change.

    Others on the same file are met as before: with the driver's own time limit.
    """
    turn = asyncio.Lock()

    def wait(connection: Connection, statement: Executable, *_: Any) -> None:  # noqa: ANN401 — of no interest here
        if statement.is_dml and _WRITING not in connection.info:
            # How an event waits: "Using awaitable-only driver methods in connection pool and other events", SQLAlchemy.
            connection.connection.dbapi_connection.run_async(lambda _: turn.acquire())  # type: ignore[union-attr]
            connection.info[_WRITING] = True

    def pass_on(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        """Once the transaction has ended, in whatever way."""
        if record.info.pop(_WRITING, False):
            turn.release()

    event.listen(engine.sync_engine, "before_execute", wait)
    event.listen(engine.sync_engine, "checkin", pass_on)
