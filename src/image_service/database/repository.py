"""The base class of the repositories."""

from typing import Any

from sqlalchemy import Update
from sqlalchemy.ext.asyncio import AsyncConnection


class Repository:
    """Executes statements on a connection whose transaction the caller begins and ends.

    A class named ``…Statements`` has only methods that are a single statement; the ``…Repository`` derived from it adds
    those that need a transaction.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def _changed(self, statement: Update, parameters: dict[str, Any] | None = None) -> bool:
        """Execute an UPDATE; returns whether it changed a row."""
        return bool((await self._connection.execute(statement, parameters)).rowcount)
