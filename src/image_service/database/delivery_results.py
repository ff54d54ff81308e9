"""Records attempts at deliveries, and what follows from them for the delivery and for its endpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Insert, Integer, Select, String, Text, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from image_service.database.clock import in_seconds, now
from image_service.database.dialect import insert_if_new
from image_service.database.prepared import Prepared
from image_service.database.webhooks import WebhookRepository
from image_service.domain.delivery_schedule import DISABLED_AFTER
from image_service.domain.webhook_delivery import ClaimedDelivery, DeliveryAttempt, DeliveryResult, DeliveryStatus
from image_service.models import DeliveryAttemptRow, DeliveryRow, WebhookRow

_FINISH: Final = (
    update(DeliveryRow)
    .where(
        DeliveryRow.id == bindparam("delivery"),
        DeliveryRow.attempt == bindparam("held"),
        DeliveryRow.lease_until.is_not(None),
    )
    .values(
        status=bindparam("result"),
        tries=bindparam("made"),
        due_at=in_seconds(bindparam("due_in")),
        lease_until=None,
        finished_at=in_seconds(bindparam("finished_in")),
    )
)
"""Give the delivery its result, if its claim is still held."""

_WORKING: Final = (
    update(WebhookRow)
    .where(WebhookRow.id == bindparam("endpoint"), WebhookRow.failing_since.is_not(None))
    .values(failing_since=None)
)
_PAUSE: Final = (
    update(WebhookRow).where(WebhookRow.id == bindparam("endpoint")).values(paused_until=in_seconds(bindparam("pause")))
)


def _log(dialect: str) -> Insert:
    """Record an attempt, unless it is recorded or its delivery is deleted."""
    values = {
        "delivery_id": DeliveryRow.id,
        "attempt": bindparam("held", type_=Integer),
        "made_at": now(),
        "milliseconds": bindparam("took", type_=Integer),
        "status": bindparam("answered", type_=Integer),
        "error": bindparam("failed", type_=String),
        "answer": bindparam("body", type_=Text),
    }
    new = select(*values.values()).where(DeliveryRow.id == bindparam("delivery"))
    return insert_if_new(dialect, DeliveryAttemptRow).from_select(list(values), new, include_defaults=False)


_LOG: Final = {dialect: _log(dialect) for dialect in ("sqlite", "postgresql")}


def _delivered() -> Select[int]:
    finished = _FINISH.returning(DeliveryRow.id).cte("finished")
    return select(finished.c.id).add_cte(_LOG["postgresql"].cte("logged"), _WORKING.cte("working"))


_DELIVERED: Final = Prepared(_delivered())
"""All of a successful delivery in one statement of PostgreSQL. Returns the id, or nothing if the claim is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What was recorded of an attempt."""

    held: bool
    """Whether the delivery has its result. Otherwise the claim was lost: another process makes the delivery."""
    disabled: str | None
    """Why its endpoint was disabled; None: it was not."""


async def record_success(connection: AsyncConnection, claim: ClaimedDelivery, attempt: DeliveryAttempt) -> bool:
    """Record that a delivery has succeeded; returns whether the claim was still held. A second call changes nothing."""
    result = DeliveryResult(status=DeliveryStatus.DELIVERED)
    parameters = {**_finish(claim, result), **_attempt(claim, attempt), "endpoint": claim.webhook.id}
    if connection.dialect.name == "postgresql":
        return bool(await _DELIVERED.rows(connection, parameters))
    await connection.execute(_WORKING, {"endpoint": claim.webhook.id})
    return await _record(connection, claim, attempt, result)


async def record_failure(
    connection: AsyncConnection, claim: ClaimedDelivery, attempt: DeliveryAttempt, result: DeliveryResult
) -> Finished:
    """Record a failed attempt and what follows from it, in the caller's transaction. A second call changes nothing.

    An endpoint that is gone, or has failed for ``DISABLED_AFTER``, is disabled.
    """
    # The endpoint first: so does its removal, and two that lock the same rows in another order wait for each other.
    endpoint, webhooks = claim.webhook.id, WebhookRepository(connection)
    await webhooks.mark_failing(endpoint)
    if result.pause is not None:
        await connection.execute(_PAUSE, {"endpoint": endpoint, "pause": result.pause})
    last = f"status {attempt.status}" if attempt.error is None else attempt.error
    reason = "It answered 410 (Gone)." if result.gone else f"It has failed for three days, the last time: {last}."
    disabled = await webhooks.disable(endpoint, reason, failing_for=None if result.gone else DISABLED_AFTER)
    held = await _record(connection, claim, attempt, result)
    return Finished(held=held, disabled=reason if disabled else None)


async def _record(
    connection: AsyncConnection, claim: ClaimedDelivery, attempt: DeliveryAttempt, result: DeliveryResult
) -> bool:
    held = (await connection.execute(_FINISH, _finish(claim, result))).rowcount
    await connection.execute(_LOG[connection.dialect.name], _attempt(claim, attempt))
    return bool(held)


def _finish(claim: ClaimedDelivery, result: DeliveryResult) -> dict[str, Any]:
    pending = result.status is DeliveryStatus.PENDING
    return {
        "delivery": claim.id,
        "held": claim.attempt,
        "result": result.status.value,
        "made": claim.tries + 1,
        "due_in": (result.retry_in or 0.0) if pending else None,
        "finished_in": None if pending else 0.0,
    }


def _attempt(claim: ClaimedDelivery, attempt: DeliveryAttempt) -> Mapping[str, Any]:
    return {
        "delivery": claim.id,
        "held": claim.attempt,
        "took": attempt.milliseconds,
        "answered": attempt.status,
        "failed": attempt.error,
        "body": attempt.answer,
    }
