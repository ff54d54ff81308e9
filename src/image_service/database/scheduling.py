"""Queries on when an unfinished image is queued, and queued again."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, func, or_, select, update

from image_service.database.clock import in_seconds, now
from image_service.database.repository import Repository
from image_service.database.states import in_state
from image_service.database.transitions import MARK_QUEUED
from image_service.domain.lane import Lane
from image_service.domain.status import CLAIMABLE, Status
from image_service.models import ImageRow


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedImage:
    """What the reconciler knows about an unfinished image."""

    id: UUID
    status: Status
    lane: Lane
    due_at: datetime
    publishes: int


_UNFINISHED: Final = (ImageRow.id, ImageRow.status, ImageRow.lane, ImageRow.due_at, ImageRow.publishes)
"""The columns of an ``UnfinishedImage``."""


class SchedulingStatements(Repository):
    """Queries of the reconciler and of the code that queues images, each a single statement."""

    async def mark_queued(self, image_id: UUID, *, due_in: float) -> bool:
        """NEW → PROCESSING: the broker has confirmed a message. False: the image was not NEW, which is no error.

        Args:
            image_id: The image.
            due_in: Seconds after which the reconciler queues it again, unless a worker has claimed it by then.
        """
        statement = MARK_QUEUED[self._connection.dialect.name]
        return bool(await statement.count(self._connection, {"image": image_id, "due_in": due_in}))

    async def due(self, *, limit: int) -> Sequence[UnfinishedImage]:
        """Unfinished images that are due, the longest due first."""
        return await self._unfinished(
            select(*_UNFINISHED).where(ImageRow.due_at <= now()).order_by(ImageRow.due_at).limit(limit),
        )

    async def unclaimed(self, lane: Lane, *, queued_before: float, limit: int) -> Sequence[UnfinishedImage]:
        """Images of a lane queued more than ``queued_before`` seconds ago that no worker has claimed since."""
        waiting = select(*_UNFINISHED).where(*_unclaimed(lane), ImageRow.queued_at <= in_seconds(-queued_before))
        return await self._unfinished(waiting.order_by(ImageRow.queued_at).limit(limit))

    async def reserve_for_publish(self, image: UnfinishedImage, *, due_in: float) -> bool:
        """Postpone an image, unless it has changed since it was read: of two reconcilers, one publishes it.

        This also clears an expired lease: the image counts as queued and unclaimed again.

        Args:
            image: The image as it was read.
            due_in: Seconds until it is due again.
        """
        return await self._changed(
            update(ImageRow)
            .where(ImageRow.id == image.id, ImageRow.status == image.status, ImageRow.due_at == image.due_at)
            .values(due_at=in_seconds(due_in), queued_at=now(), lease_until=None, publishes=ImageRow.publishes + 1),
        )

    async def resume_all(self) -> int:
        """End every lease and make every unfinished image due now; returns how many.

        Only for a process that knows it is the only one: standalone mode, at its start.
        """
        result = await self._connection.execute(
            update(ImageRow).where(ImageRow.due_at.is_not(None)).values(due_at=now(), lease_until=now())
        )
        return result.rowcount

    async def make_due(self, image_ids: Collection[UUID]) -> set[UUID]:
        """Make unfinished images due now, except those under a lease; returns which images those were."""
        statement = (
            update(ImageRow)
            .where(
                ImageRow.id.in_(image_ids),
                ImageRow.status.in_(CLAIMABLE),
                or_(ImageRow.lease_until.is_(None), ImageRow.lease_until <= now()),
            )
            # An expired lease rather than none: the image must not count among those whose message still waits.
            .values(due_at=now(), lease_until=now())
            .returning(ImageRow.id)
        )
        return set((await self._connection.execute(statement)).scalars())

    async def _unfinished(self, statement: Any) -> Sequence[UnfinishedImage]:  # noqa: ANN401 — a Select of so many columns has no shorter type
        rows: Sequence[Row[Any]] = (await self._connection.execute(statement)).all()
        return [
            UnfinishedImage(
                id=row.id,
                status=row.status,
                lane=row.lane,
                due_at=row.due_at,
                publishes=row.publishes,
            )
            for row in rows
        ]


class SchedulingRepository(SchedulingStatements):
    """All queries on scheduling."""

    async def postpone(self, lane: Lane, *, messages: int, queued_before: float, due_in: float) -> int:
        """Postpone the due images of a lane whose messages still wait in the queue; returns how many those are.

        If more images wait than messages, some messages are missing. Those of the images that were queued the longest
        ago are taken to be missing, and these images stay due.

        Args:
            lane: The lane.
            messages: How many messages waited in it.
            queued_before: How many seconds ago they were counted.
            due_in: Seconds until the images are due again.
        """
        waiting = (*_unclaimed(lane), ImageRow.queued_at <= in_seconds(-queued_before))
        found = (await self._connection.execute(select(func.count()).where(*waiting))).scalar_one()
        due = select(ImageRow.id).where(*waiting, ImageRow.due_at <= now()).order_by(ImageRow.queued_at)
        # Locked, or a worker's claim or another reconciler's publish could be overlooked in between.
        due = due.offset(max(0, found - messages)).with_for_update(skip_locked=True)
        result = await self._connection.execute(
            update(ImageRow).where(ImageRow.id.in_(due)).values(due_at=in_seconds(due_in))
        )
        return result.rowcount


def _unclaimed(lane: Lane) -> tuple[ColumnElement[bool], ...]:
    """The conditions that an image is queued in a lane, and claimed by no worker."""
    return in_state(Status.PROCESSING), ImageRow.lease_until.is_(None), ImageRow.lane == lane
