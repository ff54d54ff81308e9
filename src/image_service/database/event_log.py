"""Records events: in the statement that makes the change, or in its transaction."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import CTE, BigInteger, ColumnElement, Insert, Select, String, bindparam, insert, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate
from sqlalchemy.sql.functions import GenericFunction

from image_service.database.clock import now
from image_service.database.snapshots import COLUMNS, image_snapshot, snapshot_of, thumbnails_of
from image_service.domain.event import EventType
from image_service.models import EventRow, ImageRow, ThumbnailRow

SNAPSHOT_COLUMNS: Final = (ImageRow.id, ImageRow.event_transaction, *(getattr(ImageRow, name) for name in COLUMNS))
"""What a change must return for ``with_event``."""


class current_transaction(GenericFunction[Any]):  # noqa: N801 — SQLAlchemy names functions in lower case
    """The number of the transaction, or a larger one that is given; see ``domain.event.Position``.

    A transaction that waits for an image may have got its number before the one that it waits for. The events of an
    image are in order all the same, because each has at least the number of those before. None is missed: a reader goes
    past a number only when all transactions up to it have ended, this one included.
    """

    type = BigInteger()
    inherit_cache = True


def with_event(
    change: ReturningInsert[Any] | ReturningUpdate[Any],
    event: EventType,
    *,
    thumbnails: Callable[[CTE], Insert] | None = None,
) -> Select[Any]:
    """A change of images and their events in one statement of PostgreSQL. It returns the ids of the changed images.

    Args:
        change: Returns ``SNAPSHOT_COLUMNS``.
        event: What happened.
        thumbnails: Gives the statement that records the thumbnails of the one changed image; None: there are only those
            recorded before.
    """
    changed = change.cte("changed")
    if thumbnails is None:
        recorded = select(thumbnails_of(ThumbnailRow.__table__.c)).where(ThumbnailRow.image_id == changed.c.id)
        files = recorded.correlate(changed)
    else:
        made = thumbnails(changed).returning(*ThumbnailRow.__table__.c).cte("made")
        files = select(thumbnails_of(made.c))
    snapshot = snapshot_of(changed.c, files.scalar_subquery())
    recording = _record(_event(event, changed.c.id, changed.c.event_transaction, snapshot).select_from(changed))
    return select(changed.c.id).add_cte(recording.cte("recorded"))


async def record_events(connection: AsyncConnection, event: EventType, image_ids: Collection[UUID]) -> None:
    """Record an event of images as they are now, in the transaction that changed them."""
    await connection.execute(_OF_IMAGES[event], {"images": list(image_ids)})


async def record_fact(
    connection: AsyncConnection, event: EventType, facts: Mapping[str, Any], *, only: UUID | None = None
) -> None:
    """Record an event that is about no image, in the transaction that made it true.

    Args:
        connection: The caller's transaction.
        event: What happened.
        facts: What the event tells.
        only: The only webhook endpoint that gets it; None: all that want its type.
    """
    snapshot = dict(facts) if only is None else {**facts, "webhook_id": str(only)}
    await connection.execute(
        insert(EventRow).values(
            type=event.value, happened_at=now(), transaction_id=current_transaction(0), snapshot=snapshot
        )
    )


def _event(event: EventType, image_id: Any, transaction: Any, snapshot: ColumnElement[Any]) -> Select[Any]:  # noqa: ANN401 — columns of any table
    return select(literal_column(f"'{event}'", String), image_id, now(), transaction, snapshot)


def _record(events: Select[Any]) -> Insert:
    columns = ["type", "image_id", "happened_at", "transaction_id", "snapshot"]
    return insert(EventRow).from_select(columns, events, include_defaults=False)


def _of_images(event: EventType) -> Insert:
    images = _event(event, ImageRow.id, current_transaction(ImageRow.event_transaction), image_snapshot())
    return _record(images.where(ImageRow.id.in_(bindparam("images", expanding=True))).order_by(ImageRow.id))


_OF_IMAGES: Final = {event: _of_images(event) for event in EventType}
"""Built once: SQLAlchemy takes longer to build one than to run it. Parameter: images, a list of ids."""


@compiles(current_transaction, "postgresql")
def _postgresql(element: current_transaction, compiler: SQLCompiler, **options: object) -> str:
    return f"greatest({compiler.process(element.clauses, **options)}, pg_current_xact_id()::text::bigint)"


@compiles(current_transaction, "sqlite")
def _sqlite(element: current_transaction, compiler: SQLCompiler, **options: object) -> str:  # noqa: ARG001 — SQLAlchemy's signature
    return "0"
