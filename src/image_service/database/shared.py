"""What several repositories do in the same way."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Update, delete
from sqlalchemy.ext.asyncio import AsyncConnection

from image_service.database.removals import RemovalRepository
from image_service.models import ThumbnailRow


async def changed_a_row(
    connection: AsyncConnection, statement: Update, parameters: dict[str, Any] | None = None
) -> bool:
    """Execute an UPDATE; returns whether it changed any row."""
    return bool((await connection.execute(statement, parameters)).rowcount)


async def remove_thumbnails(
    connection: AsyncConnection, image_ids: Collection[UUID], *, due_in: float
) -> Sequence[str]:
    """Delete the thumbnail rows of images and add their files to ``removals``; returns the files' keys.

    Args:
        connection: The caller's transaction.
        image_ids: The images.
        due_in: Seconds after which the files may be removed.
    """
    statement = delete(ThumbnailRow).where(ThumbnailRow.image_id.in_(image_ids)).returning(ThumbnailRow.key)
    keys = (await connection.execute(statement)).scalars().all()
    await RemovalRepository(connection).add(keys, due_in=due_in)
    return keys
