"""Deliveries of events to webhook endpoints: who gets what, claims, fences, results and replays, on both databases."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update

from harness.rows import add as add_image
from harness.rows import concurrently, done, execute, in_transaction, recorded, upload
from harness.waiting import eventually
from image_service.database import Database
from image_service.database.clock import in_seconds
from image_service.database.delivery_results import Finished
from image_service.domain.delivery_schedule import DISABLED_AFTER
from image_service.domain.event import START, EventType
from image_service.domain.webhook import Webhook, WebhookChange
from image_service.domain.webhook_delivery import (
    ClaimedDelivery,
    DeliveryAttempt,
    DeliveryResult,
    DeliveryStatus,
    WebhookDelivery,
)
from image_service.models import DeliveryRow, EventRow, WebhookRow

SECRET = "whsec_eA=="  # noqa: S105  (of tests)
TAKEN = DeliveryAttempt(milliseconds=12, status=200, answer="ok")
REFUSED = DeliveryAttempt(milliseconds=3, status=500, answer="no")
DELIVERED = DeliveryResult(status=DeliveryStatus.DELIVERED)
FAILED = DeliveryResult(status=DeliveryStatus.FAILED)


def retry(due_in: float = 60, pause: float | None = None) -> DeliveryResult:
    return DeliveryResult(status=DeliveryStatus.PENDING, retry_in=due_in, pause=pause)


async def endpoint(database: Database, types: Sequence[EventType] | None = None) -> Webhook:
    added = await in_transaction(
        database, lambda r: r.webhooks.add(uuid4(), url="https://example.org/", types=types, secret=SECRET)
    )
    assert added is not None
    return added


async def get(database: Database, webhook: Webhook) -> Webhook:
    found = await in_transaction(database, lambda r: r.webhooks.get(webhook.id))
    assert found is not None
    return found


async def dispatch(database: Database) -> int:
    """Pass on everything; returns how many deliveries that made."""
    made = 0

    async def passed_on() -> bool:
        nonlocal made
        dispatched = await in_transaction(database, lambda r: r.deliveries.dispatch())
        made += dispatched.deliveries if dispatched else 0
        # On PostgreSQL, other databases' transactions can delay events.
        page = await in_transaction(database, lambda r: r.events.after(START, limit=1000))
        position = await in_transaction(database, lambda r: r.events.position("webhooks"))
        return not page.unsettled and all(event.position <= position for event in page.events)

    await eventually(passed_on, 60)
    return made


async def claim(
    database: Database, in_flight: Mapping[UUID, int] | None = None, *, each: int = 4, lease: float = 60
) -> Sequence[ClaimedDelivery]:
    return await in_transaction(database, lambda r: r.deliveries.claim(in_flight or {}, each=each, lease=lease))


async def claim_one(database: Database, lease: float = 60) -> ClaimedDelivery:
    (claimed,) = await claim(database, each=1, lease=lease)
    return claimed


async def finish(
    database: Database, claimed: ClaimedDelivery, attempt: DeliveryAttempt, result: DeliveryResult
) -> Finished:
    if result.status is DeliveryStatus.DELIVERED:
        async with database.statement() as repositories:
            return Finished(held=await repositories.deliveries.complete(claimed, attempt), disabled=None)
    return await in_transaction(database, lambda r: r.deliveries.finish(claimed, attempt, result))


async def deliveries(
    database: Database, webhook: Webhook, limit: int = 100, **options: object
) -> Sequence[WebhookDelivery]:
    return await in_transaction(database, lambda r: r.deliveries.of_webhook(webhook.id, limit=limit, **options))  # type: ignore[arg-type]


async def types(database: Database, webhook: Webhook) -> list[str]:
    return [each.event_type for each in reversed(await deliveries(database, webhook))]


async def make_due(database: Database) -> None:
    await execute(database, update(DeliveryRow).where(DeliveryRow.due_at.is_not(None)).values(due_at=in_seconds(-1)))


async def test_endpoints_get_the_events_that_they_want_since_they_exist(database: Database) -> None:
    await done(database)
    everything, only_done = await endpoint(database), await endpoint(database, [EventType.DONE])
    disabled = await endpoint(database)
    await in_transaction(database, lambda r: r.webhooks.change(disabled.id, WebhookChange(enabled=False)))
    # Times have milliseconds on SQLite, and an event of the same millisecond is sent.
    await asyncio.sleep(0.01)
    await done(database)
    await add_image(database, upload(webhook_id=everything.id))
    assert await dispatch(database) == 4
    assert await types(database, everything) == [EventType.ACCEPTED, EventType.DONE, EventType.ACCEPTED]
    assert await types(database, only_done) == [EventType.DONE]
    assert await types(database, disabled) == []
    assert await dispatch(database) == 0


async def test_events_about_an_endpoint_reach_others_and_tests_only_itself(database: Database) -> None:
    tested, other, only_done = (
        await endpoint(database),
        await endpoint(database),
        await endpoint(database, [EventType.DONE]),
    )
    await in_transaction(database, lambda r: r.webhooks.test(tested.id))
    await in_transaction(database, lambda r: r.webhooks.disable(other.id, "It answered 410."))
    await dispatch(database)
    assert await types(database, tested) == [EventType.WEBHOOK_TEST, EventType.WEBHOOK_DISABLED]
    assert await types(database, other) == []
    assert await types(database, only_done) == []


async def test_two_processes_pass_on_each_event_once(postgresql: Database) -> None:
    webhook = await endpoint(postgresql)
    for _ in range(3):
        await recorded(postgresql)
    await eventually(lambda: is_settled(postgresql), 60)
    results = await concurrently(postgresql, *[lambda r: r.deliveries.dispatch()] * 2)
    assert sum(result is None for result in results) == 1
    await dispatch(postgresql)
    assert len(await deliveries(postgresql, webhook)) == 3


async def is_settled(database: Database) -> bool:
    return not (await in_transaction(database, lambda r: r.events.after(START, limit=1000))).unsettled


async def is_new(database: Database) -> bool:
    async with database.statement() as repositories:
        return (await repositories.deliveries.work()).new


async def test_events_are_skipped_only_while_no_endpoint_is_enabled(database: Database) -> None:
    await done(database)
    await eventually(lambda: is_settled(database), 60)
    assert await in_transaction(database, lambda r: r.deliveries.skip())
    assert not await is_new(database)
    assert not await in_transaction(database, lambda r: r.deliveries.skip())
    webhook = await endpoint(database)
    await recorded(database)
    assert not await in_transaction(database, lambda r: r.deliveries.skip())
    assert await dispatch(database) == 1
    assert await types(database, webhook) == [EventType.ACCEPTED]


async def test_work_says_what_there_is_to_do(database: Database) -> None:
    async def work() -> tuple[bool, bool, bool, bool]:
        async with database.statement() as repositories:
            found = await repositories.deliveries.work()
        return found.registered, found.new, found.due, found.ended

    assert await work() == (False, False, False, False)
    webhook = await endpoint(database)
    assert await work() == (True, False, False, False)
    await recorded(database)
    await eventually(lambda: is_new(database), 60)
    assert await work() == (True, True, False, False)
    await dispatch(database)
    assert await work() == (True, False, True, False)
    await claim_one(database)
    assert await work() == (True, False, False, False)
    await in_transaction(database, lambda r: r.webhooks.disable(webhook.id, "gone"))
    await dispatch(database)
    assert await work() == (False, False, False, True)


async def test_claims_take_the_room_of_each_endpoint(database: Database) -> None:
    working, full, failing = await endpoint(database), await endpoint(database), await endpoint(database)
    await in_transaction(database, lambda r: r.webhooks.mark_failing(failing.id))
    for _ in range(6):
        await recorded(database)
    await dispatch(database)
    claimed = await claim(database, {full.id: 3})
    by_endpoint = {
        webhook.id: [each.event.position for each in claimed if each.webhook.id == webhook.id]
        for webhook in (working, full, failing)
    }
    assert [len(each) for each in by_endpoint.values()] == [4, 1, 1]
    assert sorted(by_endpoint[working.id])[:1] == by_endpoint[full.id] == by_endpoint[failing.id]
    assert await claim(database, {working.id: 4, full.id: 9, failing.id: 1}) == []
    assert len(await claim(database, {working.id: 0, full.id: 4, failing.id: 1})) == 2
    assert {(each.attempt, each.tries) for each in claimed} == {(1, 0)}


async def test_two_processes_claim_each_delivery_once(database: Database) -> None:
    await endpoint(database)
    for _ in range(6):
        await recorded(database)
    await dispatch(database)
    claims = await asyncio.gather(claim(database), claim(database))
    numbers = [each.id for claimed in claims for each in claimed]
    assert len(set(numbers)) == len(numbers) <= 6
    numbers += [each.id for each in await claim(database)]
    assert len(set(numbers)) == len(numbers) == 6


async def test_delivery_of_a_process_that_died_is_made_by_another(database: Database) -> None:
    """It is killed between claiming and finishing, whether or not it has sent the event."""
    webhook = await endpoint(database)
    await recorded(database)
    await dispatch(database)
    dead = await claim_one(database)
    assert await claim(database) == []
    await make_due(database)
    other = await claim_one(database)
    assert (other.id, other.event.id, other.attempt, other.tries) == (dead.id, dead.event.id, 2, 0)
    assert await finish(database, dead, REFUSED, FAILED) == Finished(held=False, disabled=None)
    assert (await deliveries(database, webhook))[0].status is DeliveryStatus.PENDING
    assert await finish(database, other, TAKEN, DELIVERED) == Finished(held=True, disabled=None)
    assert await finish(database, other, TAKEN, DELIVERED) == Finished(held=False, disabled=None)
    (shown,) = await deliveries(database, webhook)
    assert (shown.status, shown.tries, shown.due_at) == (DeliveryStatus.DELIVERED, 1, None)
    assert [each.status for each in shown.attempts] == [500, 200]
    await make_due(database)
    assert await claim(database) == []


async def test_attempts_are_recorded_with_what_follows(database: Database) -> None:
    webhook = await endpoint(database)
    await recorded(database)
    await dispatch(database)
    attempt = DeliveryAttempt(milliseconds=20_000, error="timed-out")
    assert (await finish(database, await claim_one(database), attempt, retry(60))).held
    assert (await get(database, webhook)).failing_since is not None
    assert await claim(database) == []
    await make_due(database)
    assert (await finish(database, await claim_one(database), TAKEN, DELIVERED)).held
    assert (await get(database, webhook)).failing_since is None
    (shown,) = await deliveries(database, webhook)
    assert [(each.milliseconds, each.status, each.error, each.answer) for each in shown.attempts] == [
        (20_000, None, "timed-out", None),
        (12, 200, None, "ok"),
    ]
    assert (shown.tries, shown.status, shown.finished_at is None) == (2, DeliveryStatus.DELIVERED, False)


async def test_endpoint_is_disabled_when_gone_or_after_three_days(database: Database) -> None:
    gone, failing, new, other = [await endpoint(database) for _ in range(4)]
    await recorded(database)
    await dispatch(database)
    since = in_seconds(1 - DISABLED_AFTER)
    await execute(database, update(WebhookRow).where(WebhookRow.id == new.id).values(failing_since=since))
    since = in_seconds(-DISABLED_AFTER)
    await execute(database, update(WebhookRow).where(WebhookRow.id == failing.id).values(failing_since=since))
    claimed = {each.webhook.id: each for each in await claim(database)}
    ended = DeliveryAttempt(milliseconds=1, status=410)
    results = [
        await finish(database, claimed[gone.id], ended, DeliveryResult(status=DeliveryStatus.FAILED, gone=True)),
        await finish(database, claimed[failing.id], REFUSED, retry()),
        await finish(database, claimed[new.id], REFUSED, retry()),
    ]
    assert [(each.held, each.disabled) for each in results] == [
        (True, "It answered 410 (Gone)."),
        (True, "It has failed for three days, the last time: status 500."),
        (True, None),
    ]
    assert [(await get(database, each)).enabled for each in (gone, failing, new)] == [False, False, True]
    await dispatch(database)
    assert await types(database, other) == [EventType.ACCEPTED, *[EventType.WEBHOOK_DISABLED] * 2]


async def test_disabled_endpoint_keeps_no_events_and_can_have_them_again(database: Database) -> None:
    webhook, other = await endpoint(database), await endpoint(database)
    for _ in range(3):
        await recorded(database)
    await dispatch(database)
    await in_transaction(database, lambda r: r.webhooks.disable(webhook.id, "gone"))
    assert {each.webhook.id for each in await claim(database)} == {other.id}
    counts = [await in_transaction(database, lambda r: r.deliveries.end_of_disabled(limit=2)) for _ in range(3)]
    assert counts == [2, 1, 0]
    assert {each.status for each in await deliveries(database, webhook)} == {DeliveryStatus.FAILED}
    assert [each.status for each in await deliveries(database, other)] == [DeliveryStatus.PENDING] * 3
    enabled = await in_transaction(database, lambda r: r.webhooks.change(webhook.id, WebhookChange(enabled=True)))
    assert enabled is not None
    replayed = await in_transaction(database, lambda r: r.deliveries.replay_since(enabled, enabled.created_at))
    assert replayed.before is None
    assert replayed.deliveries == 4
    assert [each.event.type for each in await claim(database, {other.id: 4})].count(EventType.ACCEPTED) == 3


async def test_busy_endpoint_pauses_with_all_its_deliveries(database: Database) -> None:
    busy, other = await endpoint(database), await endpoint(database)
    for _ in range(2):
        await recorded(database)
    await dispatch(database)
    claimed = {each.webhook.id: each for each in await claim(database, each=1)}
    await finish(database, claimed[busy.id], DeliveryAttempt(milliseconds=1, status=429), retry(-1, pause=600))
    assert {each.webhook.id for each in await claim(database)} == {other.id}
    await execute(database, update(WebhookRow).values(paused_until=in_seconds(-1)))
    assert [each.webhook.id for each in await claim(database)] == [busy.id]
    await in_transaction(database, lambda r: r.webhooks.change(busy.id, WebhookChange(url="https://example.com/")))
    assert (await get(database, busy)).failing_since is None


async def test_pages_of_deliveries_follow_each_other(database: Database) -> None:
    webhook = await endpoint(database)
    images = [await recorded(database) for _ in range(3)]
    await dispatch(database)
    first = await deliveries(database, webhook, limit=2)
    second = await deliveries(database, webhook, limit=2, before=first[-1].id)
    assert [each.image_id for each in [*first, *second]] == images[::-1]
    assert await deliveries(database, webhook, status=DeliveryStatus.DELIVERED) == []
    assert len({each.event_id for each in [*first, *second]}) == 3


async def test_delivery_is_sent_again_when_asked_for(database: Database) -> None:
    webhook = await endpoint(database)
    await recorded(database)
    await dispatch(database)
    claimed = await claim_one(database)

    async def replay(webhook_id: UUID = webhook.id) -> bool:
        return await in_transaction(database, lambda r: r.deliveries.replay_one(webhook_id, claimed.id))

    assert not await replay()
    await finish(database, claimed, TAKEN, DELIVERED)
    assert not await replay(uuid4())
    assert await replay()
    again = await claim_one(database)
    assert (again.id, again.tries, again.event.id) == (claimed.id, 0, claimed.event.id)
    await make_due(database)
    await execute(database, update(DeliveryRow).values(lease_until=in_seconds(-1)))
    assert await replay()
    assert not (await finish(database, again, TAKEN, DELIVERED)).held


async def test_all_events_since_a_time_are_sent_again(database: Database) -> None:
    webhook = await endpoint(database, [EventType.ACCEPTED])
    old = await recorded(database)
    await execute(database, update(EventRow).where(EventRow.image_id == old).values(happened_at=in_seconds(-3600)))
    await execute(database, update(WebhookRow).values(created_at=in_seconds(-7200)))
    images = [await done(database) for _ in range(3)]
    await dispatch(database)
    for claimed in await claim(database):
        await finish(database, claimed, TAKEN, DELIVERED)
    current = await get(database, webhook)
    since, before, count = current.created_at + timedelta(minutes=90), None, 0
    while True:
        step = await in_transaction(
            database,
            lambda r: r.deliveries.replay_since(current, since, before=before, limit=2),
        )
        count += step.deliveries
        if (before := step.before) is None:
            break
    assert count == 3
    assert {each.event.image_id for each in await claim(database)} == set(images)


async def test_backlog_is_counted(database: Database) -> None:
    async def backlog() -> tuple[int, int, int, int, bool]:
        async with database.statement() as repositories:
            found = await repositories.deliveries.backlog()
        return found.working, found.failing, found.disabled, found.pending, found.overdue > 60

    assert await backlog() == (0, 0, 0, 0, False)
    working, failing, disabled = [await endpoint(database) for _ in range(3)]
    await recorded(database)
    await dispatch(database)
    assert await backlog() == (3, 0, 0, 3, False)
    await in_transaction(database, lambda r: r.webhooks.mark_failing(failing.id))
    await in_transaction(database, lambda r: r.webhooks.disable(disabled.id, "gone"))
    late = update(DeliveryRow).values(due_at=in_seconds(-90))
    await execute(database, late.where(DeliveryRow.webhook_id == failing.id))
    assert await backlog() == (1, 1, 1, 3, False)
    await execute(database, late.where(DeliveryRow.webhook_id == working.id))
    assert await backlog() == (1, 1, 1, 3, True)


async def test_event_that_no_process_passes_on_shows_in_the_backlog(database: Database) -> None:
    await endpoint(database)
    await recorded(database)
    await execute(database, update(EventRow).values(happened_at=in_seconds(-90)))
    async with database.statement() as repositories:
        assert (await repositories.deliveries.backlog()).overdue > 60


async def test_deliveries_of_many_endpoints_are_created_in_bounded_transactions(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("image_service.database.deliveries.MAX_DELIVERIES", 3)
    webhooks = [await endpoint(database) for _ in range(2)]
    for _ in range(5):
        await recorded(database)
    assert await dispatch(database) == 10
    assert [len(await deliveries(database, each)) for each in webhooks] == [5, 5]


async def test_deliveries_go_with_their_endpoint(database: Database) -> None:
    webhook = await endpoint(database)
    await recorded(database)
    await dispatch(database)
    claimed = await claim_one(database)
    await in_transaction(database, lambda r: r.webhooks.remove(webhook.id))
    assert not (await finish(database, claimed, TAKEN, DELIVERED)).held
    async with database.transaction() as repositories:
        number = await repositories.connection.execute(select(func.count()).select_from(DeliveryRow))
        assert number.scalar_one() == 0
