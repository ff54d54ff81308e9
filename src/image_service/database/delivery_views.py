"""What there is to do about webhooks, and the results of deliveries: queries that only read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Final
from uuid import UUID

from sqlalchemy import Select, exists, func, select, tuple_

from image_service.database.clock import now
from image_service.database.delivery_claims import ALIVE, HAS_DUE
from image_service.database.events import oldest_transaction
from image_service.database.rows import AnyRow
from image_service.domain.event import Position, event_id
from image_service.domain.webhook_delivery import DeliveryAttempt, DeliveryStatus, WebhookDelivery
from image_service.models import DeliveryAttemptRow, DeliveryRow, EventRow, IdentityRow, PositionRow, WebhookRow

COUNTED: Final = 10_000
"""Pending deliveries beyond these are not counted."""

_PASSED_ON: Final = [
    select(column).where(PositionRow.name == "webhooks").scalar_subquery()
    for column in (PositionRow.transaction_id, PositionRow.number)
]
_NEW: Final = (
    select(EventRow.happened_at)
    .where(tuple_(EventRow.transaction_id, EventRow.number) > tuple_(*_PASSED_ON))
    .order_by(EventRow.transaction_id, EventRow.number)
    .limit(1)
)
"""When the first event happened that has not been passed on to the endpoints.

Not an EXISTS: for one event of many, PostgreSQL would read the whole log until it has found it.
"""

_ENABLED: Final = WebhookRow.disabled_at.is_(None)
_PENDING: Final = DeliveryRow.due_at.is_not(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookWork:
    """What there is to do now."""

    registered: bool
    """Whether there is an endpoint that is enabled."""
    new: bool
    """Whether there are events that have not been passed on to the endpoints."""
    due: bool
    """Whether something is to be sent."""
    ended: bool
    """Whether a disabled endpoint has pending deliveries."""


WORK: Final = select(
    exists(select(WebhookRow.id).where(_ENABLED)).label("registered"),
    _NEW.where(EventRow.transaction_id < oldest_transaction()).scalar_subquery().is_not(None).label("new"),
    exists(select(WebhookRow.id).where(*ALIVE, HAS_DUE)).label("due"),
    exists(select(DeliveryRow.id).where(DeliveryRow.webhook_id == WebhookRow.id, ~_ENABLED, _PENDING)).label("ended"),
)
"""One row with the values of ``WebhookWork``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookBacklog:
    """How webhooks are doing."""

    working: int
    """Endpoints that are enabled, and whose last delivery succeeded."""
    failing: int
    """Endpoints that are enabled, and whose last delivery failed."""
    disabled: int
    pending: int
    """Deliveries that are to be sent, counted up to ``COUNTED``."""
    overdue: float
    """Seconds for which the first delivery to an endpoint that works, or the first event without deliveries, waits."""


_first_due: Final = (
    select(func.min(DeliveryRow.due_at))
    .where(DeliveryRow.webhook_id == WebhookRow.id, _PENDING)
    .correlate(WebhookRow)
    .scalar_subquery()
)
BACKLOG: Final = select(
    select(func.count()).where(_ENABLED, WebhookRow.failing_since.is_(None)).scalar_subquery().label("working"),
    select(func.count()).where(_ENABLED, WebhookRow.failing_since.is_not(None)).scalar_subquery().label("failing"),
    select(func.count()).where(~_ENABLED).scalar_subquery().label("disabled"),
    select(func.count())
    .select_from(select(DeliveryRow.id).where(_PENDING).limit(COUNTED).subquery())
    .scalar_subquery()
    .label("pending"),
    select(func.min(_first_due)).where(*ALIVE, WebhookRow.failing_since.is_(None)).scalar_subquery().label("due_at"),
    _NEW.scalar_subquery().label("happened_at"),
    now().label("now"),
)
"""One row, for ``backlog_of``."""


def backlog_of(row: AnyRow) -> WebhookBacklog:
    """Returns what the row of ``BACKLOG`` says."""
    waiting: list[datetime] = [] if row.due_at is None else [row.due_at]
    if row.happened_at is not None and row.working + row.failing:
        waiting.append(row.happened_at)
    return WebhookBacklog(
        working=row.working,
        failing=row.failing,
        disabled=row.disabled,
        pending=row.pending,
        overdue=max([0.0, *((row.now - since).total_seconds() for since in waiting)]),
    )


def deliveries_of(
    webhook_id: UUID, *, limit: int, before: int | None, status: DeliveryStatus | None
) -> Select[*tuple[object, ...]]:
    """Returns the query of the last deliveries to an endpoint, the newest event first."""
    conditions = [DeliveryRow.webhook_id == webhook_id]
    if before is not None:
        number = select(DeliveryRow.event_number).where(DeliveryRow.id == before).scalar_subquery()
        conditions.append(DeliveryRow.event_number < number)
    if status is not None:
        conditions.append(DeliveryRow.status == status.value)
    return (
        select(
            DeliveryRow.id,
            DeliveryRow.status,
            DeliveryRow.tries,
            DeliveryRow.due_at,
            DeliveryRow.created_at,
            DeliveryRow.finished_at,
            EventRow.number,
            EventRow.transaction_id,
            EventRow.type,
            EventRow.image_id,
            select(IdentityRow.id).scalar_subquery().label("database"),
        )
        .join(EventRow, EventRow.number == DeliveryRow.event_number)
        .where(*conditions)
        .order_by(DeliveryRow.event_number.desc())
        .limit(limit)
    )


def attempts_of(delivery_ids: Sequence[int]) -> Select[*tuple[object, ...]]:
    """Returns the query of the attempts at deliveries."""
    return (
        select(*DeliveryAttemptRow.__table__.c)
        .where(DeliveryAttemptRow.delivery_id.in_(delivery_ids))
        .order_by(DeliveryAttemptRow.delivery_id, DeliveryAttemptRow.attempt)
    )


def deliveries_from(rows: Iterable[AnyRow], attempts: Iterable[AnyRow]) -> Sequence[WebhookDelivery]:
    """Returns the deliveries that the rows of both queries show."""
    made = {number: [*each] for number, each in groupby(attempts, key=lambda row: int(row.delivery_id))}
    return [
        WebhookDelivery(
            id=row.id,
            event_id=event_id(row.database, Position(row.transaction_id, row.number)),
            event_type=row.type,
            image_id=row.image_id,
            status=DeliveryStatus(row.status),
            tries=row.tries,
            due_at=row.due_at,
            created_at=row.created_at,
            finished_at=row.finished_at,
            attempts=[
                DeliveryAttempt(
                    milliseconds=each.milliseconds,
                    status=each.status,
                    error=each.error,
                    answer=each.answer,
                    made_at=each.made_at,
                )
                for each in made.get(row.id, ())
            ],
        )
        for row in rows
    ]
