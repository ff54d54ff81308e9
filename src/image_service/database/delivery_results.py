"""Records attempts at deliveries, and what follows from them for the delivery and for its endpoint."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Integer, String, Text, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from image_service.database.clock import in_seconds, now
from image_service.database.dialect import insert_if_new
from image_service.database.webhooks import WebhookRepository
from image_service.domain.delivery_schedule import DISABLED_AFTER
from image_service.domain.webhook_delivery import ClaimedDelivery, DeliveryAttempt, DeliveryResult, DeliveryStatus
from image_service.models import DeliveryAttemptRow, DeliveryRow, WebhookRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What was recorded of an attempt."""

    held: bool
    """Whether the delivery has its result. Otherwise the claim was lost: another process makes the delivery."""
    disabled: str | None
    """Why its endpoint was disabled; None: it was not."""


async def record_result(
    connection: AsyncConnection, claim: ClaimedDelivery, attempt: DeliveryAttempt, result: DeliveryResult
) -> Finished:
    """Record an attempt and what follows from it, in the caller's transaction. A second call changes nothing.

    An endpoint that is gone, or has failed for ``DISABLED_AFTER``, is disabled.
    """
    # The endpoint first: so does its removal, and two that lock the same rows in another order wait for each other.
    disabled = await _note(connection, claim.webhook.id, attempt, result)
    pending = result.status is DeliveryStatus.PENDING
    statement = (
        update(DeliveryRow)
        .where(DeliveryRow.id == claim.id, DeliveryRow.attempt == claim.attempt, DeliveryRow.lease_until.is_not(None))
        .values(
            status=result.status.value,
            tries=claim.tries + 1,
            due_at=in_seconds(result.retry_in or 0) if pending else None,
            lease_until=None,
            finished_at=None if pending else now(),
        )
    )
    held = bool((await connection.execute(statement)).rowcount)
    await _log(connection, claim, attempt)
    return Finished(held=held, disabled=disabled)


async def _note(
    connection: AsyncConnection, webhook_id: UUID, attempt: DeliveryAttempt, result: DeliveryResult
) -> str | None:
    """Record what an attempt says about its endpoint; returns why it was disabled, if it was."""
    webhooks = WebhookRepository(connection)
    if result.status is DeliveryStatus.DELIVERED:
        await webhooks.mark_working(webhook_id)
        return None
    await webhooks.mark_failing(webhook_id)
    if result.pause is not None:
        await connection.execute(
            update(WebhookRow).where(WebhookRow.id == webhook_id).values(paused_until=in_seconds(result.pause))
        )
    last = f"status {attempt.status}" if attempt.error is None else attempt.error
    reason = "It answered 410 (Gone)." if result.gone else f"It has failed for three days, the last time: {last}."
    disabled = await webhooks.disable(webhook_id, reason, failing_for=None if result.gone else DISABLED_AFTER)
    return reason if disabled else None


async def _log(connection: AsyncConnection, claim: ClaimedDelivery, attempt: DeliveryAttempt) -> None:
    """Record an attempt, unless it is recorded or its delivery is deleted."""
    values = {
        "delivery_id": DeliveryRow.id,
        "attempt": literal(claim.attempt),
        "made_at": now(),
        "milliseconds": literal(attempt.milliseconds),
        "status": literal(attempt.status, Integer),
        "error": literal(attempt.error, String),
        "answer": literal(attempt.answer, Text),
    }
    new = select(*values.values()).where(DeliveryRow.id == claim.id)
    statement = insert_if_new(connection.dialect.name, DeliveryAttemptRow)
    await connection.execute(statement.from_select(list(values), new, include_defaults=False))
