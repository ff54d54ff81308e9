"""Webhooks from the event to the receiver: what is sent when, to receivers of every kind, over real connections."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import event as listening
from sqlalchemy import update
from standardwebhooks import Webhook as Verifier
from structlog.testing import capture_logs

from harness.fakes import LONG_TIMEOUT
from harness.receiver import GONE, HANG, Receiver, Reply, busy, redirect
from harness.rows import done, execute, recorded
from harness.waiting import eventually, wait_for
from harness.webhooks import PUBLIC_URL, closed_port, deliveries_of, delivering, encode, registered
from image_service.database import Database, Repositories, SingleStatements
from image_service.database.clock import in_seconds
from image_service.domain import delivery_schedule
from image_service.domain.event import START, EventType
from image_service.domain.webhook import Webhook
from image_service.domain.webhook_delivery import DeliveryStatus
from image_service.errors import DatabaseUnavailable
from image_service.models import DeliveryRow
from image_service.ports import NullObserver
from image_service.services import webhook_sending
from image_service.services.webhook_dispatch import WebhookDispatcher
from image_service.services.webhook_sending import IN_FLIGHT


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, time_limit=LONG_TIMEOUT)
    yield database
    await database.close()


@pytest.fixture
async def sqlite(sqlite_url: str) -> AsyncIterator[Database]:
    database = Database(sqlite_url, time_limit=LONG_TIMEOUT)
    yield database
    await database.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule of retries, at once."""
    monkeypatch.setattr(delivery_schedule, "RETRY_DELAYS", (0.01,) * 9)


class Counted(NullObserver):
    """Keeps what is observed."""

    def __init__(self) -> None:
        self.attempts: list[tuple[str, int | None]] = []
        self.rounds: list[bool] = []

    def webhook_attempted(self, outcome: str, status: int | None, seconds: float) -> None:
        assert seconds >= 0
        self.attempts.append((outcome, status))

    def job_ended(self, name: str, *, succeeded: bool) -> None:
        assert name == "webhooks"
        self.rounds.append(succeeded)


async def statuses(database: Database, webhook: Webhook) -> list[DeliveryStatus]:
    return [each.status for each in await deliveries_of(database, webhook.id)]


async def all_ended(database: Database, webhook: Webhook, number: int) -> bool:
    found = await statuses(database, webhook)
    return len(found) == number and DeliveryStatus.PENDING not in found


async def test_events_arrive_signed_and_alike_at_every_endpoint(database: Database, receiver: Receiver) -> None:
    one = await registered(database, receiver.url("one"))
    await registered(database, receiver.url("two"), [EventType.DONE])
    observer = Counted()
    async with delivering(database, observer=observer) as worker:
        image_id = await done(database)
        worker.signal.notify()
        await eventually(lambda: all_ended(database, one, 2), 60)
        await eventually(lambda: len(receiver.received) == 3 and len(observer.attempts) == 3, 60)
    async with database.statement() as repositories:
        events = (await repositories.events.after(START, limit=10)).events
    assert sorted(receiver.ids()["one"]) == sorted(event.id for event in events)
    assert receiver.ids()["two"] == [events[-1].id]
    assert {each.event_id: each.body for each in receiver.at("one")} == {event.id: encode(event) for event in events}
    assert PUBLIC_URL in receiver.at("two")[0].body.decode()
    for each in receiver.at("one"):
        verified = Verifier(one.secret).verify(each.body, dict(each.headers.items()))
        assert verified == each.document
        assert each.headers["content-type"] == "application/json"
    (shown, _) = await deliveries_of(database, one.id)
    assert (shown.image_id, shown.tries, [each.status for each in shown.attempts]) == (image_id, 1, [204])
    assert observer.attempts == [("delivered", 204)] * 3


@pytest.mark.usefixtures("quick_retries")
async def test_each_answer_has_its_consequence(database: Database, receiver: Receiver) -> None:
    """What was sent when: fails twice, redirects to loopback, is gone, is busy for a while, is dead."""
    webhooks = {
        name: await registered(database, receiver.script(name, *script), [EventType.ACCEPTED])
        for name, script in {
            "fails": (Reply(status=500, body=b"n\x00pe"), Reply(status=404), Reply(status=200, body=b"yes")),
            "redirects": (redirect(receiver.url("elsewhere")),),
            "gone": (GONE,),
            "busy": (busy("1"), Reply()),
        }.items()
    }
    webhooks["dead"] = await registered(database, f"http://127.0.0.1:{closed_port()}/", [EventType.ACCEPTED])
    webhooks["refused"] = await registered(database, "http://169.254.169.254/", [EventType.ACCEPTED])
    with capture_logs() as logs:
        async with delivering(database) as worker:
            await recorded(database)
            worker.signal.notify()
            for webhook in webhooks.values():
                await eventually(lambda webhook=webhook: all_ended(database, webhook, 1), 120)  # type: ignore[misc]
    seen: Mapping[str, Any] = {
        name: (await deliveries_of(database, webhook.id))[0] for name, webhook in webhooks.items()
    }
    tried = {name: [each.error or each.status for each in delivery.attempts] for name, delivery in seen.items()}
    assert tried == {
        "fails": [500, 404, 200],
        "redirects": [302] * 10,
        "gone": [410],
        "busy": [429, 204],
        "dead": ["connect-failed"] * 10,
        "refused": ["url-not-allowed"] * 10,
    }
    assert [each.answer for each in seen["fails"].attempts] == ["n\ufffdpe", "", "yes"]
    assert {name for name, delivery in seen.items() if delivery.status is DeliveryStatus.DELIVERED} == {"fails", "busy"}
    assert receiver.at("elsewhere") == []
    assert {name: len(set(ids)) for name, ids in receiver.ids().items()} == dict.fromkeys(receiver.ids(), 1)
    first, second = receiver.at("busy")
    assert second.at - first.at >= 1
    disabled = [line for line in logs if line["event"] == "webhook endpoint disabled"]
    assert [(line["webhook_id"], line["reason"]) for line in disabled] == [
        (str(webhooks["gone"].id), "It answered 410 (Gone).")
    ]


async def test_busy_endpoint_gets_nothing_until_it_is_to(database: Database, receiver: Receiver) -> None:
    webhook = await registered(database, receiver.script("busy", busy("3600")), [EventType.ACCEPTED])
    other = await registered(database, receiver.url("other"), [EventType.ACCEPTED])
    async with delivering(database) as worker:
        await recorded(database)
        worker.signal.notify()
        await eventually(lambda: len(receiver.at("busy")) == 1, 60)
        await eventually(lambda: paused(database, webhook), 60)
        for _ in range(3):
            await recorded(database)
        worker.signal.notify()
        await eventually(lambda: all_ended(database, other, 4), 60)
    assert len(receiver.at("busy")) == 1
    assert await statuses(database, webhook) == [DeliveryStatus.PENDING] * 4


async def paused(database: Database, webhook: Webhook) -> bool:
    return bool((await deliveries_of(database, webhook.id))[0].attempts)


async def test_dead_and_hanging_endpoints_delay_no_other(database: Database, receiver: Receiver) -> None:
    """All others have all events while the first attempts at the hanging one still wait for its answer."""
    events, names = 10, [f"good-{number}" for number in range(8)]
    hanging = await registered(database, receiver.script("hanging", HANG), [EventType.ACCEPTED])
    dead = await registered(database, f"http://127.0.0.1:{closed_port()}/", [EventType.ACCEPTED])
    good = [await registered(database, receiver.url(name), [EventType.ACCEPTED]) for name in names]
    async with delivering(database, timeout=600) as worker:
        for _ in range(events):
            await recorded(database)
            worker.signal.notify()
        for webhook in good:
            await eventually(lambda webhook=webhook: all_ended(database, webhook, events), 120)  # type: ignore[misc]
        ids = receiver.ids()
        waiting = await deliveries_of(database, hanging.id)
        failing = await deliveries_of(database, dead.id)
    assert {name: len(set(ids[name])) for name in names} == dict.fromkeys(names, events)
    assert all(len(set(each)) == len(each) for each in ids.values())
    assert len(ids["hanging"]) == IN_FLIGHT
    assert [each.attempts for each in waiting] == [[]] * events
    assert {attempt.error for each in failing for attempt in each.attempts} == {"connect-failed"}


async def test_failing_endpoint_gets_one_attempt_at_a_time(database: Database, receiver: Receiver) -> None:
    webhook = await registered(database, receiver.script("hanging", HANG), [EventType.ACCEPTED])
    async with database.statement() as repositories:
        await repositories.webhooks.mark_failing(webhook.id)
    async with delivering(database, timeout=600) as worker:
        for _ in range(3):
            await recorded(database)
        worker.signal.notify()
        await eventually(lambda: len(receiver.received) == 1, 60)
        await eventually(lambda: all_pending(database, webhook, 3), 60)
        assert worker.sender.sending == 1
    assert len(receiver.received) == 1


async def all_pending(database: Database, webhook: Webhook, number: int) -> bool:
    return await statuses(database, webhook) == [DeliveryStatus.PENDING] * number


async def test_event_is_sent_again_by_another_worker_after_a_crash(database: Database, receiver: Receiver) -> None:
    webhook = await registered(database, receiver.script("crash", HANG, Reply()), [EventType.ACCEPTED])
    await recorded(database)
    async with delivering(database, timeout=600) as worker:
        await eventually(lambda: len(receiver.received) == 1, 60)
        await worker.killed()
    (before,) = await deliveries_of(database, webhook.id)
    assert (before.status, before.attempts) == (DeliveryStatus.PENDING, [])
    async with delivering(database) as worker:
        past = in_seconds(-1)
        await execute(database, update(DeliveryRow).values(due_at=past, lease_until=past))
        worker.signal.notify()
        await eventually(lambda: all_ended(database, webhook, 1), 60)
    assert receiver.ids()["crash"] == [before.event_id] * 2


@pytest.mark.parametrize(
    ("reply", "grace", "expected"),
    [(Reply(after=0.2), 600, DeliveryStatus.DELIVERED), (HANG, 0.1, DeliveryStatus.PENDING)],
)
async def test_drain_waits_for_answers_but_not_for_long(
    sqlite: Database, receiver: Receiver, reply: Reply, grace: float, expected: DeliveryStatus
) -> None:
    webhook = await registered(sqlite, receiver.script("one", reply), [EventType.ACCEPTED])
    await recorded(sqlite)
    async with delivering(sqlite, timeout=600, grace=grace) as worker:
        await eventually(lambda: len(receiver.received) == 1, 60)
        worker.stop.set()
        await wait_for(asyncio.wait({worker.task}), 60)
    assert await statuses(sqlite, webhook) == [expected]


async def test_without_endpoints_one_query_looks_for_them(sqlite: Database) -> None:
    clock = iter([0.0, 0.0, 1.0, 20.0, 20.0])
    dispatcher = WebhookDispatcher(database=sqlite, clock=lambda: next(clock))
    asked: list[str] = []
    listening.listen(sqlite.engine, "before_cursor_execute", lambda *given: asked.append(given[2].split()[0]))

    async def statements() -> int:
        before = len(asked)
        await dispatcher.run_once()
        return len(asked) - before

    assert await statements() == 1
    await recorded(sqlite)
    assert await statements() > 1
    await recorded(sqlite)
    assert await statements() == 1
    assert await statements() > 1
    assert await statements() == 1


class Unreliable(Database):
    """A database that is unavailable for a while."""

    available = True

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[SingleStatements]:
        self._check()
        async with super().statement() as repositories:
            yield repositories

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Repositories]:
        self._check()
        async with super().transaction() as repositories:
            yield repositories

    def _check(self) -> None:
        if not self.available:
            raise DatabaseUnavailable


async def test_outage_of_the_database_costs_a_round(
    sqlite_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("image_service.services.webhook_loop._FAILED_PAUSE", 0.01)
    database, other = Unreliable(sqlite_url, time_limit=LONG_TIMEOUT), Database(sqlite_url, time_limit=LONG_TIMEOUT)
    webhook = await registered(other, receiver.url("one"), [EventType.ACCEPTED])
    observer = Counted()
    async with delivering(database, observer=observer):
        database.available = False
        await eventually(lambda: False in observer.rounds, 60)
        await recorded(other)
        database.available = True
        await eventually(lambda: all_ended(other, webhook, 1), 60)
    await database.close()
    await other.close()


async def test_result_that_cannot_be_recorded_is_repeated(
    sqlite_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_sending, "_RECORDING", 0.2)
    database, other = Unreliable(sqlite_url, time_limit=LONG_TIMEOUT), Database(sqlite_url, time_limit=LONG_TIMEOUT)
    webhook = await registered(other, receiver.script("one", Reply(after=0.2)), [EventType.ACCEPTED])
    with capture_logs() as logs:
        async with delivering(database, grace=60):
            await recorded(other)
            await eventually(lambda: len(receiver.received) == 1, 60)
            database.available = False
            await eventually(lambda: any("not recorded" in line["event"] for line in logs), 60)
            database.available = True
            await execute(other, update(DeliveryRow).values(due_at=in_seconds(-1), lease_until=in_seconds(-1)))
            await eventually(lambda: all_ended(other, webhook, 1), 60)
    assert len(receiver.received) == 2
    await database.close()
    await other.close()


async def test_defect_counts_as_a_failed_attempt(
    sqlite: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_sending, "signature_headers", None)
    webhook = await registered(sqlite, receiver.url("one"), [EventType.ACCEPTED])
    with capture_logs() as logs:
        async with delivering(sqlite):
            await recorded(sqlite)
            await eventually(lambda: first_attempt(sqlite, webhook), 60)
    assert [each.error for each in (await deliveries_of(sqlite, webhook.id))[0].attempts][:1] == ["internal-error"]
    assert any(line["event"] == "webhook not sent: a defect" for line in logs)
    assert receiver.received == []


async def first_attempt(database: Database, webhook: Webhook) -> bool:
    found = await deliveries_of(database, webhook.id)
    return bool(found and found[0].attempts)
