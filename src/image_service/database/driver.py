"""Changes to how asyncpg's connections are closed, reused and discarded."""

import math
import time
from typing import Final, cast

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from image_service.database.failures import Failure, classify, is_read_only

_CLOSE_TIMEOUT: Final = 0.3
"""Seconds. SQLAlchemy would give a cancelled connection two."""
_RETURNED_AT: Final = "returned_at"


class FastCloseConnection(asyncpg.Connection):  # type: ignore[misc]  # it carries no types
    """A connection that waits only briefly for the server when it is closed: the caller has to wait for that, too."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109, D102 — asyncpg's signature
        await super().close(timeout=_CLOSE_TIMEOUT)


def check_idle_connections(engine: AsyncEngine, after: float) -> None:
    """Check a connection before use: the server may have been restarted since.

    The server is asked only for one that has been idle: at high load that would be a round trip for each transaction.

    Args:
        engine: The engine whose pool is to check.
        after: Seconds without use.
    """

    def note_return(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info[_RETURNED_AT] = time.monotonic()

    def check(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
        # The server may have ended it a moment ago, as at a failover: the event loop knows without asking.
        if cast("asyncpg.Connection", connection.driver_connection).is_closed():
            raise InvalidatePoolError
        if time.monotonic() - record.info.get(_RETURNED_AT, math.inf) < after:
            return
        try:
            connection.ping()  # asyncpg's adapter has it
        except Exception as error:
            raise InvalidatePoolError from error

    event.listen(engine.sync_engine, "checkin", note_return)
    event.listen(engine.sync_engine, "checkout", check)


def discard_failed_connections(engine: AsyncEngine) -> None:
    """Take a connection that has reported an outage out of the pool, even where it still seems open.

    After a failover the pool may hold many to a server that is read-only now: one that is found takes all others with
    it. Each is replaced before its next use.
    """

    def mark(context: ExceptionContext) -> None:
        if context.is_disconnect or context.sqlalchemy_exception is None:
            return
        error = context.sqlalchemy_exception
        if classify(error) is Failure.OUTAGE:
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = is_read_only(error)  # otherwise the others may be well

    event.listen(engine.sync_engine, "handle_error", mark)
