"""All queries on events, with those that keep the log in order: deleting old events, and taking over restored ones."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, and_, delete, exists, select, tuple_, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from image_service.database.clock import in_seconds
from image_service.database.events import POSITION, SETTLED, EventStatements, number, position_of_row
from image_service.database.rows import AnyRow
from image_service.domain.event import START, Position
from image_service.models import DeliveryRow, EventRow, PositionRow


class next_transaction(GenericFunction[Any]):  # noqa: N801 — SQLAlchemy names functions in lower case
    """A number that this server has given to no transaction yet whose changes are visible."""

    type = BigInteger()
    inherit_cache = True


@compiles(next_transaction, "postgresql")
def _postgresql(element: next_transaction, compiler: SQLCompiler, **options: object) -> str:  # noqa: ARG001 — SQLAlchemy's signature
    return "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


@compiles(next_transaction, "sqlite")
def _sqlite(element: next_transaction, compiler: SQLCompiler, **options: object) -> str:  # noqa: ARG001 — the same
    return "1"  # all transactions have the number 0


class EventRepository(EventStatements):
    """All queries on events."""

    async def take_over_restored(self) -> int:
        """Put events that were restored from another server's dump before all others; returns how many.

        Their transactions have numbers that this server is still to give, so that they would not settle, and new events
        would come before them. Their order among each other stays. All that was passed on before is looked at again.
        """
        restored = update(EventRow).where(EventRow.transaction_id >= next_transaction()).values(transaction_id=0)
        found = (await self._connection.execute(restored)).rowcount
        await self._connection.execute(
            update(PositionRow)
            .where(PositionRow.transaction_id >= next_transaction())
            .values(transaction_id=START.transaction, number=START.number)
        )
        return found

    async def purge(self, *, older_than: float, kept_after: Position | None, limit: int) -> int:
        """Delete old events, the oldest first; returns how many.

        Those with a delivery that is still to be made are kept.

        Args:
            older_than: Seconds since they happened.
            kept_after: Events after this position are kept however old they are; None: none are.
            limit: The most to delete, roughly.
        """
        deleted = 0
        last = START
        while deleted < limit:
            page = await self._oldest(last, older_than=older_than, limit=limit)
            old = [row for row in page if row.old and (kept_after is None or position_of_row(row) <= kept_after)]
            if unneeded := [row.number for row in old if not row.needed]:
                await self._connection.execute(delete(EventRow).where(EventRow.number.in_(unneeded)))
                deleted += len(unneeded)
                await self._note_purged(position_of_row(old[-1]))
            if len(old) < limit:
                break
            last = position_of_row(page[-1])
        return deleted

    async def _oldest(self, after: Position, *, older_than: float, limit: int) -> Sequence[AnyRow]:
        """The next events after a position: whether each is old, and still needed. No index is on their time."""
        delivery = exists().where(DeliveryRow.event_number == EventRow.number, DeliveryRow.due_at.is_not(None))
        statement = (
            select(
                EventRow.transaction_id,
                EventRow.number,
                and_(EventRow.happened_at <= in_seconds(-older_than), SETTLED).label("old"),
                delivery.label("needed"),
            )
            .where(tuple_(*map(number, after)) < POSITION)
            .order_by(EventRow.transaction_id, EventRow.number)
            .limit(limit)
        )
        return (await self._connection.execute(statement)).all()

    async def _note_purged(self, last: Position) -> None:
        purged = tuple_(PositionRow.transaction_id, PositionRow.number)
        await self._connection.execute(
            update(PositionRow)
            .where(PositionRow.name == "purged", purged < tuple_(*map(number, last)))
            .values(transaction_id=last.transaction, number=last.number)
        )
