"""Queries on single images: recording, reading, reprocessing and removing them."""

from collections.abc import Collection
from typing import Any, Final
from uuid import UUID

from sqlalchemy import bindparam, false, insert, select, update

from image_service.database import transitions
from image_service.database.clock import now
from image_service.database.event_log import record_events
from image_service.database.prepared import Prepared
from image_service.database.removals import RemovalRepository, remove_thumbnails
from image_service.database.repository import Repository
from image_service.database.rows import SELECT_IMAGES, image_from_rows
from image_service.domain.event import EventType
from image_service.domain.image import Image, Original
from image_service.domain.keys import original_key
from image_service.domain.lane import Lane
from image_service.domain.recipe import DEFAULT_NAME
from image_service.domain.status import TERMINAL, Status
from image_service.models import ImageRow, ThumbnailRow

# Built once: SQLAlchemy takes longer to build a statement than to run it.
_IMAGE: Final = SELECT_IMAGES.order_by(ThumbnailRow.width, ThumbnailRow.output)
_IMAGE_BY_ID: Final = Prepared(_IMAGE.where(ImageRow.id == bindparam("image")))
_IMAGE_BY_KEY: Final = Prepared(_IMAGE.where(ImageRow.idempotency_key == bindparam("key")))
_COLUMNS: Final = ImageRow.__table__.c
# A server decides before it looks for rows whether it may write: a standby refuses this, and otherwise nothing changes.
_PROBE: Final = insert(ImageRow).from_select(_COLUMNS.keys(), select(*_COLUMNS).where(false()), include_defaults=False)


class ImageStatements(Repository):
    """Queries on images that are a single statement."""

    async def probe(self) -> None:
        """Record no image: shows that the table has all columns, and that an upload could be recorded now."""
        await self._connection.execute(_PROBE)

    async def add(self, original: Original, *, lane: Lane, due_in: float, idempotency_key: str | None = None) -> None:
        """Record an accepted upload as NEW. A second call with the same id changes nothing.

        Nothing is recorded if another image has the idempotency key: ``by_idempotency_key`` returns that image.

        Args:
            original: The stored upload.
            lane: The lane to queue it in.
            due_in: Seconds after which the reconciler queues it, unless it is queued by then.
            idempotency_key: The client's key, by which a repeated upload is recognised.
        """
        values = {
            "new_id": original.id,
            "new_format": original.header.format,
            "new_width": original.header.width,
            "new_height": original.header.height,
            "new_size_bytes": original.size_bytes,
            "new_sha256": original.sha256,
            "new_idempotency_key": idempotency_key,
            "new_recipe_name": original.recipe_name,
            "new_client_metadata": original.metadata,
            "new_webhook_id": original.webhook_id,
            "new_lane": lane,
            "due_in": due_in,
        }
        statement = transitions.ADD[self._connection.dialect.name]
        if self._connection.dialect.name == "postgresql":
            await statement.rows(self._connection, values)
        elif await statement.count(self._connection, values):
            await record_events(self._connection, EventType.ACCEPTED, [original.id])

    async def get(self, image_id: UUID) -> Image | None:
        """An image with its thumbnails."""
        return await self._one(_IMAGE_BY_ID, {"image": image_id})

    async def by_idempotency_key(self, idempotency_key: str) -> Image | None:
        """The image that was uploaded under an idempotency key, with its thumbnails."""
        return await self._one(_IMAGE_BY_KEY, {"key": idempotency_key})

    async def existing(self, image_ids: Collection[UUID]) -> set[UUID]:
        """Which of these images are recorded."""
        result = await self._connection.execute(select(ImageRow.id).where(ImageRow.id.in_(image_ids)))
        return set(result.scalars())

    async def thumbnail_keys(self, image_ids: Collection[UUID]) -> set[str]:
        """The storage keys of these images' thumbnails."""
        result = await self._connection.execute(
            select(ThumbnailRow.key).where(ThumbnailRow.image_id.in_(image_ids)),
        )
        return set(result.scalars())

    async def _one(self, statement: Prepared, parameters: dict[str, Any]) -> Image | None:
        rows = await statement.rows(self._connection, parameters)
        return image_from_rows(rows) if rows else None


class ImageRepository(ImageStatements):
    """All queries on images."""

    async def reprocess(
        self,
        image_ids: Collection[UUID],
        *,
        due_in: float,
        lane: Lane | None = None,
        recipe: str | None = None,
    ) -> set[UUID]:
        """DONE or ERROR → NEW, for images that still have their original; returns which images those were.

        Their attempts are counted from zero again. The thumbnails stay until the new ones are complete. All outputs
        are made again, those included that were still to follow.

        Args:
            image_ids: The images.
            due_in: Seconds after which the reconciler queues them, unless they are queued by then.
            lane: Their new lane; None keeps the last one.
            recipe: The name of their new recipe; None keeps the one they have.
        """
        changes: dict[str, Any] = {} if lane is None else {"lane": lane}
        if recipe is not None:
            # The fingerprint belongs to the recipe before.
            changes |= {"recipe_name": None if recipe == DEFAULT_NAME else recipe, "recipe": None}
        statement = transitions.reprocess(image_ids, due_in=due_in, changes=changes).returning(ImageRow.id)
        changed = set((await self._connection.execute(statement)).scalars())
        await record_events(self._connection, EventType.REPROCESSING, changed)
        return changed

    async def remove(self, image_ids: Collection[UUID], *, only_finished: bool = False) -> list[str]:
        """Delete images, in whatever state, and record their files for removal; returns the files' keys.

        A worker that is still processing one has lost its claim; it removes its own files, or the sweeper does.

        Args:
            image_ids: The images; unknown ones are ignored.
            only_finished: Whether to leave out those that are unfinished.
        """
        statuses = TERMINAL if only_finished else tuple(Status)
        # Locks the rows: a worker that is just recording thumbnails commits first.
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
        await record_events(self._connection, EventType.DELETED, found)
        await self._connection.execute(transitions.remove(found))
        return [*originals, *thumbnails]

    async def remove_originals(self, image_ids: Collection[UUID]) -> list[str]:
        """Record the originals of finished images for removal; returns the files' keys.

        The images and their thumbnails stay, but cannot be reprocessed. Outputs that they lack are made no more.
        """
        statement = (
            update(ImageRow)
            .where(ImageRow.id.in_(image_ids), ImageRow.status.in_(TERMINAL), ImageRow.original_removed_at.is_(None))
            .values(original_removed_at=now(), updated_at=now(), **transitions.NO_LATE_OUTPUTS)
            .returning(ImageRow.id)
        )
        originals = list(map(original_key, (await self._connection.execute(statement)).scalars()))
        await RemovalRepository(self._connection).add(originals, due_in=0)
        return originals
