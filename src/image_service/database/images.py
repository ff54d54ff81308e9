"""Statements about recorded images: adding, reading, reprocessing and removing them."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import Executable, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from image_service.database import statements
from image_service.database.clock import in_seconds, now
from image_service.database.removals import RemovalRepository
from image_service.database.rows import image_of
from image_service.database.shared import remove_thumbnails
from image_service.domain.image import Image, Original
from image_service.domain.keys import original_key
from image_service.domain.lane import Lane
from image_service.domain.status import TERMINAL, Status
from image_service.models import ImageRow, ThumbnailRow


class ImageRepository:
    """Statements about images, inside the caller's transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def probe(self) -> None:
        """Ask for an image, any or none: it shows that the tables are there too, with all their columns."""
        await self._connection.execute(select(*ImageRow.__table__.c).limit(1))

    async def add(self, original: Original, *, lane: Lane, due_in: float, idempotency_key: str | None = None) -> None:
        """Record an accepted upload as NEW. Doing it twice is the same as once: the id is the caller's.

        Nothing is recorded where another image has the idempotency key: ask ``by_idempotency_key`` whose it is.

        Args:
            original: The stored upload.
            lane: Where it is going to wait.
            due_in: Seconds after which the reconciler queues it, should nobody have.
            idempotency_key: What the client tells a repeated upload by.
        """
        values = {
            "id": original.id,
            "format": original.header.format,
            "width": original.header.width,
            "height": original.header.height,
            "size_bytes": original.size_bytes,
            "sha256": original.sha256,
            "idempotency_key": idempotency_key,
            "lane": lane,
            "due_in": due_in,
        }
        await self._connection.execute(statements.ADD[self._connection.dialect.name], values)

    async def get(self, image_id: UUID) -> Image | None:
        """An image with its thumbnails."""
        return await self._one(statements.IMAGE_BY_ID, {"image": image_id})

    async def by_idempotency_key(self, idempotency_key: str) -> Image | None:
        """The image that was uploaded under an idempotency key."""
        return await self._one(statements.IMAGE_BY_KEY, {"key": idempotency_key})

    async def reprocess(
        self, image_ids: Collection[UUID], *, due_in: float, lane: Lane | None = None, only: Status | None = None
    ) -> set[UUID]:
        """DONE or ERROR → NEW, if there still is an original; returns which images that were.

        Attempts are counted from nothing again. The thumbnails stay until the new ones are complete.

        Args:
            image_ids: The images.
            due_in: Seconds after which the reconciler queues them, should nobody have.
            lane: Where they are to wait; where they waited last unless told.
            only: The state that they must be in, where it has to be one of the two.
        """
        statement = (
            update(ImageRow)
            .where(
                ImageRow.id.in_(image_ids),
                ImageRow.status.in_(TERMINAL if only is None else (only,)),
                ImageRow.original_removed_at.is_(None),
            )
            .values(
                status=Status.NEW,
                # A worker that never got the reply to its last COMMIT, and repeats it, finds its claim lost.
                attempt=ImageRow.attempt + 1,
                attempts_charged=0,
                decoder_failures=0,
                publishes=0,
                error_code=None,
                error_detail=None,
                queued_at=None,
                due_at=in_seconds(due_in),
                updated_at=now(),
                **({} if lane is None else {"lane": lane}),
            )
            .returning(ImageRow.id)
        )
        return set((await self._connection.execute(statement)).scalars())

    async def remove(self, image_ids: Collection[UUID], *, only_finished: bool = False) -> list[str]:
        """Forget images, in whatever state, and give their files to ``removals``; returns the files' keys.

        What a worker makes of one meanwhile has no row to go to: the worker removes it, or the sweeper does.

        Args:
            image_ids: The images; those that there are not are left out.
            only_finished: Whether to spare those that are being processed.
        """
        statuses = TERMINAL if only_finished else tuple(Status)
        # Changes nothing, but holds the rows: thumbnails that a worker is just recording are waited for.
        statement = (
            update(ImageRow)
            .where(ImageRow.id.in_(image_ids), ImageRow.status.in_(statuses))
            .values(updated_at=now())
            .returning(ImageRow.id)
        )
        found = (await self._connection.execute(statement)).scalars().all()
        originals = list(map(original_key, found))
        await RemovalRepository(self._connection).add(originals, due_in=0)
        thumbnails = await remove_thumbnails(self._connection, found, due_in=0)
        await self._connection.execute(delete(ImageRow).where(ImageRow.id.in_(found)))
        return [*originals, *thumbnails]

    async def remove_originals(self, image_ids: Collection[UUID]) -> list[str]:
        """Give the originals of finished images to ``removals``; returns the files' keys.

        The images and their thumbnails stay, but cannot be reprocessed.
        """
        statement = (
            update(ImageRow)
            .where(ImageRow.id.in_(image_ids), ImageRow.status.in_(TERMINAL), ImageRow.original_removed_at.is_(None))
            .values(original_removed_at=now(), updated_at=now())
            .returning(ImageRow.id)
        )
        originals = list(map(original_key, (await self._connection.execute(statement)).scalars()))
        await RemovalRepository(self._connection).add(originals, due_in=0)
        return originals

    async def existing(self, image_ids: Collection[UUID]) -> set[UUID]:
        """Which of these images are recorded."""
        result = await self._connection.execute(select(ImageRow.id).where(ImageRow.id.in_(image_ids)))
        return set(result.scalars())

    async def thumbnail_keys(self, image_ids: Collection[UUID]) -> set[str]:
        """The storage keys that these images' thumbnails are recorded under."""
        result = await self._connection.execute(
            select(ThumbnailRow.key).where(ThumbnailRow.image_id.in_(image_ids)),
        )
        return set(result.scalars())

    async def _one(self, statement: Executable, parameters: dict[str, Any]) -> Image | None:
        rows = (await self._connection.execute(statement, parameters)).mappings().all()
        return image_of(rows) if rows else None
