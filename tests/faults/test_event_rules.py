"""Tests the rules about events: a consistent log with its receivers, and for each rule changes that violate it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults import event_rules
from tests.faults.evidence import LogEvent, Snapshot
from tests.faults.finding import Rule
from tests.faults.history import Exchange, History, Operation, Received, Receiver, Seen, Sent, Way
from tests.faults.recipes import LATE

DONE, LATER, GONE, FAILED = (f"00000000-0000-0000-0000-00000000000{number}" for number in range(1, 5))
HOOK = "10000000-0000-0000-0000-000000000000"
ENDED = "2026-11-28T12:00:00+00:00"
LOG = (
    (DONE, "image.accepted"),
    (LATER, "image.accepted"),
    (DONE, "image.done"),
    (GONE, "image.accepted"),
    (LATER, "image.done"),
    (FAILED, "image.accepted"),
    (LATER, "image.output"),
    (GONE, "image.deleted"),
    (FAILED, "image.failed"),
    (DONE, "image.reprocessing"),
    (DONE, "image.done"),
)
TIMES = {"began": 1.0, "ended": 2.0, "waited": 0.5}


class Told:
    """A history and a snapshot that agree, and methods that change them."""

    def __init__(self, folder: Path) -> None:
        self.history = History(folder / "history.jsonl")
        self.snapshot = Snapshot(storage=folder)
        for place, (image_id, kind) in enumerate(LOG, 1):
            self.snapshot.log.append(event(place, image_id, kind))
        for image_id, status in {DONE: "DONE", LATER: "DONE", FAILED: "ERROR"}.items():
            self.snapshot.images[image_id] = row(image_id, status)
        for image_id in (DONE, LATER, GONE, FAILED):
            sent = Sent(sha256=image_id, size=1, picture="valid")  # type: ignore[arg-type]  # of no interest here
            self.asked(Operation.UPLOAD, image_id, status_code=202, sent=sent)
        self.asked(Operation.DELETE, GONE, status_code=204)
        self.saw(DONE, "DONE")
        self.snapshot.deliveries.append(delivery())
        self.snapshot.attempts = {(1, 1): {"status": None}, (1, 2): {"status": 204}}
        receivers = (
            Receiver(name="stream", way=Way.STREAM, after=event_id(1)),
            Receiver(name="pages", way=Way.PAGES),
            Receiver(name="hook", way=Way.WEBHOOK, types=["image.done"], webhook_id=HOOK),
            Receiver(name="queue", way=Way.EXCHANGE),
        )
        for receiver in receivers:
            self.history.append(receiver)
            first = 1 if receiver.after else 0
            for each in self.snapshot.log[first:]:
                if receiver.types is None or each.type in receiver.types:
                    self.got(receiver.name, each)

    def asked(self, operation: Operation, image_id: str, **answer: Any) -> None:  # noqa: ANN401  (an exchange's own fields)
        self.history.append(Exchange(operation=operation, server="api-1", image_id=image_id, **{**TIMES, **answer}))

    def saw(self, image_id: str, state: str, finished: str = ENDED, **more: Any) -> None:  # noqa: ANN401  (the same)
        seen = Seen(state=state, finished_at=finished)
        self.asked(more.pop("operation", Operation.STATUS), image_id, status_code=200, seen=seen, **more)

    def got(self, receiver: str, each: LogEvent, **changes: Any) -> None:  # noqa: ANN401  (its own fields)
        received = Received(
            receiver=receiver, event_id=each.id, type=each.type, image_id=each.image_id, at=1.0, document=each.id
        )
        self.history.append(replace(received, **changes))

    def tell(self, image_id: str, kind: str, **shown: Any) -> None:  # noqa: ANN401  (columns' own values)
        """Add an event to the log, and let everybody have it."""
        added = event(self.snapshot.log[-1].position[1] + 1, image_id, kind, **shown)
        self.snapshot.log.append(added)
        for name in ("stream", "pages", "queue", *(["hook"] if kind == "image.done" else [])):
            self.got(name, added)

    def forget(self, *places: int) -> None:
        """Remove events from the log, and from all who have them."""
        self.snapshot.log = [each for each in self.snapshot.log if each.position[1] not in places]
        gone = {event_id(place) for place in places}
        for name, got in self.history.received.items():
            self.history.received[name] = [each for each in got if each.event_id not in gone]

    def show(self, place: int, **shown: Any) -> None:  # noqa: ANN401  (columns' own values)
        log = self.snapshot.log
        log[place - 1] = replace(log[place - 1], image={**log[place - 1].image, **shown})

    def violated(self) -> set[str]:
        return {name for name, rule in RULES.items() if [*rule(self.history, self.snapshot)]}


RULES: dict[str, Rule] = {
    "changes": event_rules.every_change_has_its_event,
    "nothing": event_rules.no_event_of_nothing,
    "shown": event_rules.events_show_the_image,
    "answers": event_rules.answers_agree_with_the_log,
    "streams": event_rules.streams_miss_nothing,
    "webhooks": event_rules.webhooks_miss_nothing,
    "exchange": event_rules.exchange_misses_nothing,
    "genuine": event_rules.what_is_sent_is_genuine,
    "delivered": event_rules.delivered_is_true,
    "deliveries": event_rules.deliveries_end,
}


def event_id(place: int) -> str:
    return f"evt_00000000_7_{place}"


def event(place: int, image_id: str, kind: str, **shown: Any) -> LogEvent:  # noqa: ANN401  (columns' own values)
    status = {"image.done": "DONE", "image.output": "DONE", "image.failed": "ERROR"}.get(kind, "NEW")
    image = {"thumbnails": None, **row(image_id, status), **shown}
    return LogEvent(id=event_id(place), position=(7, place), type=kind, image_id=image_id, image=image)


def row(image_id: str, status: str) -> dict[str, Any]:
    return {
        "status": status,
        "sha256": image_id,
        "finished_at": ENDED if status in {"DONE", "ERROR"} else None,
        "recipe_name": LATE if image_id == LATER else None,
        "recipe": "r1",
        "client_metadata": None,
        "webhook_id": None,
    }


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    told = Told(tmp_path)
    yield told
    told.history.close()


def test_consistent_log_has_no_violations(told: Told) -> None:
    assert told.violated() == set()


def unconfirm(told: Told, name: str) -> None:
    got = told.history.received[name]
    got[0] = replace(got[0], accepted=False)


def refuse_and_purge(told: Told) -> None:
    unconfirm(told, "hook")
    (event_id,) = [each.event_id for each in told.history.received["hook"] if not each.accepted]
    place = event_rules.position_in(event_id)[1]
    told.snapshot.log = [each for each in told.snapshot.log if each.position[1] > place]
    told.snapshot.positions["purged"] = (7, place)


def delivery(**values: object) -> dict[str, object]:
    made = {"id": 1, "webhook_id": HOOK, "status": "delivered", "attempt": 2, "due_at": None, "lease_until": None}
    return {**made, **values}


VIOLATIONS: list[tuple[str, str, Callable[[Told], object]]] = [
    ("changes", "the acceptance is missing", lambda told: told.forget(1)),
    ("changes", "the end is missing", lambda told: told.forget(9)),
    ("changes", "the first of two ends is missing", lambda told: told.forget(3)),
    ("changes", "the second of two ends is missing", lambda told: told.forget(11)),
    ("changes", "the request for reprocessing is missing", lambda told: told.forget(10)),
    ("changes", "the late outputs are missing", lambda told: told.forget(7)),
    ("changes", "all of an image is missing", lambda told: told.forget(6, 9)),
    ("changes", "an image ends twice", lambda told: told.tell(FAILED, "image.failed")),
    ("changes", "an image ends otherwise", lambda told: told.tell(FAILED, "image.done")),
    ("changes", "an image is accepted twice", lambda told: told.tell(DONE, "image.accepted")),
    ("changes", "something follows a deletion", lambda told: told.tell(GONE, "image.output")),
    ("changes", "a failed image has outputs", lambda told: told.tell(FAILED, "image.output")),
    ("changes", "an image that exists is deleted", lambda told: told.tell(DONE, "image.deleted")),
    ("changes", "a finished image is to be reprocessed", lambda told: told.tell(DONE, "image.reprocessing")),
    ("nothing", "the deletion is missing", lambda told: told.forget(8)),
    ("nothing", "not deleted", lambda told: told.history.exchanges.pop(4)),
    ("nothing", "not uploaded", lambda told: told.tell(HOOK, "image.accepted")),
    ("shown", "another state", lambda told: told.show(3, status="ERROR")),
    ("shown", "another time", lambda told: told.show(11, finished_at="2026-11-28T12:00:01+00:00")),
    ("shown", "other metadata", lambda told: told.show(1, client_metadata="x")),
    ("shown", "another endpoint", lambda told: told.show(2, webhook_id=HOOK)),
    ("shown", "a thumbnail", lambda told: told.show(11, thumbnails=[{"output": "a", "key": "k", "sha256": "s"}])),
    ("answers", "an end without an event", lambda told: told.saw(DONE, "DONE", "2026-11-28T11:59:59Z")),
    ("answers", "another end", lambda told: told.saw(DONE, "ERROR")),
    ("answers", "waiting", lambda told: told.saw(FAILED, "PROCESSING", operation=Operation.UPLOAD, wait=5.0)),
    ("streams", "gap", lambda told: told.history.received["stream"].pop(3)),
    ("streams", "none", lambda told: told.history.received["pages"].clear()),
    ("streams", "the last is missing", lambda told: told.history.received["pages"].pop()),
    ("streams", "repeat", lambda told: told.got("pages", told.snapshot.log[-1])),
    ("streams", "other order", lambda told: told.history.received["stream"].reverse()),
    ("streams", "reset", lambda told: told.got("stream", told.snapshot.log[0], type="reset", event_id="")),
    ("webhooks", "gap", lambda told: told.history.received["hook"].pop(0)),
    ("webhooks", "unconfirmed", lambda told: unconfirm(told, "hook")),
    ("exchange", "gap", lambda told: told.history.received["queue"].pop(2)),
    ("exchange", "other order", lambda told: told.history.received["queue"].reverse()),
    ("genuine", "unknown", lambda told: told.got("hook", told.snapshot.log[2], event_id=event_id(99))),
    ("genuine", "unwanted", lambda told: told.got("hook", told.snapshot.log[0])),
    ("genuine", "of another endpoint", lambda told: told.show(3, webhook_id=GONE)),
    ("genuine", "signature", lambda told: told.got("hook", told.snapshot.log[2], wrong="its signature is wrong")),
    ("genuine", "other contents", lambda told: told.got("hook", told.snapshot.log[2], document="other")),
    ("genuine", "other type", lambda told: told.got("queue", told.snapshot.log[2], type="image.failed")),
    ("webhooks", "refused, and purged", refuse_and_purge),
    ("delivered", "by an earlier attempt", lambda told: told.snapshot.attempts.pop((1, 2))),
    ("delivered", "without success", lambda told: told.snapshot.attempts.update({(1, 2): {"status": 500}})),
    ("deliveries", "failed", lambda told: told.snapshot.deliveries.append(delivery(status="failed"))),
    ("deliveries", "due", lambda told: told.snapshot.deliveries.append(delivery(due_at=ENDED))),
    ("deliveries", "leased", lambda told: told.snapshot.deliveries.append(delivery(lease_until=ENDED))),
]


@pytest.mark.parametrize(
    ("rule", "what", "change"), VIOLATIONS, ids=[f"{rule}: {what}" for rule, what, _ in VIOLATIONS]
)
def test_violation_is_detected(told: Told, rule: str, what: str, change: Callable[[Told], object]) -> None:  # noqa: ARG001  (its name)
    change(told)
    assert rule in told.violated()


def test_every_rule_has_a_violation_test() -> None:
    assert {rule for rule, _, _ in VIOLATIONS} == RULES.keys()


def test_repeats_are_allowed_where_events_are_pushed(told: Told) -> None:
    for name in ("hook", "queue"):
        for each in [*told.history.received[name]]:
            told.history.append(each)
    assert told.violated() == set()


def test_endpoint_of_an_upload_alone_gets_its_events(told: Told) -> None:
    for place in (1, 3, 10, 11):
        told.show(place, webhook_id=GONE)
    told.snapshot.images[DONE] = {**told.snapshot.images[DONE], "webhook_id": GONE}
    told.history.exchanges[0] = replace(
        told.history.exchanges[0],
        sent=Sent(sha256=DONE, size=1, picture="valid", webhook_id=GONE),  # type: ignore[arg-type]  # of no interest here
    )
    assert told.violated() == {"genuine"}
    told.history.received["hook"] = [each for each in told.history.received["hook"] if each.image_id != DONE]
    assert told.violated() == set()


def test_ends_that_a_version_without_events_recorded_may_be_missing(told: Told) -> None:
    told.forget(7, 9, 11)
    told.snapshot.unrecorded = {LATER, DONE, FAILED}
    assert told.violated() == set()
    told.forget(10)
    told.tell(FAILED, "image.deleted")
    assert told.violated() == {"changes", "nothing"}


def test_what_a_lost_queue_held_may_be_missing(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_rules, "BATCH", 0)
    got = told.history.received["queue"]
    lost = [got.pop(4), got.pop(4)]
    assert told.violated() == {"exchange"}
    bound = replace(lost[0], type=event_rules.BOUND, event_id="", image_id=None)
    got[:] = [bound, *got[:4], bound, *got[4:]]
    assert told.violated() == set()
    del got[-2]
    assert told.violated() == {"exchange"}


def test_nothing_is_expected_of_purged_events(told: Told) -> None:
    told.forget(1, 2, 3, 4, 5)
    told.snapshot.positions["purged"] = (7, 5)
    told.got("hook", event(3, DONE, "image.done"))
    assert told.violated() == set()
