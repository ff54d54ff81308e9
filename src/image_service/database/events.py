"""Queries on the log of events: reading it in order, how far it has been passed on, and purging it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    exists,
    literal,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from image_service.database.clock import in_seconds, now
from image_service.database.repository import Repository
from image_service.database.rows import AnyRow
from image_service.database.snapshots import image_from_snapshot
from image_service.domain.event import START, Event, EventType, Position, event_id
from image_service.models import EventRow, IdentityRow, PositionRow

_NAMES: Final = tuple(EventType)
"""A version may meet types that a later one has recorded: it leaves such events out."""


class oldest_transaction(GenericFunction[Any]):  # noqa: N801 — SQLAlchemy names functions in lower case
    """The oldest transaction that may still commit: no event of an older one can become visible any more."""

    type = BigInteger()
    inherit_cache = True


@compiles(oldest_transaction, "postgresql")
def _postgresql(element: oldest_transaction, compiler: SQLCompiler, **options: object) -> str:  # noqa: ARG001 — SQLAlchemy's signature
    return "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"


@compiles(oldest_transaction, "sqlite")
def _sqlite(element: oldest_transaction, compiler: SQLCompiler, **options: object) -> str:  # noqa: ARG001 — the same
    return "1"  # transactions commit one at a time, and all of them have the number 0


POSITION: Final = tuple_(EventRow.transaction_id, EventRow.number)
SETTLED: Final[ColumnElement[bool]] = EventRow.transaction_id < oldest_transaction()
_EVENTS: Final = select(
    EventRow.number,
    EventRow.transaction_id,
    EventRow.type,
    EventRow.image_id,
    EventRow.happened_at,
    EventRow.snapshot,
    select(IdentityRow.id).scalar_subquery().label("database"),
    SETTLED.cast(Boolean).label("settled"),
).order_by(EventRow.transaction_id, EventRow.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """The next events of the log."""

    events: Sequence[Event]
    """In order, without gaps."""
    unsettled: bool
    """Whether further ones must wait, because an earlier one may still become visible: ask again in a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A process's right to pass events on, until it ends."""

    number: int
    """For fencing."""
    position: Position
    """Of the last event that was passed on."""


class EventStatements(Repository):
    """Queries on events, each a single statement."""

    async def after(
        self,
        position: Position,
        *,
        limit: int,
        image_id: UUID | None = None,
        types: Collection[EventType] | None = None,
    ) -> EventPage:
        """The next events after a position, in order and without gaps.

        Args:
            position: Of an event of this database, or ``START``.
            limit: The most events to return.
            image_id: Only events of this image.
            types: Only events of these types.
        """
        conditions: list[ColumnElement[bool]] = [tuple_(*map(number, position)) < POSITION]
        conditions += [] if image_id is None else [EventRow.image_id == image_id]
        conditions += [EventRow.type.in_([each.value for each in (_NAMES if types is None else types)])]
        rows = (await self._connection.execute(_EVENTS.where(*conditions).limit(limit))).all()
        settled = [row for row in rows if row.settled]
        return EventPage(events=[_event(row) for row in settled], unsettled=len(settled) < len(rows))

    async def before(self, position: Position | None, *, limit: int) -> Sequence[Event]:
        """The last settled events before a position, the newest first; None: before the end of the log."""
        conditions = [SETTLED] + ([] if position is None else [tuple_(*map(number, position)) > POSITION])
        newest_first = _EVENTS.order_by(None).order_by(EventRow.transaction_id.desc(), EventRow.number.desc())
        rows = (await self._connection.execute(newest_first.where(*conditions).limit(limit))).all()
        return [_event(row) for row in rows if row.type in _NAMES]

    async def head(self) -> Position:
        """The position of the newest settled event, or of the last purged one."""
        newest = (
            select(EventRow.transaction_id, EventRow.number)
            .where(SETTLED)
            .order_by(EventRow.transaction_id.desc(), EventRow.number.desc())
            .limit(1)
            .subquery()
        )
        purged = select(PositionRow.transaction_id, PositionRow.number).where(PositionRow.name == "purged")
        both = union_all(select(newest), purged).subquery()
        last = select(both).order_by(both.c.transaction_id.desc(), both.c.number.desc()).limit(1)
        return Position(*(await self._connection.execute(last)).one())

    async def by_number(self, numbers: Collection[int]) -> Mapping[int, Event]:
        """Events by their numbers."""
        rows = (await self._connection.execute(_EVENTS.where(EventRow.number.in_(numbers)))).all()
        return {row.number: _event(row) for row in rows if row.type in _NAMES}

    async def position(self, name: str) -> Position:
        """How far the log has been passed on, or purged.

        Args:
            name: ``purged``, ``webhooks`` or ``exchange``.
        """
        row = (await self._connection.execute(select(PositionRow).where(PositionRow.name == name))).first()
        return START if row is None else Position(row.transaction_id, row.number)

    async def is_possible(self, position: Position) -> bool:
        """Whether this database can have given an event this position.

        After a restore it may not have, or not yet: its transactions may have smaller numbers than those before.
        """
        statement = select(literal(position.transaction, BigInteger) < oldest_transaction())
        return bool((await self._connection.execute(statement)).scalar_one())

    async def can_resume(self, position: Position) -> bool:
        """Whether there is a settled event at a position, or the last purged one was: none after it is missing."""
        this = tuple_(*map(number, position))
        settled = exists().where(this == POSITION, SETTLED)
        purged = tuple_(PositionRow.transaction_id, PositionRow.number)
        statement = select(PositionRow.name).where(
            PositionRow.name == "purged", purged <= this, or_(purged == this, settled)
        )
        return (await self._connection.execute(statement)).first() is not None

    async def lease(self, name: str, *, seconds: float) -> Lease | None:
        """Lease the right to pass events on. None: another process holds it."""
        statement = (
            update(PositionRow)
            .where(
                PositionRow.name == name,
                (PositionRow.lease_until.is_(None)) | (PositionRow.lease_until <= now()),
            )
            .values(lease_until=in_seconds(seconds), lease=PositionRow.lease + 1)
            .returning(PositionRow.lease, PositionRow.transaction_id, PositionRow.number)
        )
        row = (await self._connection.execute(statement)).first()
        return None if row is None else Lease(number=row.lease, position=Position(row.transaction_id, row.number))

    async def advance(self, name: str, lease: int, position: Position, *, seconds: float) -> bool:
        """Record how far events have been passed on, and extend the lease. False: it is lost.

        Args:
            name: See ``position``.
            lease: The lease's number.
            position: Of the last event that was passed on.
            seconds: How long the lease lasts from now on; 0 gives it up.
        """
        return await self._changed(
            update(PositionRow)
            .where(PositionRow.name == name, PositionRow.lease == lease, PositionRow.lease_until > now())
            .values(
                transaction_id=position.transaction,
                number=position.number,
                lease_until=in_seconds(seconds) if seconds else None,
            )
        )


def position_of_row(row: AnyRow) -> Position:
    """The position of an event's row."""
    return Position(row.transaction_id, row.number)


def _event(row: AnyRow) -> Event:
    position = position_of_row(row)
    snapshot: Mapping[str, Any] = row.snapshot
    about = row.image_id is not None
    webhook_id = snapshot.get("webhook_id")
    return Event(
        id=event_id(row.database, position),
        position=position,
        type=EventType(row.type),
        happened_at=row.happened_at,
        image_id=row.image_id,
        image=image_from_snapshot(row.image_id, snapshot) if about else None,
        facts={} if about else snapshot,
        metadata=snapshot.get("client_metadata") if about else None,
        webhook_id=UUID(webhook_id) if webhook_id else None,
    )


def number(value: int) -> ColumnElement[int]:
    """A part of a position as PostgreSQL compares it."""
    return literal(value, BigInteger)
