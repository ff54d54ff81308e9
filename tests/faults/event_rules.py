"""The invariants about events: the log of them, and what those who receive them got.

Independent of the service's code; see ``evidence``.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise, zip_longest

from tests.faults.evidence import LogEvent, Row, Snapshot, comparable, moment
from tests.faults.finding import DONE, ERROR, Finding
from tests.faults.history import OK, History, Operation, Received, Receiver, Way
from tests.faults.recipes import LATE

ACCEPTED, ENDED_DONE, ENDED_ERROR = "image.accepted", "image.done", "image.failed"
OUTPUT, REPROCESSING, DELETED = "image.output", "image.reprocessing", "image.deleted"
UNFINISHED = frozenset({ACCEPTED, REPROCESSING})
FINISHED = frozenset({ENDED_DONE, ENDED_ERROR, OUTPUT})
_AFTER_START = frozenset({ENDED_DONE, ENDED_ERROR, DELETED})
_AFTER_DONE = frozenset({OUTPUT, REPROCESSING, DELETED})
FOLLOW: Mapping[str | None, frozenset[str]] = {
    None: frozenset({ACCEPTED}),
    ACCEPTED: _AFTER_START,
    REPROCESSING: _AFTER_START,
    ENDED_DONE: _AFTER_DONE,
    OUTPUT: _AFTER_DONE,
    ENDED_ERROR: frozenset({REPROCESSING, DELETED}),
    DELETED: frozenset(),
}
"""What may follow an event of an image; nothing but its acceptance comes first."""
LEFT_OPEN = frozenset({OUTPUT, REPROCESSING})
"""What may follow the beginning of a rendering whose end a version without events has recorded."""
STATES = {ENDED_DONE: DONE, OUTPUT: DONE, ENDED_ERROR: ERROR}
CHANGE_WITHOUT_EVENT = frozenset({"updated_at", "original_removed_at", "pending"})
"""Columns of a finished image that may change without an event."""
START = (0, 0)
ENDS = frozenset({DONE, ERROR})
ANSWERED = 200
SUCCESS = range(200, 300)
DELIVERED = "delivered"
RESET = "reset"
"""What a stream sends in the place of events that it does not have any more."""
BOUND = "bound"
"""What a receiver notes when it has bound a new queue: whatever an old one held is lost."""
BATCH = 200
"""The most events that are published at once, in any order as far as they are about different images."""


def every_change_has_its_event(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """The log tells the life of every image: each change once, in a possible order, up to its present state."""
    lives = _lives(snapshot)
    purged = _purged(snapshot) > START
    accepted = {each.image_id for each in history.of(Operation.UPLOAD) if each.outcome == OK and each.image_id}
    for image_id in sorted(accepted | snapshot.images.keys()) if not purged else ():
        if image_id not in lives:
            yield Finding(image_id, "it was accepted, but no event tells of it")
    for image_id, life in lives.items():
        types = [event.type for event in life]
        excused = image_id in snapshot.unrecorded
        for earlier, later in pairwise([types[0] if purged else None, *types[purged:]]):
            left_open = excused and earlier in UNFINISHED and later in LEFT_OPEN
            if later not in FOLLOW[earlier] and not left_open:
                yield Finding(image_id, f"{later} follows {earlier or 'nothing'}: {', '.join(types)}")
                break
        if wrong := _contradiction(types, snapshot.images.get(image_id), excused=excused):
            yield Finding(image_id, f"{wrong}: {', '.join(types)}")


def no_event_of_nothing(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Nothing in the log is about an image that was never recorded, or whose upload was rejected."""
    sent = {
        upload.sent.sha256
        for upload in history.of(Operation.UPLOAD)
        if upload.sent is not None and (upload.outcome == OK or upload.in_doubt)
    }
    deleted = {each.image_id for each in history.of(Operation.DELETE) if each.outcome == OK or each.in_doubt}
    for image_id, life in _lives(snapshot).items():
        if image_id not in snapshot.images and life[-1].type != DELETED:
            yield Finding(image_id, f"there is no such image, but the log says {life[-1].type}")
        if life[-1].type == DELETED and image_id not in deleted:
            yield Finding(image_id, "no client deleted it, but the log says so")
        if life[0].image["sha256"] not in sent:
            yield Finding(image_id, f"the log says {life[0].type}, but no client uploaded it")


def events_show_the_image(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Every event shows the image as it left it, with what the client gave; the last one shows it as it is."""
    given = {upload.image_id: upload.sent for upload in history.of(Operation.UPLOAD) if upload.outcome == OK}
    for image_id, life in _lives(snapshot).items():
        for event in life:
            if STATES.get(event.type, event.image["status"]) != event.image["status"]:
                yield Finding(image_id, f"{event.id} is {event.type}, but shows it as {event.image['status']}")
            sent = given.get(image_id)
            shown = event.image["client_metadata"], event.only
            if sent is not None and shown != (sent.metadata, sent.webhook_id):
                yield Finding(image_id, f"{event.id} has {shown}, but {sent.metadata, sent.webhook_id} was sent")
        last = life[-1]
        if image_id in snapshot.images and last.type in FINISHED and image_id not in snapshot.unrecorded:
            for wrong in _differences(last, snapshot.images[image_id], snapshot.thumbnails.get(image_id, [])):
                yield Finding(image_id, f"{last.id} {wrong}")


def answers_agree_with_the_log(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Whatever finished image a client saw, waiting for it or not, the log has the event of that end."""
    if _purged(snapshot) > START:
        return
    ends = {
        (event.image_id, event.image["status"], moment(event.image["finished_at"]))
        for event in snapshot.log
        if event.type in FINISHED
    }
    for each in history.of(Operation.UPLOAD, Operation.STATUS):
        if each.outcome != OK or each.seen is None or each.image_id is None or each.image_id in snapshot.unrecorded:
            continue
        told = each.seen.state, moment(each.seen.finished_at)
        if told[0] in ENDS and (each.image_id, *told) not in ends:
            yield Finding(each.image_id, f"it was seen as {told[0]}, finished {told[1]}, but no event says so", each)
        if each.wait and each.status_code == ANSWERED and each.operation is Operation.UPLOAD and told[0] not in ENDS:
            yield Finding(each.image_id, f"waiting ended with 200, but it was {told[0]}", each)


def streams_miss_nothing(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Every client that reads the log by a stream or by pages gets each event once and in order, however often cut."""
    for receiver, got in _receivers(history, Way.STREAM, Way.PAGES):
        wanted = [event for event in snapshot.log if _wants(receiver, event)]
        for number, (event, received) in enumerate(zip_longest(wanted, got)):
            if event is None or received is None or received.event_id != event.id:
                here = f"{len(got)} of {len(wanted)} events; number {number}"
                what = "nothing" if received is None else received.event_id or received.type
                yield Finding(receiver.name, f"{here} should be {event.id if event else 'none'}, but is {what}")
                break


def webhooks_miss_nothing(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Every webhook endpoint has confirmed every event that it wants, at least once, also one that is purged since."""
    for receiver, got in _receivers(history, Way.WEBHOOK):
        yield from _missing(receiver, got, snapshot)
        confirmed = {each.event_id for each in got if each.accepted}
        for event_id in sorted({each.event_id for each in got} - confirmed):
            yield Finding(receiver.name, f"it has refused {event_id}, and never got it again")


def exchange_misses_nothing(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """A bound queue has got every event at least once, and those of one image in order, repeats aside."""
    places = {event.id: number for number, event in enumerate(snapshot.log)}
    for receiver, got in _receivers(history, Way.EXCHANGE):
        yield from _missing(receiver, got, snapshot, excused=_lost_with_the_queue(got, places))
        newest: dict[str | None, int] = defaultdict(int)
        for event_id, image_id in dict.fromkeys((each.event_id, each.image_id) for each in got):
            place = places.get(event_id, newest[image_id])
            if place < newest[image_id]:
                yield Finding(image_id or receiver.name, f"{receiver.name} got {event_id} after a later one")
            newest[image_id] = place


def what_is_sent_is_genuine(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Whatever is sent is an event of the log that the receiver wants, signed where it must be, and always the same."""
    known = {event.id: event for event in snapshot.log}
    documents: dict[tuple[Way, str], str] = {}
    for receiver, got in _receivers(history, *Way):
        for each in got:
            event = known.get(each.event_id)
            if each.wrong is not None:
                yield Finding(receiver.name, f"{each.event_id}: {each.wrong}")
            if event is None:
                if each.type not in {RESET, BOUND} and position_in(each.event_id) > _purged(snapshot):
                    yield Finding(receiver.name, f"it got {each.event_id}, which is not in the log")
            elif (each.type, each.image_id) != (event.type, event.image_id):
                yield Finding(receiver.name, f"{each.event_id} is {event.type}, but was sent as {each.type}")
            elif not _wants(receiver, event):
                yield Finding(receiver.name, f"it got {each.event_id}, {event.type}, which it does not want")
            pushed = receiver.way in {Way.WEBHOOK, Way.EXCHANGE}  # others have the URLs of their requests
            if pushed and documents.setdefault((receiver.way, each.event_id), each.document) != each.document:
                yield Finding(receiver.name, f"{each.event_id} was sent with different contents")


def delivered_is_true(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """A delivery is recorded as made only by the holder of its newest attempt, if that was answered with success."""
    for row in snapshot.deliveries:
        newest = snapshot.attempts.get((row["id"], row["attempt"]))
        if row["status"] == DELIVERED and (newest is None or newest["status"] not in SUCCESS):
            what = "is not recorded" if newest is None else f"was answered {newest['status']}"
            yield Finding(
                str(row["webhook_id"]), f"its delivery {row['id']} is made, but attempt {row['attempt']} {what}"
            )


def deliveries_end(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Every delivery is made, and no lease on one is held, when the service is idle and the endpoints are well."""
    for row in snapshot.deliveries:
        if row["status"] != DELIVERED or row["due_at"] is not None or row["lease_until"] is not None:
            yield Finding(str(row["webhook_id"]), f"its delivery {row['id']} is still {row['status']}")


def _lives(snapshot: Snapshot) -> Mapping[str, Sequence[LogEvent]]:
    """Return the events by image, from where on the log is complete: some that are needed outlive later ones."""
    lives: dict[str, list[LogEvent]] = defaultdict(list)
    for event in snapshot.log:
        if event.image_id is not None and event.position > _purged(snapshot):
            lives[event.image_id].append(event)
    return lives


def _contradiction(types: Sequence[str], row: Row | None, *, excused: bool) -> str | None:
    """Return what of the image's present state its events do not say."""
    last = types[-1]
    if row is None or (excused and row["status"] in ENDS and last != DELETED):
        return None
    if last == DELETED:
        return "the log says that it is deleted, but it exists"
    if STATES.get(last) != (row["status"] if row["status"] in ENDS else None):
        return f"it is {row['status']}, but the last event is {last}"
    complete = row["status"] == DONE and row["recipe_name"] == LATE and row["recipe"] is not None
    return "its late outputs have no event" if complete and last != OUTPUT else None


def _differences(event: LogEvent, row: Row, thumbnails: Iterable[Row]) -> Iterator[str]:
    for name in (event.image.keys() & row.keys()) - CHANGE_WITHOUT_EVENT:
        shown, recorded = comparable(name, event.image[name]), comparable(name, row[name])
        if shown != recorded:
            yield f"shows {name} as {shown}, but recorded is {recorded}"
    shown = {each["output"]: (each["key"], each["sha256"]) for each in event.image.get("thumbnails") or ()}
    recorded = {each["preset"]: (each["key"], each["sha256"]) for each in thumbnails}
    if shown != recorded:
        yield f"shows the thumbnails {shown}, but recorded are {recorded}"


def _receivers(history: History, *ways: Way) -> Iterator[tuple[Receiver, Sequence[Received]]]:
    for receiver in history.receivers:
        if receiver.way in ways:
            yield receiver, history.received.get(receiver.name, ())


def _wants(receiver: Receiver, event: LogEvent) -> bool:
    if receiver.after is not None and event.position <= position_in(receiver.after):
        return False
    if receiver.way is Way.WEBHOOK and event.only not in {None, receiver.webhook_id}:
        return False
    return receiver.types is None or event.type in receiver.types


def _missing(
    receiver: Receiver, got: Sequence[Received], snapshot: Snapshot, excused: AbstractSet[int] = frozenset()
) -> Iterator[Finding]:
    confirmed = {each.event_id for each in got if each.accepted}
    for number, event in enumerate(snapshot.log):
        if _wants(receiver, event) and event.id not in confirmed and number not in excused:
            tried = sum(each.event_id == event.id for each in got)
            what = f"{event.id}, {event.type} of {event.image_id}"
            yield Finding(receiver.name, f"it has not got {what}; tries: {tried}")
            break


def _lost_with_the_queue(got: Sequence[Received], places: Mapping[str, int]) -> set[int]:
    """Return the places of events that a queue may have held, or missed, when the broker lost it."""
    lost: set[int] = set()
    last: int | None = None
    gone = False
    for each in got:
        place = places.get(each.event_id)
        if each.type == BOUND and last is not None:
            gone = True
        if place is None:
            continue
        if gone and last is not None and place > last:
            lost |= {*range(last - BATCH, place + BATCH)}
            gone = False
        last = max(last or 0, place)
    return lost | ({*range(last - BATCH, len(places))} if gone and last is not None else set())


def _purged(snapshot: Snapshot) -> tuple[int, int]:
    return snapshot.positions.get("purged", START)


def position_in(event_id: str) -> tuple[int, int]:
    """Return the position that an event's id names."""
    _, _, transaction, number = event_id.split("_")
    return int(transaction), int(number)
