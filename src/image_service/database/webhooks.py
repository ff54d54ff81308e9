"""Queries on webhook endpoints."""

from collections.abc import Collection, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import case, delete, func, insert, literal, null, select, update

from image_service.database.clock import in_seconds, now
from image_service.database.event_log import record_fact
from image_service.database.repository import Repository
from image_service.database.rows import AnyRow
from image_service.domain.event import EventType
from image_service.domain.webhook import MAX_WEBHOOKS, Webhook, WebhookChange
from image_service.models import PositionRow, WebhookRow

_STILL_VALID: Final = WebhookRow.previous_until > now()
_COLUMNS: Final = (
    WebhookRow.id,
    WebhookRow.url,
    WebhookRow.types,
    WebhookRow.secret,
    case((_STILL_VALID, WebhookRow.previous_secret)).label("previous_secret"),
    case((_STILL_VALID, WebhookRow.previous_until)).label("previous_until"),
    WebhookRow.failing_since,
    WebhookRow.disabled_at,
    WebhookRow.disabled_reason,
    WebhookRow.created_at,
    WebhookRow.updated_at,
)
_ALL: Final = select(*_COLUMNS).order_by(WebhookRow.created_at, WebhookRow.id)
_NAMES: Final = frozenset(EventType)
_WORKING: Final[dict[str, Any]] = {"failing_since": None, "paused_until": None}
_ENABLED: Final[dict[str, Any]] = {"disabled_at": None, "disabled_reason": None, **_WORKING}


class WebhookStatements(Repository):
    """Queries on endpoints that are a single statement."""

    async def get(self, webhook_id: UUID) -> Webhook | None:
        """An endpoint, enabled or not."""
        row = (await self._connection.execute(_ALL.where(WebhookRow.id == webhook_id))).first()
        return None if row is None else _webhook(row)

    async def all(self, *, enabled: bool | None = None) -> Sequence[Webhook]:
        """All endpoints, the oldest first.

        Args:
            enabled: Only those that are, or are not; None: both.
        """
        statement = _ALL if enabled is None else _ALL.where((WebhookRow.disabled_at.is_(None)) == enabled)
        return [_webhook(row) for row in (await self._connection.execute(statement)).all()]

    async def rotate(self, webhook_id: UUID, secret: str, *, grace: float) -> Webhook | None:
        """Replace an endpoint's secret. None: there is no such endpoint.

        Args:
            webhook_id: The endpoint.
            secret: The new one.
            grace: Seconds for which the one before it signs deliveries, too.
        """
        return await self._updated(
            webhook_id, secret=secret, previous_secret=WebhookRow.secret, previous_until=in_seconds(grace)
        )

    async def mark_failing(self, webhook_id: UUID) -> None:
        """Record that a delivery has failed."""
        await self._connection.execute(
            update(WebhookRow)
            .where(WebhookRow.id == webhook_id, WebhookRow.failing_since.is_(None))
            .values(failing_since=now())
        )

    async def remove(self, webhook_id: UUID) -> bool:
        """Delete an endpoint with its deliveries. False: there is none."""
        removed = await self._connection.execute(delete(WebhookRow).where(WebhookRow.id == webhook_id))
        return bool(removed.rowcount)

    async def change(self, webhook_id: UUID, change: WebhookChange, *, reason: str = "") -> Webhook | None:
        """Change an endpoint. None: there is no such endpoint.

        Args:
            webhook_id: The endpoint.
            change: What to change.
            reason: Why it is disabled, if it is.
        """
        values: dict[str, Any] = {}
        if change.url is not None:
            values |= {"url": change.url, **_WORKING}
        if change.all_types or change.types is not None:
            values["types"] = null() if change.all_types else _types(change.types)
        if change.enabled is True:
            values |= _ENABLED
        elif change.enabled is False:
            values |= {
                "disabled_at": func.coalesce(WebhookRow.disabled_at, now()),
                "disabled_reason": func.coalesce(WebhookRow.disabled_reason, reason),
            }
        return await self._updated(webhook_id, **values)

    async def _updated(self, webhook_id: UUID, **values: Any) -> Webhook | None:  # noqa: ANN401 — of any column
        statement = update(WebhookRow).where(WebhookRow.id == webhook_id).values(updated_at=now(), **values)
        row = (await self._connection.execute(statement.returning(*_COLUMNS))).first()
        return None if row is None else _webhook(row)


class WebhookRepository(WebhookStatements):
    """All queries on endpoints."""

    async def add(
        self, webhook_id: UUID, *, url: str, types: Collection[EventType] | None, secret: str
    ) -> Webhook | None:
        """Record an endpoint. None: there are ``MAX_WEBHOOKS`` already.

        Args:
            webhook_id: Its id.
            url: Where it is.
            types: The types of events that it gets; None: all.
            secret: Signs deliveries to it.
        """
        # One at a time, so that two do not both take the last place.
        await self._connection.execute(select(PositionRow.name).where(PositionRow.name == "webhooks").with_for_update())
        values = {
            "id": literal(webhook_id, WebhookRow.id.type),
            "url": literal(url, WebhookRow.url.type),
            "types": literal(_types(types), WebhookRow.types.type),
            "secret": literal(secret, WebhookRow.secret.type),
            "created_at": now(),
            "updated_at": now(),
        }
        number = select(func.count()).select_from(WebhookRow).scalar_subquery()
        new = select(*values.values()).where(number < MAX_WEBHOOKS)
        statement = insert(WebhookRow).from_select(list(values), new, include_defaults=False).returning(*_COLUMNS)
        row = (await self._connection.execute(statement)).first()
        return None if row is None else _webhook(row)

    async def disable(self, webhook_id: UUID, reason: str, *, failing_for: float | None = None) -> bool:
        """Disable an endpoint that does not work, with the event that tells of it. False: nothing was changed.

        Args:
            webhook_id: The endpoint.
            reason: Why, for people.
            failing_for: Only if no delivery has succeeded for so many seconds; None: in any case.
        """
        conditions = [WebhookRow.id == webhook_id, WebhookRow.disabled_at.is_(None)]
        conditions += [] if failing_for is None else [WebhookRow.failing_since <= in_seconds(-failing_for)]
        statement = (
            update(WebhookRow)
            .where(*conditions)
            .values(disabled_at=now(), disabled_reason=reason, updated_at=now())
            .returning(WebhookRow.url)
        )
        url = (await self._connection.execute(statement)).scalar()
        if url is None:
            return False
        facts = {"id": str(webhook_id), "url": url, "reason": reason}
        await record_fact(self._connection, EventType.WEBHOOK_DISABLED, facts)
        return True

    async def test(self, webhook_id: UUID) -> Webhook | None:
        """Record an event that only this endpoint gets; returns the endpoint. None: there is no such endpoint.

        Nothing is recorded if it is disabled.
        """
        webhook = await self.get(webhook_id)
        if webhook is not None and webhook.enabled:
            facts = {"id": str(webhook_id), "url": webhook.url}
            await record_fact(self._connection, EventType.WEBHOOK_TEST, facts, only=webhook_id)
        return webhook


def _types(types: Collection[EventType] | None) -> list[str] | None:
    return None if types is None else [each.value for each in EventType if each in types]


def _webhook(row: AnyRow) -> Webhook:
    return Webhook(
        id=row.id,
        url=row.url,
        # A version may meet types that a later one knows.
        types=None if row.types is None else tuple(EventType(each) for each in row.types if each in _NAMES),
        secret=row.secret,
        previous_secret=row.previous_secret,
        previous_until=row.previous_until,
        failing_since=row.failing_since,
        disabled_at=row.disabled_at,
        disabled_reason=row.disabled_reason,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
