"""Webhook endpoints: recording, changing and disabling them, on both databases."""

import asyncio
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from harness.rows import execute, in_transaction, recorded_events
from image_service.database import Database
from image_service.database.clock import in_seconds
from image_service.domain.event import EventType
from image_service.domain.webhook import MAX_WEBHOOKS, Webhook, WebhookChange
from image_service.models import WebhookRow

URL = "https://example.org/hook"
SECRET = "whsec_b2xk"  # noqa: S105  (of tests)
NEW_SECRET = "whsec_bmV3"  # noqa: S105  (the same)


async def add(database: Database, types: list[EventType] | None = None) -> Webhook:
    added = await in_transaction(database, lambda r: r.webhooks.add(uuid4(), url=URL, types=types, secret=SECRET))
    assert added is not None
    return added


async def found(database: Database, webhook_id: UUID) -> Webhook:
    async with database.statement() as repositories:
        webhook = await repositories.webhooks.get(webhook_id)
    assert webhook is not None
    return webhook


async def change(database: Database, webhook: Webhook, **changes: object) -> Webhook:
    async with database.statement() as repositories:
        changed = await repositories.webhooks.change(webhook.id, WebhookChange(**changes), reason="asked")  # type: ignore[arg-type]
    assert changed == await found(database, webhook.id)
    return changed


async def disable(database: Database, webhook: Webhook, failing_for: float | None = None) -> bool:
    return await in_transaction(
        database, lambda r: r.webhooks.disable(webhook.id, "It answered 410.", failing_for=failing_for)
    )


async def test_endpoints_are_read_as_they_were_added(database: Database) -> None:
    everything = await add(database)
    chosen = await add(database, [EventType.FAILED, EventType.DONE])
    assert (everything.url, everything.types, everything.secrets, everything.enabled) == (URL, None, (SECRET,), True)
    assert chosen.types == (EventType.DONE, EventType.FAILED)
    assert await in_transaction(database, lambda r: r.webhooks.all()) == [everything, chosen]
    assert [await found(database, each.id) for each in (everything, chosen)] == [everything, chosen]
    assert await in_transaction(database, lambda r: r.webhooks.get(uuid4())) is None


async def test_number_of_endpoints_is_limited_even_if_several_are_added_at_once(database: Database) -> None:
    for _ in range(MAX_WEBHOOKS - 1):
        await add(database)

    async def one_more() -> Webhook | None:
        return await in_transaction(database, lambda r: r.webhooks.add(uuid4(), url=URL, types=None, secret=SECRET))

    added = await asyncio.gather(*(one_more() for _ in range(4)))
    assert sum(each is not None for each in added) == 1
    assert len(await in_transaction(database, lambda r: r.webhooks.all())) == MAX_WEBHOOKS


async def test_only_what_is_given_is_changed(database: Database) -> None:
    webhook = await add(database, [EventType.DONE])
    moved = await change(database, webhook, url="https://example.org/other")
    assert (moved.url, moved.types, moved.secret) == ("https://example.org/other", (EventType.DONE,), SECRET)
    assert (await change(database, webhook, types=[EventType.FAILED])).types == (EventType.FAILED,)
    assert (await change(database, webhook, all_types=True)).types is None
    assert (await found(database, webhook.id)).url == moved.url
    async with database.statement() as repositories:
        assert await repositories.webhooks.change(uuid4(), WebhookChange(url=URL)) is None


async def test_disabled_on_request_keeps_its_first_reason_and_records_no_event(database: Database) -> None:
    webhook = await add(database)
    disabled = await change(database, webhook, enabled=False)
    assert (disabled.enabled, disabled.disabled_reason) == (False, "asked")
    assert await change(database, webhook, enabled=False) == await found(database, webhook.id)
    assert (await found(database, webhook.id)).disabled_at == disabled.disabled_at
    assert await in_transaction(database, lambda r: r.webhooks.all(enabled=False)) != []
    assert await in_transaction(database, lambda r: r.webhooks.all(enabled=True)) == []
    enabled = await change(database, webhook, enabled=True)
    assert (enabled.enabled, enabled.disabled_reason) == (True, None)
    assert await recorded_events(database) == []


async def test_previous_secret_signs_until_its_time_is_over(database: Database) -> None:
    webhook = await add(database)
    async with database.statement() as repositories:
        rotated = await repositories.webhooks.rotate(webhook.id, NEW_SECRET, grace=3600)
        assert await repositories.webhooks.rotate(uuid4(), NEW_SECRET, grace=3600) is None
    assert rotated is not None
    assert rotated.secrets == (NEW_SECRET, SECRET)
    assert rotated.previous_until is not None
    await execute(database, update(WebhookRow).values(previous_until=in_seconds(-1)))
    assert (await found(database, webhook.id)).secrets == (NEW_SECRET,)


async def test_failing_since_is_that_of_the_first_failure(database: Database) -> None:
    webhook = await add(database)
    await in_transaction(database, lambda r: r.webhooks.mark_failing(webhook.id))
    first = (await found(database, webhook.id)).failing_since
    await in_transaction(database, lambda r: r.webhooks.mark_failing(webhook.id))
    assert first is not None
    assert (await found(database, webhook.id)).failing_since == first


@pytest.mark.parametrize("failing_for", [None, 3600])
async def test_disabling_what_does_not_work_records_one_event(database: Database, failing_for: float | None) -> None:
    webhook, other = await add(database), await add(database)
    if failing_for is not None:
        await in_transaction(database, lambda r: r.webhooks.mark_failing(webhook.id))
        assert not await disable(database, webhook, failing_for)
        assert not await disable(database, other, failing_for)
        await execute(database, update(WebhookRow).values(failing_since=in_seconds(-failing_for)))
    assert await disable(database, webhook, failing_for)
    assert not await disable(database, webhook, failing_for)
    disabled = await found(database, webhook.id)
    assert (disabled.enabled, disabled.disabled_reason) == (False, "It answered 410.")
    [event] = await recorded_events(database)
    assert event.type is EventType.WEBHOOK_DISABLED
    assert event.facts == {"id": str(webhook.id), "url": URL, "reason": "It answered 410."}
    assert (other.wants(event), disabled.wants(event)) == (True, False)


async def test_test_is_for_one_endpoint_whatever_its_types(database: Database) -> None:
    chosen, everything = await add(database, [EventType.DONE]), await add(database)
    assert await in_transaction(database, lambda r: r.webhooks.test(chosen.id)) == chosen
    [event] = await recorded_events(database)
    assert (event.type, event.webhook_id) == (EventType.WEBHOOK_TEST, chosen.id)
    assert (chosen.wants(event), everything.wants(event)) == (True, False)
    disabled = await change(database, chosen, enabled=False)
    assert await in_transaction(database, lambda r: r.webhooks.test(chosen.id)) == disabled
    assert await in_transaction(database, lambda r: r.webhooks.test(uuid4())) is None
    assert await recorded_events(database) == [event]


async def test_removed_endpoint_is_gone(database: Database) -> None:
    webhook, other = await add(database), await add(database)
    async with database.statement() as repositories:
        assert await repositories.webhooks.remove(webhook.id)
        assert not await repositories.webhooks.remove(webhook.id)
        assert await repositories.webhooks.all() == [other]
