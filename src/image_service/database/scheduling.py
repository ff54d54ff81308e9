"""Statements about when an unfinished image is queued, and queued again."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from image_service.database import statements
from image_service.database.clock import in_seconds, now
from image_service.database.shared import changed_a_row
from image_service.database.states import in_state
from image_service.domain.lane import Lane
from image_service.domain.status import CLAIMABLE, Status
from image_service.models import ImageRow


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenImage:
    """An unfinished image that the reconciler looks at."""

    id: UUID
    status: Status
    lane: Lane
    due_at: datetime
    publishes: int


class SchedulingRepository:
    """Statements of the reconciler and of whoever queues an image, inside the caller's transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def mark_queued(self, image_id: UUID, *, due_in: float) -> bool:
        """NEW → PROCESSING: the broker has confirmed a message. False: somebody was faster, which is fine.

        Args:
            image_id: The image.
            due_in: Seconds after which the reconciler queues it again, should no worker have taken it.
        """
        statement = statements.MARK_QUEUED[self._connection.dialect.name]
        return await changed_a_row(self._connection, statement, {"image": image_id, "due_in": due_in})

    async def due(self, *, limit: int) -> Sequence[OpenImage]:
        """Unfinished images whose time has come, the longest waiting first."""
        return await self._open(
            select(*_OPEN).where(ImageRow.due_at <= now()).order_by(ImageRow.due_at).limit(limit),
        )

    async def unclaimed(self, lane: Lane, *, queued_before: float, limit: int) -> Sequence[OpenImage]:
        """Images of a lane queued more than ``queued_before`` seconds ago that no worker has taken since."""
        waiting = select(*_OPEN).where(*_unclaimed(lane), ImageRow.queued_at <= in_seconds(-queued_before))
        return await self._open(waiting.order_by(ImageRow.queued_at).limit(limit))

    async def postpone(self, lane: Lane, *, messages: int, queued_before: float, due_in: float) -> int:
        """Look later after the due images of a lane that no worker has taken yet; returns how many those are.

        But not after those whose messages must be missing, since more images wait than messages: those are the ones
        that were queued the longest ago.

        Args:
            lane: The lane.
            messages: How many messages waited in it.
            queued_before: How many seconds ago that was.
            due_in: Seconds until they are looked at again.
        """
        waiting = (*_unclaimed(lane), ImageRow.queued_at <= in_seconds(-queued_before))
        found = (await self._connection.execute(select(func.count()).where(*waiting))).scalar_one()
        due = select(ImageRow.id).where(*waiting, ImageRow.due_at <= now()).order_by(ImageRow.queued_at)
        # Locked, or a worker's claim or another reconciler's message could be overlooked in between.
        due = due.offset(max(0, found - messages)).with_for_update(skip_locked=True)
        result = await self._connection.execute(
            update(ImageRow).where(ImageRow.id.in_(due)).values(due_at=in_seconds(due_in))
        )
        return result.rowcount

    async def reserve_for_publish(self, image: OpenImage, *, due_in: float) -> bool:
        """Move an image's due time on, if nobody else has: of two reconcilers, one publishes.

        A lease that has run out is forgotten with it: the image counts as queued and unclaimed again.

        Args:
            image: As it was seen.
            due_in: Seconds until it is looked at again.
        """
        return await changed_a_row(
            self._connection,
            update(ImageRow)
            .where(ImageRow.id == image.id, ImageRow.status == image.status, ImageRow.due_at == image.due_at)
            .values(due_at=in_seconds(due_in), queued_at=now(), lease_until=None, publishes=ImageRow.publishes + 1),
        )

    async def resume_all(self) -> int:
        """End every lease and make every unfinished image due now; returns how many.

        Only for a process that knows it is the only one: standalone, at its start.
        """
        result = await self._connection.execute(
            update(ImageRow).where(ImageRow.due_at.is_not(None)).values(due_at=now(), lease_until=now())
        )
        return result.rowcount

    async def make_due(self, image_ids: Collection[UUID]) -> set[UUID]:
        """Make unfinished images due now, unless a worker holds them; returns which those were."""
        statement = (
            update(ImageRow)
            .where(
                ImageRow.id.in_(image_ids),
                ImageRow.status.in_(CLAIMABLE),
                or_(ImageRow.lease_until.is_(None), ImageRow.lease_until <= now()),
            )
            # A lease that has just run out, rather than none: its message must not count as one that still waits.
            .values(due_at=now(), lease_until=now())
            .returning(ImageRow.id)
        )
        return set((await self._connection.execute(statement)).scalars())

    async def _open(self, statement: Any) -> Sequence[OpenImage]:  # noqa: ANN401 — a Select of so many columns has no shorter type
        rows: Sequence[Row[Any]] = (await self._connection.execute(statement)).all()
        return [
            OpenImage(
                id=row.id,
                status=row.status,
                lane=row.lane,
                due_at=row.due_at,
                publishes=row.publishes,
            )
            for row in rows
        ]


_OPEN = (
    ImageRow.id,
    ImageRow.status,
    ImageRow.lane,
    ImageRow.due_at,
    ImageRow.publishes,
)


def _unclaimed(lane: Lane) -> tuple[ColumnElement[bool], ...]:
    """Queued in a lane, and taken by no worker."""
    return in_state(Status.PROCESSING), ImageRow.lease_until.is_(None), ImageRow.lane == lane
