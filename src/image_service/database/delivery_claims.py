"""Claims on deliveries: the statements that choose what is sent next.

Each endpoint has its own room, so that none that is slow or dead takes the place of another.
"""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    Uuid,
    bindparam,
    case,
    exists,
    func,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import aliased

from image_service.database.clock import in_seconds, now
from image_service.models import DeliveryRow, WebhookRow

ALIVE: Final[tuple[ColumnElement[bool], ...]] = (
    WebhookRow.disabled_at.is_(None),
    or_(WebhookRow.paused_until.is_(None), WebhookRow.paused_until <= now()),
)
"""The conditions that something may be sent to an endpoint."""

_DUE = aliased(DeliveryRow, name="due")
_IS_DUE: Final = (_DUE.webhook_id == WebhookRow.id, _DUE.due_at <= now())

HAS_DUE: Final = exists(select(_DUE.id).where(*_IS_DUE))
"""The condition that an endpoint has deliveries that are due."""

ENDPOINTS_WITH_DUE: Final = select(WebhookRow.id, WebhookRow.failing_since).where(*ALIVE, HAS_DUE)
"""The endpoints that something can be sent to now."""


def _claim(chosen: Any) -> Any:  # noqa: ANN401 — any subquery of ids; so many columns have no shorter type
    return (
        update(DeliveryRow)
        .where(DeliveryRow.id.in_(chosen))
        .values(
            attempt=DeliveryRow.attempt + 1,
            lease_until=in_seconds(bindparam("lease")),
            due_at=in_seconds(bindparam("lease")),
        )
        .returning(
            DeliveryRow.id, DeliveryRow.attempt, DeliveryRow.tries, DeliveryRow.webhook_id, DeliveryRow.event_number
        )
    )


CLAIM_OF_ENDPOINT: Final = _claim(
    select(_DUE.id)
    .where(_DUE.webhook_id == bindparam("webhook"), _DUE.due_at <= now())
    .order_by(_DUE.due_at, _DUE.event_number)
    .limit(bindparam("room", type_=Integer))
)
"""Claim the due deliveries of one endpoint. Parameters: webhook, room, lease."""


def _claim_of_all() -> Any:  # noqa: ANN401 — the same
    sending = (
        func.unnest(bindparam("sending", type_=ARRAY(Uuid())), bindparam("numbers", type_=ARRAY(Integer())))
        .table_valued("webhook", "number", name="sending")
        .render_derived()
    )
    most = case((WebhookRow.failing_since.is_not(None), 1), else_=bindparam("each", type_=Integer))
    due = (
        select(_DUE.id)
        .where(*_IS_DUE)
        .order_by(_DUE.due_at, _DUE.event_number)
        .limit(func.greatest(most - func.coalesce(sending.c.number, 0), 0))
        .with_for_update(skip_locked=True)
        .correlate(WebhookRow, sending)
        .lateral("next")
    )
    endpoints = WebhookRow.__table__.outerjoin(sending, sending.c.webhook == WebhookRow.id).join(due, true())
    # A common table expression that locks rows is run once, however the rest is planned.
    chosen = select(due.c.id).select_from(endpoints).where(*ALIVE).cte("chosen")
    return _claim(select(chosen.c.id))


CLAIM_OF_ALL: Final = _claim_of_all()
"""Claim the due deliveries of all endpoints in one statement of PostgreSQL.

Parameters: sending and numbers (endpoints, and how many deliveries are being sent to each), each (the most that may be,
to one that works), lease.
"""


def sending_parameters(in_flight: Mapping[UUID, int]) -> dict[str, Any]:
    """Returns the parameters of ``CLAIM_OF_ALL`` that say what is being sent already."""
    return {"sending": list(in_flight), "numbers": list(in_flight.values())}
