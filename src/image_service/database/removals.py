"""Files that no row names any more: written down in the transaction that took the name away, removed after it."""

from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from image_service.database.clock import in_seconds, now
from image_service.database.statements import insert_if_new
from image_service.models import RemovalRow


class RemovalRepository:
    """Queries about files to be removed, inside the caller's transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, keys: Iterable[str], *, due_in: float) -> None:
        """Write down files that may be removed from ``due_in`` seconds on."""
        rows = [{"key": key, "due_at": in_seconds(due_in)} for key in keys]
        if rows:
            await self._connection.execute(insert_if_new(self._connection.dialect.name, RemovalRow).values(rows))

    async def due(self, *, limit: int) -> Sequence[str]:
        """The keys of files that may be removed now, the longest waiting first."""
        statement = select(RemovalRow.key).where(RemovalRow.due_at <= now()).order_by(RemovalRow.due_at).limit(limit)
        return (await self._connection.execute(statement)).scalars().all()

    async def pending(self, keys: Iterable[str]) -> set[str]:
        """Which of these files are written down."""
        return set((await self._connection.execute(select(RemovalRow.key).where(RemovalRow.key.in_(keys)))).scalars())

    async def done(self, keys: Collection[str]) -> None:
        """Forget files that are gone."""
        await self._connection.execute(delete(RemovalRow).where(RemovalRow.key.in_(keys)))
