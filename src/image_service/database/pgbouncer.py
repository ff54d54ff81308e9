"""Settings for PgBouncer in transaction mode.

There each transaction may use another connection to the server: what outlives a transaction is lost, or reaches another
client.
"""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

CONNECT_ARGS: Final[Mapping[str, Any]] = {"statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
"""Arguments for asyncpg. A prepared statement without a name lasts until the next one only."""


def behind_pgbouncer(url: URL) -> bool:
    """Whether the URL says that connections go through PgBouncer in transaction mode."""
    return url.query.get("prepared_statement_cache_size") == "0"


def set_in_each_transaction(engine: AsyncEngine, settings: Mapping[str, str]) -> None:
    """Apply server settings at the beginning of every transaction, and for that transaction only."""
    values = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())

    def apply(connection: Connection) -> None:
        connection.exec_driver_sql(f"SELECT {values}")

    event.listen(engine.sync_engine, "begin", apply)
