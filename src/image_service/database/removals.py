"""Removals (tombstones): files that no image or thumbnail refers to any more.

A removal is recorded in the transaction that deletes the last reference to the file; the file is removed afterwards.
"""

from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from image_service.database.clock import in_seconds, now
from image_service.database.dialect import insert_if_new
from image_service.database.repository import Repository
from image_service.models import RemovalRow, ThumbnailRow


class RemovalRepository(Repository):
    """Queries on files to be removed. Each is a single statement."""

    async def add(self, keys: Iterable[str], *, due_in: float) -> None:
        """Record files that may be removed from ``due_in`` seconds on. A file already recorded keeps its time."""
        rows = [{"key": key, "due_at": in_seconds(due_in)} for key in keys]
        if rows:
            await self._connection.execute(insert_if_new(self._connection.dialect.name, RemovalRow).values(rows))

    async def due(self, *, limit: int) -> Sequence[str]:
        """The keys of files that may be removed now, the longest due first."""
        statement = select(RemovalRow.key).where(RemovalRow.due_at <= now()).order_by(RemovalRow.due_at).limit(limit)
        return (await self._connection.execute(statement)).scalars().all()

    async def pending(self, keys: Iterable[str]) -> set[str]:
        """Which of these files are recorded for removal."""
        return set((await self._connection.execute(select(RemovalRow.key).where(RemovalRow.key.in_(keys)))).scalars())

    async def postpone(self, key: str, *, due_in: float) -> None:
        """Make a file due ``due_in`` seconds from now."""
        await self._connection.execute(
            update(RemovalRow).where(RemovalRow.key == key).values(due_at=in_seconds(due_in))
        )

    async def done(self, keys: Collection[str]) -> None:
        """Delete the removals of files that have been removed."""
        await self._connection.execute(delete(RemovalRow).where(RemovalRow.key.in_(keys)))


async def remove_thumbnails(
    connection: AsyncConnection, image_ids: Collection[UUID], *, due_in: float, only: Collection[str] | None = None
) -> Sequence[str]:
    """Delete the thumbnail rows of images and record their files for removal; returns the files' keys.

    Args:
        connection: The caller's transaction.
        image_ids: The images.
        due_in: Seconds after which the files may be removed.
        only: The names of their outputs; None for all.
    """
    conditions = [ThumbnailRow.image_id.in_(image_ids)] + ([] if only is None else [ThumbnailRow.output.in_(only)])
    statement = delete(ThumbnailRow).where(*conditions).returning(ThumbnailRow.key)
    keys = (await connection.execute(statement)).scalars().all()
    await RemovalRepository(connection).add(keys, due_in=due_in)
    return keys
