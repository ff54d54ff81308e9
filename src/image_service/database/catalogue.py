"""Queries over many images, a page at a time: for lists, the audit, retention and back-fills."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, func, select, union_all

from image_service.database.clock import in_seconds
from image_service.database.repository import Repository
from image_service.database.rows import SELECT_IMAGES, image_from_rows
from image_service.database.states import in_state
from image_service.domain.image import Image
from image_service.domain.lane import Lane
from image_service.domain.recipe import DEFAULT_NAME
from image_service.domain.status import CLAIMABLE, TERMINAL, Status
from image_service.models import IdentityRow, ImageRow, ThumbnailRow


class CatalogueStatements(Repository):
    """Queries over many images that are a single statement."""

    async def identity(self) -> UUID:
        """The database's own id, which no other database has."""
        return (await self._connection.execute(select(IdentityRow.id))).scalar_one()

    async def open_count(self, *, limit: int, lane: Lane | None = None) -> int:
        """The number of unfinished images, counted up to a limit; None counts those of all lanes."""
        conditions = [ImageRow.due_at.is_not(None)] + ([] if lane is None else [ImageRow.lane == lane])
        counted = select(ImageRow.id).where(*conditions).limit(limit).subquery()
        return (await self._connection.execute(select(func.count()).select_from(counted))).scalar_one()

    async def oldest_unfinished(self, *, among: int) -> float | None:
        """Seconds since the upload of the oldest image that has never been finished; None without one.

        Images that are reprocessed do not count: their age says nothing about how long they wait.

        Args:
            among: How many unfinished images to examine in each state, the oldest first.
        """
        oldest = union_all(
            *(
                select(ImageRow.created_at, ImageRow.finished_at)
                .where(in_state(status))
                .order_by(ImageRow.id)
                .limit(among)
                .subquery()
                .select()
                for status in CLAIMABLE
            )
        ).subquery()
        statement = select(func.min(oldest.c.created_at), in_seconds(0)).where(oldest.c.finished_at.is_(None))
        accepted, now = (await self._connection.execute(statement)).one()
        return None if accepted is None else (now - accepted).total_seconds()

    async def overdue(self, *, seconds: float, limit: int) -> Sequence[UUID]:
        """Unfinished images that have been due for so many seconds, the longest due first."""
        statement = (
            select(ImageRow.id).where(ImageRow.due_at <= in_seconds(-seconds)).order_by(ImageRow.due_at).limit(limit)
        )
        return (await self._connection.execute(statement)).scalars().all()

    async def failed(self, *, limit: int, after: UUID | None = None, code: str | None = None) -> Sequence[UUID]:
        """Images in ERROR, the oldest first.

        Args:
            limit: The most to return.
            after: Only newer ones than this.
            code: Only those with this error code.
        """
        conditions = [in_state(Status.ERROR)]
        conditions += [] if after is None else [ImageRow.id > after]
        conditions += [] if code is None else [ImageRow.error_code == code]
        statement = select(ImageRow.id).where(*conditions).order_by(ImageRow.id).limit(limit)
        return (await self._connection.execute(statement)).scalars().all()

    async def outdated(
        self, recipes: Mapping[str, str], *, among: int, after: UUID | None = None
    ) -> dict[UUID, bool | None]:
        """The next images, the oldest first, each with whether it is outdated; None: its recipe is not among these.

        An image is outdated if it is DONE under another version of its recipe, and still has its original. There is no
        index for this, so the limit is on the images examined, not on those found.

        Args:
            recipes: The fingerprints of the recipes as they are now, by name.
            among: How many images to examine.
            after: Only newer ones than this.
        """
        # Outputs that are due already are compared with the recipe when a worker claims them.
        examined = and_(
            in_state(Status.DONE), ImageRow.outputs_due_at.is_(None), ImageRow.original_removed_at.is_(None)
        )
        conditions = [] if after is None else [ImageRow.id > after]
        statement = (
            select(ImageRow.id, examined.label("examined"), ImageRow.recipe_name, ImageRow.recipe)
            .where(*conditions)
            .order_by(ImageRow.id)
            .limit(among)
        )
        found: dict[UUID, bool | None] = {}
        for row in await self._connection.execute(statement):
            current = recipes.get(row.recipe_name or DEFAULT_NAME)
            found[row.id] = row.examined and (None if current is None else row.recipe != current)
        return found

    async def finished_before(self, seconds: float, *, limit: int) -> Sequence[UUID]:
        """Images that were finished more than so many seconds ago, the oldest end first."""
        return await self._finished(seconds, limit)

    async def with_original_finished_before(self, seconds: float, *, limit: int) -> Sequence[UUID]:
        """The same, for images that still have their original."""
        return await self._finished(seconds, limit, ImageRow.original_removed_at.is_(None))

    async def _finished(self, seconds: float, limit: int, *conditions: ColumnElement[bool]) -> Sequence[UUID]:
        statement = (
            select(ImageRow.id)
            .where(ImageRow.finished_at <= in_seconds(-seconds), ImageRow.status.in_(TERMINAL), *conditions)
            .order_by(ImageRow.finished_at)
            .limit(limit)
        )
        return (await self._connection.execute(statement)).scalars().all()


class CatalogueRepository(CatalogueStatements):
    """All queries over many images."""

    async def newest(self, *, limit: int, before: UUID | None = None, status: Status | None = None) -> Sequence[Image]:
        """Images with their thumbnails, the newest first. Ids are in the order of upload.

        Args:
            limit: The most to return.
            before: Only older ones than this.
            status: Only those in this state.
        """
        conditions = [] if before is None else [ImageRow.id < before]
        conditions += [] if status is None else [in_state(status)]
        return await self._images(select(ImageRow.id).where(*conditions).order_by(ImageRow.id.desc()).limit(limit))

    async def oldest(self, *, limit: int, after: UUID | None = None) -> Sequence[Image]:
        """Images with their thumbnails, the oldest first; only those newer than ``after`` if it is given."""
        conditions = [] if after is None else [ImageRow.id > after]
        return await self._images(select(ImageRow.id).where(*conditions).order_by(ImageRow.id).limit(limit))

    async def _images(self, ids: Select[UUID]) -> Sequence[Image]:
        """The images with these ids, in their order."""
        wanted = (await self._connection.execute(ids)).scalars().all()
        statement = SELECT_IMAGES.where(ImageRow.id.in_(wanted)).order_by(
            ImageRow.id, ThumbnailRow.width, ThumbnailRow.output
        )
        rows = (await self._connection.execute(statement)).all()
        found = {image_id: image_from_rows(list(group)) for image_id, group in groupby(rows, lambda row: row.id)}
        return [found[image_id] for image_id in wanted if image_id in found]
