"""Queries on deliveries of events to webhook endpoints: creating, claiming, finishing and repeating them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, literal, or_, select, update

from image_service.database.clock import now
from image_service.database.delivery_claims import (
    CLAIM_OF_ALL,
    CLAIM_OF_ENDPOINT,
    ENDPOINTS_WITH_DUE,
    sending_parameters,
)
from image_service.database.delivery_results import Finished, record_failure, record_success
from image_service.database.delivery_views import (
    BACKLOG,
    WORK,
    WebhookBacklog,
    WebhookWork,
    attempts_of,
    backlog_of,
    deliveries_from,
    deliveries_of,
)
from image_service.database.dialect import insert_if_new, insert_or_update
from image_service.database.events import EventStatements
from image_service.database.repository import Repository
from image_service.database.rows import AnyRow
from image_service.database.webhooks import WebhookRepository
from image_service.domain.event import Event, Position
from image_service.domain.webhook import Webhook
from image_service.domain.webhook_delivery import (
    ClaimedDelivery,
    DeliveryAttempt,
    DeliveryResult,
    DeliveryStatus,
    WebhookDelivery,
)
from image_service.models import DeliveryRow, PositionRow, WebhookRow

MAX_EVENTS: Final = 200
"""Events that one transaction passes on."""
MAX_DELIVERIES: Final = 1000
"""Deliveries that it creates, more or less: those of an event are created together."""

_NEW: Final[dict[str, Any]] = {
    "status": DeliveryStatus.PENDING.value,
    "attempt": 0,
    "tries": 0,
    "due_at": now(),
    "created_at": now(),
}
_AGAIN: Final[dict[str, Any]] = {
    "status": DeliveryStatus.PENDING.value,
    # A process that still makes an earlier attempt finds its claim lost.
    "attempt": DeliveryRow.attempt + 1,
    "tries": 0,
    "due_at": now(),
    "lease_until": None,
    "finished_at": None,
}
_NOT_CLAIMED: Final = or_(DeliveryRow.lease_until.is_(None), DeliveryRow.lease_until <= now())


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched:
    """What a transaction passed on."""

    events: int
    deliveries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a transaction of a replay did."""

    deliveries: int
    """Those that are sent again."""
    before: Position | None
    """Where the next one goes on; None: all are done."""


class DeliveryStatements(Repository):
    """Queries on deliveries that are a single statement."""

    async def work(self) -> WebhookWork:
        """What there is to do now. Cheap, also where there are no endpoints."""
        row = (await self._connection.execute(WORK)).one()
        return WebhookWork(registered=bool(row.registered), new=bool(row.new), due=bool(row.due), ended=bool(row.ended))

    async def backlog(self) -> WebhookBacklog:
        """How endpoints and deliveries are doing."""
        return backlog_of((await self._connection.execute(BACKLOG)).one())

    async def complete(self, claim: ClaimedDelivery, attempt: DeliveryAttempt) -> bool:
        """Record that a delivery has succeeded; returns whether the claim was still held. Safe to repeat."""
        return await record_success(self._connection, claim, attempt)

    async def end_of_disabled(self, *, limit: int) -> int:
        """End pending deliveries to endpoints that are disabled, as failed; returns how many.

        Otherwise they would keep their events for ever. A replay sends them again.
        """
        ended = (
            select(DeliveryRow.id)
            .join(WebhookRow, WebhookRow.id == DeliveryRow.webhook_id)
            .where(WebhookRow.disabled_at.is_not(None), DeliveryRow.due_at.is_not(None))
            .limit(limit)
        )
        statement = (
            update(DeliveryRow)
            .where(DeliveryRow.id.in_(ended), DeliveryRow.due_at.is_not(None))
            .values(status=DeliveryStatus.FAILED.value, due_at=None, lease_until=None, finished_at=now())
        )
        return (await self._connection.execute(statement)).rowcount

    async def replay_one(self, webhook_id: UUID, delivery_id: int) -> bool:
        """Send a delivery again now, whatever its result. False: there is none, or it is being sent.

        Args:
            webhook_id: The endpoint that it must be for.
            delivery_id: The delivery.
        """
        statement = update(DeliveryRow).where(
            DeliveryRow.id == delivery_id, DeliveryRow.webhook_id == webhook_id, _NOT_CLAIMED
        )
        return await self._changed(statement.values(_AGAIN))


class DeliveryRepository(DeliveryStatements):
    """All queries on deliveries."""

    async def dispatch(self) -> Dispatched | None:
        """Create the deliveries of the next settled events. None: another process does it, or there are none.

        Events that happen while an endpoint is registered may reach it or not; those after its registration was
        answered do.
        """
        position = await self._locked_position()
        if position is None:
            return None
        # In this order: an endpoint that is not read is registered after all of these events were recorded.
        events = (await EventStatements(self._connection).after(position, limit=MAX_EVENTS)).events
        webhooks = await WebhookRepository(self._connection).all(enabled=True) if events else []
        done, wanted = _wanted(events, webhooks)
        if not done or not await self._advance(position, done[-1].position):
            return None
        if wanted:
            await self._connection.execute(
                insert_if_new(self._connection.dialect.name, DeliveryRow).values(_NEW), wanted
            )
        return Dispatched(events=len(done), deliveries=len(wanted))

    async def skip(self) -> bool:
        """Pass over all settled events if no endpoint is enabled; returns whether it did."""
        position = await self._locked_position()
        if position is None:
            return False
        # In this order; see ``dispatch``.
        head = await EventStatements(self._connection).head()
        if head <= position or await WebhookRepository(self._connection).all(enabled=True):
            return False
        return await self._advance(position, head)

    async def claim(self, in_flight: Mapping[UUID, int], *, each: int, lease: float) -> Sequence[ClaimedDelivery]:
        """Claim deliveries that are due, of each endpoint those that are due the longest.

        Args:
            in_flight: How many deliveries this process is sending to each endpoint.
            each: The most that it may send to one at once. To one that is failing, it is one.
            lease: Seconds after which another process may claim what has no result by then.
        """
        if self._connection.dialect.name == "postgresql":
            parameters = {**sending_parameters(in_flight), "each": each, "lease": lease}
            rows: Sequence[AnyRow] = (await self._connection.execute(CLAIM_OF_ALL, parameters)).all()
        else:
            rows = await self._claim_of_each(in_flight, each=each, lease=lease)
        if not rows:
            return []
        webhooks = {webhook.id: webhook for webhook in await WebhookRepository(self._connection).all(enabled=True)}
        events = await EventStatements(self._connection).by_number({row.event_number for row in rows})
        return [
            ClaimedDelivery(
                id=row.id,
                attempt=row.attempt,
                tries=row.tries,
                webhook=webhooks[row.webhook_id],
                event=events[row.event_number],
            )
            for row in rows
            # Left until the lease ends: an endpoint disabled meanwhile, an event of a type of a later version.
            if row.webhook_id in webhooks and row.event_number in events
        ]

    async def finish(self, claim: ClaimedDelivery, attempt: DeliveryAttempt, result: DeliveryResult) -> Finished:
        """Record an attempt and what follows from it. A second call changes nothing.

        An endpoint that is gone, or has failed for ``DISABLED_AFTER``, is disabled.
        """
        if result.status is DeliveryStatus.DELIVERED:
            return Finished(held=await self.complete(claim, attempt), disabled=None)
        return await record_failure(self._connection, claim, attempt, result)

    async def of_webhook(
        self, webhook_id: UUID, *, limit: int, before: int | None = None, status: DeliveryStatus | None = None
    ) -> Sequence[WebhookDelivery]:
        """The deliveries to an endpoint with their attempts, that of the newest event first.

        Args:
            webhook_id: The endpoint.
            limit: The most to return.
            before: The delivery after which to go on.
            status: Only those with this status.
        """
        page = deliveries_of(webhook_id, limit=limit, before=before, status=status)
        rows: Sequence[AnyRow] = (await self._connection.execute(page)).all()
        attempts: Sequence[AnyRow] = (await self._connection.execute(attempts_of([row.id for row in rows]))).all()
        return deliveries_from(rows, attempts)

    async def replay_since(
        self, webhook: Webhook, since: datetime, *, before: Position | None = None, limit: int = MAX_EVENTS
    ) -> Replayed:
        """Send an endpoint all events again that it wants and that happened since a time, the newest first.

        Those of which it has no delivery, because it was disabled, are sent, too. Those that are being sent are not
        sent again.

        Args:
            webhook: The endpoint.
            since: The time.
            before: Where to go on: what the call before returned.
            limit: Events to look at in this transaction.
        """
        events = await EventStatements(self._connection).before(before, limit=limit)
        recent = [event for event in events if event.happened_at >= since]
        wanted = [_delivery(webhook, event) for event in recent if webhook.wants(event)]
        if wanted:
            statement = insert_or_update(
                self._connection.dialect.name,
                DeliveryRow,
                key=("webhook_id", "event_number"),
                changes=_AGAIN,
                where=_NOT_CLAIMED,
            )
            await self._connection.execute(statement.values(_NEW), wanted)
        more = len(events) == limit and len(recent) == limit
        return Replayed(deliveries=len(wanted), before=events[-1].position if more else None)

    async def _locked_position(self) -> Position | None:
        """How far events are passed on, locked on PostgreSQL. None: another process has locked it."""
        statement = select(PositionRow.transaction_id, PositionRow.number).where(PositionRow.name == "webhooks")
        row = (await self._connection.execute(statement.with_for_update(skip_locked=True))).first()
        return None if row is None else Position(*row)

    async def _advance(self, since: Position, to: Position) -> bool:
        """Record how far events are passed on; False: another process has."""
        return await self._changed(
            update(PositionRow)
            .where(
                PositionRow.name == "webhooks",
                PositionRow.transaction_id == literal(since.transaction, BigInteger),
                PositionRow.number == literal(since.number, BigInteger),
            )
            .values(transaction_id=to.transaction, number=to.number)
        )

    async def _claim_of_each(self, in_flight: Mapping[UUID, int], *, each: int, lease: float) -> Sequence[AnyRow]:
        claimed: list[AnyRow] = []
        for row in (await self._connection.execute(ENDPOINTS_WITH_DUE)).all():
            room = (each if row.failing_since is None else 1) - in_flight.get(row.id, 0)
            if room > 0:
                parameters = {"webhook": row.id, "room": room, "lease": lease}
                claimed += (await self._connection.execute(CLAIM_OF_ENDPOINT, parameters)).all()
        return claimed


def _wanted(
    events: Sequence[Event], webhooks: Sequence[Webhook]
) -> tuple[Sequence[Event], Sequence[Mapping[str, object]]]:
    """Returns the events that one transaction passes on, and the deliveries of them."""
    wanted: list[Mapping[str, object]] = []
    for at, event in enumerate(events):
        if len(wanted) >= MAX_DELIVERIES:
            return events[:at], wanted
        wanted += [_delivery(webhook, event) for webhook in webhooks if webhook.wants(event)]
    return events, wanted


def _delivery(webhook: Webhook, event: Event) -> Mapping[str, object]:
    return {"webhook_id": webhook.id, "event_number": event.position.number}
