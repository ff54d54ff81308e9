"""The invariants: named functions from history and snapshot to findings.

Independent of the service's code; see ``evidence``.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from tests.faults import event_rules
from tests.faults.evidence import EXTENSIONS, Row, Served, Snapshot, image_in, moment, original_path
from tests.faults.finding import DONE, ERROR, Finding, Rule
from tests.faults.history import OK, UNKNOWN, Exchange, History, Operation, Picture, Sent
from tests.faults.output_rules import IN_DOUBT, done_is_complete, outputs_follow, recipe_is_kept
from tests.faults.recipes import DEFAULT

TERMINAL = frozenset({DONE, ERROR})
VERDICTS = {Picture.CORRUPT: frozenset({"corrupt-image"}), Picture.POISON: frozenset({"decoder-timeout"})}
"""The accepted error codes of images that must end in ERROR."""
FAULT_CODES = {
    "kill-decoder": "decoder-crashed",
    "kill-worker": "attempts-exhausted",
    "pause-worker": "attempts-exhausted",
    "step-database-clock": "attempts-exhausted",
}
"""Faults that can give a poison image's last attempt another error code; some end leases, and the attempts count."""
REFUSALS = frozenset({400, 413, 415, 422})
"""Status codes that reject the file itself."""
ANSWER_LIMIT = 6.0
"""Seconds from the last byte sent to the response, during any fault."""
ALLOWANCE = 0.5
"""Additional seconds on an idle machine, for the processes' own work; the limit itself is made of timers."""
REFUSED_FROM, NOT_FOUND, UNAVAILABLE = 400, 404, 503
RECOVERY = 15.0
"""Seconds after the last fault from which every valid upload is accepted."""
KEY_REUSED = "idempotency-key-reused"


def accepted_ends(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Every accepted image exists and is DONE or ERROR."""
    accepted = {upload.image_id for upload in history.of(Operation.UPLOAD) if upload.outcome == OK and upload.image_id}
    for image_id in sorted(accepted - snapshot.images.keys() - _perhaps_deleted(history)):
        yield Finding(image_id, "it was accepted, but is not in the database")
    for image_id, row in snapshot.images.items():
        if row["status"] not in TERMINAL:
            yield Finding(image_id, f"it is still {row['status']}")


def accepted_is_known(history: History, _snapshot: Snapshot) -> Iterator[Finding]:
    """An accepted image is never answered with 404 before it is deleted."""
    for image_id, exchanges in history.by_image().items():
        accepted = [each.ended for each in exchanges if each.operation is Operation.UPLOAD and each.outcome == OK]
        deletion = min((each.began for each in exchanges if each.operation is Operation.DELETE), default=float("inf"))
        for each in exchanges:
            unknown = each.status_code == NOT_FOUND and each.operation in {Operation.STATUS, Operation.ORIGINAL}
            if unknown and accepted and min(accepted) < each.began and each.ended < deletion:
                yield Finding(image_id, f"it was accepted, but answered with 404 at {each.ended:.3f}")


def nothing_from_nothing(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Every image was uploaded and not rejected, and there are no more images than uploads."""
    chances: dict[str, int] = defaultdict(int)
    for upload in history.of(Operation.UPLOAD):
        if upload.sent is not None and (upload.outcome == OK or upload.in_doubt):
            chances[upload.sent.sha256] += 1
    for image_id, row in snapshot.images.items():
        chances[row["sha256"]] -= 1
        if chances[row["sha256"]] < 0:
            yield Finding(image_id, "it was never uploaded, or it was rejected")


def one_key_one_image(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """All uploads under one Idempotency-Key are one image, which belongs to no other key."""
    answers: dict[str, set[tuple[str, str]]] = defaultdict(set)
    keys: dict[str, set[str | None]] = defaultdict(set)
    for upload in history.of(Operation.UPLOAD):
        if upload.sent is not None:
            keys[upload.sent.sha256].add(upload.sent.key)
            if upload.sent.key is not None and upload.outcome == OK:
                answers[upload.sent.key].add((upload.image_id or "", upload.sent.sha256))
    for key, accepted in answers.items():
        if len(accepted) > 1:
            yield Finding(min(accepted)[0], f"the key {key} was accepted for several images or contents: {accepted}")
    rows: dict[str, list[str]] = defaultdict(list)
    for image_id, row in snapshot.images.items():
        rows[row["sha256"]].append(image_id)
    for sha256, twins in rows.items():
        # An upload repeated without a key correctly becomes a second image.
        if keys[sha256] and None not in keys[sha256] and len(twins) > len(keys[sha256]):
            yield Finding(min(twins), f"it was uploaded under {keys[sha256]} only, but exists as {sorted(twins)}")


def original_is_what_was_sent(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Every original equals the uploaded file, byte for byte."""
    sent = _sent(history, snapshot)
    for image_id, row in snapshot.images.items():
        if row.get("original_removed_at") is not None:
            continue
        try:
            content = (snapshot.storage / original_path(image_id)).read_bytes()
        except OSError as error:
            yield Finding(image_id, f"its original cannot be read: {error}")
            continue
        sha256 = hashlib.sha256(content).hexdigest()
        if (sha256, len(content)) != (row["sha256"], row["size_bytes"]):
            yield Finding(
                image_id, f"its original has {len(content)} bytes and the digest {sha256}, other than recorded"
            )
        if image_id in sent and sent[image_id].sha256 != sha256:
            yield Finding(image_id, f"its original has the digest {sha256}, but {sent[image_id].sha256} was sent")


def served_is_stored(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """The API reports each image as recorded, and serves the recorded files."""
    for image_id, served in snapshot.served.items():
        row = snapshot.images[image_id]
        files: dict[str, str] = {}
        for thumbnail in snapshot.thumbnails.get(image_id, ()):
            name, kind = thumbnail["preset"], thumbnail["content_type"].removeprefix("image/")
            if "." not in name and "@" not in name:
                files[name] = thumbnail["sha256"]
            files[f"{name.partition('.')[0]}.{EXTENSIONS.get(kind, kind)}"] = thumbnail["sha256"]
        if row.get("original_removed_at") is None:
            files["original"] = row["sha256"]
        for wrong in _differences(row, files, served):
            yield Finding(image_id, wrong)


def no_orphan_files(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Every file belongs to a row, or is recorded for removal."""
    named = {original_path(image_id) for image_id in snapshot.images}
    named |= {thumbnail["key"] for thumbnails in snapshot.thumbnails.values() for thumbnail in thumbnails}
    # Replaced thumbnails stay for a while for clients that already have their URL.
    named |= {path for path, since in snapshot.removals.items() if since.timestamp() > snapshot.seen_at}
    for path in sorted(snapshot.files - named):
        yield Finding(image_in(path), f"no row names the file {path}")


def no_scratch_left(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """No temporary file is left over; empty scratch folders are reused."""
    for name in sorted(snapshot.scratch):
        yield Finding(name, f"scratch/{name} is left over")


def terminal_stays(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """DONE and ERROR never change unless reprocessing was requested."""
    requested: dict[str, list[Exchange]] = defaultdict(list)
    for each in history.of(Operation.REPROCESS):
        if each.image_id and (each.outcome == OK or each.in_doubt):
            requested[each.image_id].append(each)
    for image_id, observations in _observations(history, snapshot).items():
        # Overlapping reads have no defined order.
        changes = (
            (earlier, later)
            for earlier in observations
            for later in observations
            if earlier.state in TERMINAL
            and earlier.ended < later.began
            and later.what != earlier.what
            and not any(_takes_effect_between(earlier, each, later) for each in requested[image_id])
        )
        for earlier, later in islice(changes, 1):
            yield Finding(image_id, f"it was {earlier} and then {later}, without a request for reprocessing")


def valid_is_done(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """A valid image is never rejected, and never ends in ERROR."""
    for image_id in _of_kind(Picture.VALID, history, snapshot):
        row = snapshot.images[image_id]
        if row["status"] == ERROR:
            yield Finding(image_id, f"it is valid, but ended in ERROR: {row['error_code']}")
    for upload in history.of(Operation.UPLOAD):
        valid = upload.sent is not None and upload.sent.picture is Picture.VALID
        if valid and upload.status_code in REFUSALS and upload.code != KEY_REUSED:
            yield Finding(upload.server, f"a valid image was rejected with {upload.code}", upload)


def corrupt_ends_error(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """A corrupt image ends in ERROR with the right error code."""
    yield from _not_in_error(Picture.CORRUPT, VERDICTS[Picture.CORRUPT], history, snapshot)


def poison_ends_error(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """A poison image ends in ERROR with the right error code."""
    faults = {fault.kind for fault in history.faults}
    verdicts = VERDICTS[Picture.POISON] | {code for kind, code in FAULT_CODES.items() if kind in faults}
    yield from _not_in_error(Picture.POISON, verdicts, history, snapshot)


def deleted_stays_deleted(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """A deleted image is never seen again, and its rows and files are gone."""
    gone = _deleted(history)
    for image_id in sorted(gone.keys() & snapshot.images.keys()):
        yield Finding(image_id, "it was deleted, but is in the database")
    for path in sorted(snapshot.files):
        if image_in(path) in gone:
            yield Finding(image_in(path), f"it was deleted, but the file {path} exists")
    for each in history.of(Operation.STATUS, Operation.ORIGINAL, Operation.THUMBNAIL):
        since = gone.get(each.image_id or "", float("inf"))
        if each.image_id is not None and each.outcome == OK and each.began > since:
            yield Finding(each.image_id, f"it was deleted at {since:.3f}, but seen at {each.ended:.3f}")


def files_are_what_was_stored(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Every downloaded file was complete and correct."""
    sent = _sent(history, snapshot)
    reprocessed = {each.image_id for each in history.of(Operation.REPROCESS)}
    thumbnails = {
        (image_id, thumbnail["preset"]): thumbnail["sha256"]
        for image_id, its in snapshot.thumbnails.items()
        for thumbnail in its
    }
    for each in history.of(Operation.ORIGINAL, Operation.THUMBNAIL):
        if each.outcome != OK or each.image_id is None or each.seen is None:
            continue
        if each.operation is Operation.ORIGINAL:
            expected = sent[each.image_id].sha256 if each.image_id in sent else None
        else:
            expected = thumbnails.get((each.image_id, each.seen.preset)) if each.image_id not in reprocessed else None
        if expected is not None and each.seen.sha256 != expected:
            what = each.seen.preset or "original"
            yield Finding(each.image_id, f"its {what} was served with the digest {each.seen.sha256}, not {expected}")


def answers_in_time(history: History, _snapshot: Snapshot) -> Iterator[Finding]:
    """Every response arrives within six seconds."""
    for each in history.exchanges:
        if each.waited - each.wait > ANSWER_LIMIT + ALLOWANCE * each.slowness and not was_down(history, each):
            yield Finding(
                each.image_id or each.server, f"{each.operation} took {each.waited:.1f} s: {_answer(each)}", each
            )


def answers_are_clean(history: History, _snapshot: Snapshot) -> Iterator[Finding]:
    """Every request gets a success response or a problem document; a temporary problem says when to try again."""
    for each in history.exchanges:
        if each.status_code is None:
            clean = was_down(history, each)
        elif each.status_code < REFUSED_FROM:
            clean = True
        else:
            clean = each.problem and each.code is not None and each.outcome != UNKNOWN
            clean = clean and (each.status_code != UNAVAILABLE or each.retry_after)
        if not clean:
            yield Finding(each.image_id or each.server, f"{each.operation}: {_answer(each)}", each)


def uploads_are_accepted_again(history: History, _snapshot: Snapshot) -> Iterator[Finding]:
    """After the faults, uploads are accepted again, by processes that were not restarted."""
    over = max((fault.ended for fault in history.faults), default=float("inf")) + RECOVERY
    for each in history.of(Operation.UPLOAD):
        valid = each.sent is not None and each.sent.picture is Picture.VALID
        if valid and each.began > over and each.outcome != OK and each.code != KEY_REUSED:
            yield Finding(
                each.server, f"an upload {each.began - over + RECOVERY:.0f} s after the faults: {_answer(each)}", each
            )


def queues_are_empty(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """All queues are empty when the service is idle."""
    for name, depth in snapshot.queues.items():
        if depth:
            yield Finding(name, f"{depth} messages are ready in {name}")


def dead_letters_are_garbage(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Only malformed messages are dead-lettered."""
    garbage = [each.body for each in history.garbage]
    for body in snapshot.dead_letters:
        if body in garbage:
            garbage.remove(body)
        else:
            yield Finding(image_in(body), f"a message was dead-lettered: {body[:200]}")


def no_lease_is_held(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """No lease is held on a finished image, nor on its outputs."""
    for image_id, row in snapshot.images.items():
        for column in ("lease_until", "outputs_lease_until"):
            if row[column] is not None:
                yield Finding(image_id, f"it is {row['status']} and its {column} is {row[column]}")


def decoders_rest(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """No decoder process is busy when the service is idle, or outlives its worker."""
    for owner, decoders in snapshot.decoders.items():
        for decoder in decoders:
            if not owner:
                yield Finding(str(decoder.pid), f"the decoder process {decoder.pid} has outlived its worker")
            elif decoder.busy:
                yield Finding(
                    str(decoder.pid), f"the decoder process {decoder.pid} of {owner} is busy while the service is idle"
                )


IDLE_RULES: dict[str, Rule] = {
    "streams-miss-nothing": event_rules.streams_miss_nothing,
    "webhooks-miss-nothing": event_rules.webhooks_miss_nothing,
    "exchange-misses-nothing": event_rules.exchange_misses_nothing,
    "deliveries-return-to-zero": event_rules.deliveries_end,
    "accepted-image-ends": accepted_ends,
    "no-orphan-file": no_orphan_files,
    "no-scratch-left": no_scratch_left,
    "deleted-stays-deleted": deleted_stays_deleted,
    "queues-return-to-zero": queues_are_empty,
    "leases-return-to-zero": no_lease_is_held,
    "outputs-follow": outputs_follow,
    "decoders-return-to-zero": decoders_rest,
}
"""The rules that may be violated while the service is busy."""

RULES: dict[str, Rule] = {
    **IDLE_RULES,
    "accepted-image-is-known": accepted_is_known,
    "no-image-from-nothing": nothing_from_nothing,
    "one-key-one-image": one_key_one_image,
    "original-is-what-was-sent": original_is_what_was_sent,
    "done-is-complete": done_is_complete,
    "recipe-is-kept": recipe_is_kept,
    "served-is-stored": served_is_stored,
    "download-is-right": files_are_what_was_stored,
    "terminal-stays": terminal_stays,
    "valid-image-is-done": valid_is_done,
    "corrupt-image-ends-error": corrupt_ends_error,
    "poison-image-ends-error": poison_ends_error,
    "dead-letters-are-garbage": dead_letters_are_garbage,
    "answer-in-time": answers_in_time,
    "answer-is-clean": answers_are_clean,
    "uploads-are-accepted-again": uploads_are_accepted_again,
    "every-change-has-its-event": event_rules.every_change_has_its_event,
    "no-event-of-nothing": event_rules.no_event_of_nothing,
    "events-show-the-image": event_rules.events_show_the_image,
    "answers-agree-with-the-log": event_rules.answers_agree_with_the_log,
    "delivered-is-true": event_rules.delivered_is_true,
    "what-is-sent-is-genuine": event_rules.what_is_sent_is_genuine,
}
"""All invariants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Observation:
    """One observation of an image's state."""

    began: float
    ended: float
    state: str
    finished: datetime | None
    code: str | None

    @property
    def what(self) -> tuple[object, ...]:
        return self.state, self.finished, self.code

    def __str__(self) -> str:
        return f"{self.state} ({self.code or 'no error'}, finished {self.finished}) at {self.ended:.3f}"


def _observations(history: History, snapshot: Snapshot) -> Mapping[str, list[_Observation]]:
    """Return every status read, followed by the row in the database."""
    observations: dict[str, list[_Observation]] = defaultdict(list)
    for each in history.of(Operation.STATUS):
        if each.outcome == OK and each.image_id is not None and each.seen is not None and each.seen.state is not None:
            observations[each.image_id].append(
                _Observation(
                    began=each.began,
                    ended=each.ended,
                    state=each.seen.state,
                    finished=moment(each.seen.finished_at),
                    code=each.seen.code,
                )
            )
    for image_id in observations.keys() & snapshot.images.keys():
        row = snapshot.images[image_id]
        observations[image_id].append(
            _Observation(
                began=snapshot.seen_at,
                ended=snapshot.seen_at,
                state=row["status"],
                finished=moment(row["finished_at"]),
                code=row["error_code"],
            )
        )
    return observations


def _takes_effect_between(earlier: _Observation, asked: Exchange, later: _Observation) -> bool:
    """Whether a request for another rendering may have taken effect between two observations."""
    until = asked.ended + (IN_DOUBT if asked.in_doubt else 0)
    return asked.began <= later.ended and earlier.began <= until


def _deleted(history: History) -> Mapping[str, float]:
    """Return the images that are certainly deleted, with the time."""
    gone: dict[str, float] = {}
    for each in history.of(Operation.DELETE):
        # A repeated deletion, after the first one's response was lost, gets 404.
        if each.image_id is not None and (each.outcome == OK or each.status_code == NOT_FOUND):
            gone[each.image_id] = min(each.ended, gone.get(each.image_id, each.ended))
    return gone


def _perhaps_deleted(history: History) -> set[str]:
    deletions = history.of(Operation.DELETE)
    return {each.image_id for each in deletions if each.image_id is not None and (each.outcome == OK or each.in_doubt)}


def _sent(history: History, snapshot: Snapshot) -> Mapping[str, Sent]:
    """Return the upload of each image, including images without a success response."""
    uploads = [upload for upload in history.of(Operation.UPLOAD) if upload.sent is not None]
    by_content = {upload.sent.sha256: upload.sent for upload in uploads if upload.sent is not None}
    recorded = {
        image_id: by_content[row["sha256"]] for image_id, row in snapshot.images.items() if row["sha256"] in by_content
    }
    told = {upload.image_id: upload.sent for upload in uploads if upload.outcome == OK and upload.image_id}
    return recorded | {image_id: sent for image_id, sent in told.items() if sent is not None}


def _of_kind(picture: Picture, history: History, snapshot: Snapshot) -> list[str]:
    """Return the existing images of a kind."""
    return [
        image_id
        for image_id, sent in _sent(history, snapshot).items()
        if sent.picture is picture and image_id in snapshot.images
    ]


def _not_in_error(
    picture: Picture, verdicts: AbstractSet[str], history: History, snapshot: Snapshot
) -> Iterator[Finding]:
    for image_id in _of_kind(picture, history, snapshot):
        row = snapshot.images[image_id]
        if row["status"] == DONE:
            yield Finding(image_id, f"it is {picture}, but became DONE")
        elif row["status"] == ERROR and row["error_code"] not in verdicts:
            yield Finding(image_id, f"it is {picture}, but ended in ERROR because of {row['error_code']}")


def _differences(row: Row, files: Mapping[str, str], served: Served) -> Iterator[str]:
    if served.status["status"] != row["status"]:
        yield f"it is recorded as {row['status']}, but reported as {served.status['status']}"
    if "recipe" in served.status and served.status["recipe"] != (row["recipe_name"] or DEFAULT):
        yield f"its recipe is recorded as {row['recipe_name']}, but reported as {served.status['recipe']}"
    for name in sorted(files.keys() | served.files.keys()):
        if files.get(name) != served.files.get(name):
            yield f"its {name} is recorded with the digest {files.get(name)} but served as {served.files.get(name)}"


def was_down(history: History, each: Exchange) -> bool:
    """Whether the API process was being killed or restarted during the request."""
    return any(
        fault.subject == each.server and fault.began <= each.ended and each.began <= fault.ended
        for fault in history.faults
    )


def _answer(each: Exchange) -> str:
    return f"{each.status_code} {each.code or ''}" if each.status_code is not None else f"no answer: {each.error}"
