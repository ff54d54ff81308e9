"""The promises. Each is a function from the history and the world to what broke it, under a name of its own.

Nothing here knows the service's code: see ``evidence``.
"""

import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TypeAlias

from PIL import Image

from tests.faults.evidence import Row, Served, Snapshot, image_in, moment, original_path
from tests.faults.history import OK, UNKNOWN, Exchange, History, Operation, Picture, Sent

DONE, ERROR = "DONE", "ERROR"
TERMINAL = frozenset({DONE, ERROR})
PRESETS = {"100x100": (100, 100), "300x300": (300, 300), "1200x1200": (1200, 1200)}
"""The thumbnails that every image gets, and the box that each fits inside."""
VERDICTS = {Picture.CORRUPT: frozenset({"corrupt-image"}), Picture.POISON: frozenset({"decoder-timeout"})}
"""The reasons that an image may be given for its end in ERROR."""
BAD_LUCK = {"kill-decoder": "decoder-crashed", "kill-worker": "attempts-exhausted"}
"""Faults that can give a poison image's last attempt another reason."""
REFUSALS = frozenset({400, 413, 415, 422})
"""The answers that blame the file."""
ANSWER_LIMIT = 6.0
"""Seconds from the last byte sent to the answer, whatever is broken."""
ALLOWANCE = 0.5
"""Seconds more, for the client's own part in it on a busy host."""
REFUSED_FROM, NOT_FOUND = 400, 404
KEY_REUSED = "idempotency-key-reused"
ORIENTATION, SIDEWAYS = 0x0112, range(5, 9)
"""The EXIF tag, and its values for pictures that lie on their side."""
IN_DOUBT = 15.0
"""Seconds for which something that was asked for may still happen although nobody waits for it any more."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule says."""

    subject: str
    """An image's id, or whatever else it is about."""
    what: str
    exchange: Exchange | None = None
    """The request that shows it, where it was only one."""


Rule: TypeAlias = Callable[[History, Snapshot], Iterator[Finding]]


def accepted_ends(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Every accepted image is there, and DONE or ERROR."""
    accepted = {upload.image_id for upload in history.of(Operation.UPLOAD) if upload.outcome == OK and upload.image_id}
    for image_id in sorted(accepted - snapshot.images.keys() - _perhaps_deleted(history)):
        yield Finding(image_id, "it was accepted, and is not in the database")
    for image_id, row in snapshot.images.items():
        if row["status"] not in TERMINAL:
            yield Finding(image_id, f"it is still {row['status']}")


def accepted_is_known(history: History, _snapshot: Snapshot) -> Iterator[Finding]:
    """From its acceptance on, everybody is told of an image, until it is deleted."""
    for image_id, exchanges in history.by_image().items():
        accepted = [each.ended for each in exchanges if each.operation is Operation.UPLOAD and each.outcome == OK]
        deletion = min((each.began for each in exchanges if each.operation is Operation.DELETE), default=float("inf"))
        for each in exchanges:
            unknown = each.status_code == NOT_FOUND and each.operation in {Operation.STATUS, Operation.ORIGINAL}
            if unknown and accepted and min(accepted) < each.began and each.ended < deletion:
                yield Finding(image_id, f"it was accepted, and denied at {each.ended:.3f}")


def nothing_from_nothing(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Every image is one that somebody sent and nobody was refused, and there are not more than were sent."""
    chances: dict[str, int] = defaultdict(int)
    for upload in history.of(Operation.UPLOAD):
        if upload.sent is not None and (upload.outcome == OK or upload.in_doubt):
            chances[upload.sent.sha256] += 1
    for image_id, row in snapshot.images.items():
        chances[row["sha256"]] -= 1
        if chances[row["sha256"]] < 0:
            yield Finding(image_id, "nobody has sent it, or it was refused")


def one_key_one_image(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """However often an upload is repeated under its Idempotency-Key, it is one image; and no other upload's."""
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
        # An upload that is repeated without a key wait_for_state a second image, rightly.
        if keys[sha256] and None not in keys[sha256] and len(twins) > len(keys[sha256]):
            yield Finding(min(twins), f"it was uploaded under {keys[sha256]} only, and is there as {sorted(twins)}")


def original_is_what_was_sent(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Byte for byte."""
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
            yield Finding(image_id, f"its original has the digest {sha256}, and {sent[image_id].sha256} was sent")


def done_is_complete(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """DONE means that all thumbnails are there, are pictures of the right size, and are those that are recorded."""
    for image_id, row in snapshot.images.items():
        thumbnails = {thumbnail["preset"]: thumbnail for thumbnail in snapshot.thumbnails.get(image_id, ())}
        if row["status"] == DONE and (missing := PRESETS.keys() - thumbnails.keys()):
            yield Finding(image_id, f"it is DONE without {', '.join(sorted(missing))}")
        upright = _upright_size(snapshot, image_id) if row["status"] == DONE else None
        for preset, thumbnail in thumbnails.items():
            for wrong in _wrong_with(snapshot, thumbnail, upright):
                yield Finding(image_id, f"its thumbnail {preset} {wrong}")


def served_is_stored(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """HTTP tells of each image what is recorded, and serves the files that are."""
    for image_id, served in snapshot.served.items():
        row = snapshot.images[image_id]
        files = {thumbnail["preset"]: thumbnail["sha256"] for thumbnail in snapshot.thumbnails.get(image_id, ())}
        if row.get("original_removed_at") is None:
            files["original"] = row["sha256"]
        for wrong in _differences(row, files, served):
            yield Finding(image_id, wrong)


def no_orphan_files(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Every file belongs to a row, or is about to be removed."""
    named = {original_path(image_id) for image_id in snapshot.images}
    named |= {thumbnail["key"] for thumbnails in snapshot.thumbnails.values() for thumbnail in thumbnails}
    # What was replaced stays for those who are on the way to it.
    named |= {path for path, since in snapshot.removals.items() if since.timestamp() > snapshot.seen_at}
    for path in sorted(snapshot.files - named):
        yield Finding(image_in(path), f"no row names the file {path}")


def no_scratch_left(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """No temporary file is left over; an empty folder waits for its next use."""
    for name in sorted(snapshot.scratch):
        yield Finding(name, f"scratch/{name} is left over")


def terminal_stays(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """DONE and ERROR never change, unless somebody asks for another rendering."""
    again: dict[str, list[Exchange]] = defaultdict(list)
    for each in history.of(Operation.REPROCESS):
        if each.image_id and (each.outcome == OK or each.in_doubt):
            again[each.image_id].append(each)
    for image_id, sights in _sights(history, snapshot).items():
        # Of reads that overlap, nobody can tell which came first.
        changes = (
            (earlier, later)
            for earlier in sights
            for later in sights
            if earlier.state in TERMINAL
            and earlier.ended < later.began
            and later.what != earlier.what
            and not any(_between(earlier, each, later) for each in again[image_id])
        )
        for earlier, later in islice(changes, 1):
            yield Finding(image_id, f"it was {earlier} and then {later}, and nobody had asked for that")


def valid_is_done(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """A valid image is never refused, and never ends in ERROR."""
    for image_id in _of_kind(Picture.VALID, history, snapshot):
        row = snapshot.images[image_id]
        if row["status"] == ERROR:
            yield Finding(image_id, f"it is valid, and ended in ERROR: {row['error_code']}")
    for upload in history.of(Operation.UPLOAD):
        valid = upload.sent is not None and upload.sent.picture is Picture.VALID
        if valid and upload.status_code in REFUSALS and upload.code != KEY_REUSED:
            yield Finding(upload.server, f"a valid image was refused with {upload.code}", upload)


def corrupt_ends_error(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """A corrupt image ends in ERROR, and the reason that is given is the right one."""
    yield from _not_in_error(Picture.CORRUPT, VERDICTS[Picture.CORRUPT], history, snapshot)


def poison_ends_error(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """So does one that costs too much."""
    faults = {fault.kind for fault in history.faults}
    verdicts = VERDICTS[Picture.POISON] | {code for kind, code in BAD_LUCK.items() if kind in faults}
    yield from _not_in_error(Picture.POISON, verdicts, history, snapshot)


def deleted_stays_deleted(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """A deleted image is gone for everybody, its files too."""
    gone = _deleted(history)
    for image_id in sorted(gone.keys() & snapshot.images.keys()):
        yield Finding(image_id, "it was deleted, and is in the database")
    for path in sorted(snapshot.files):
        if image_in(path) in gone:
            yield Finding(image_in(path), f"it was deleted, and the file {path} is there")
    for each in history.of(Operation.STATUS, Operation.ORIGINAL, Operation.THUMBNAIL):
        since = gone.get(each.image_id or "", float("inf"))
        if each.image_id is not None and each.outcome == OK and each.began > since:
            yield Finding(each.image_id, f"it was deleted at {since:.3f} and seen at {each.ended:.3f}")


def files_are_what_was_stored(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """What was downloaded meanwhile was whole and right."""
    sent = _sent(history, snapshot)
    again = {each.image_id for each in history.of(Operation.REPROCESS)}
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
            expected = thumbnails.get((each.image_id, each.seen.preset)) if each.image_id not in again else None
        if expected is not None and each.seen.sha256 != expected:
            what = each.seen.preset or "original"
            yield Finding(each.image_id, f"its {what} was served with the digest {each.seen.sha256}, not {expected}")


def answers_in_time(history: History, _snapshot: Snapshot) -> Iterator[Finding]:
    """Nobody waits for an answer for longer than six seconds."""
    for each in history.exchanges:
        if each.waited > ANSWER_LIMIT + ALLOWANCE and not was_down(history, each):
            yield Finding(
                each.image_id or each.server, f"{each.operation} took {each.waited:.1f} s: {_answer(each)}", each
            )


def answers_are_clean(history: History, _snapshot: Snapshot) -> Iterator[Finding]:
    """Every answer is what was asked for, or a problem document that says why not; none is missing."""
    for each in history.exchanges:
        if each.status_code is None:
            clean = was_down(history, each)
        elif each.status_code < REFUSED_FROM:
            clean = True
        else:
            clean = each.problem and each.code is not None and each.outcome != UNKNOWN
        if not clean:
            yield Finding(each.image_id or each.server, f"{each.operation}: {_answer(each)}", each)


def queues_are_empty(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """No message waits when there is nothing to do."""
    for name, depth in snapshot.queues.items():
        if depth:
            yield Finding(name, f"{depth} messages wait in {name}")


def dead_letters_are_garbage(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """No message is given up but those that nobody can understand."""
    garbage = [each.body for each in history.garbage]
    for body in snapshot.dead_letters:
        if body in garbage:
            garbage.remove(body)
        else:
            yield Finding(image_in(body), f"a message was dead-lettered: {body[:200]}")


def no_lease_is_held(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Nobody holds an image that is finished."""
    for image_id, row in snapshot.images.items():
        if row["lease_until"] is not None:
            yield Finding(image_id, f"it is {row['status']} and held until {row['lease_until']}")


def decoders_rest(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """No decoder process works on nothing, or has outlived its worker."""
    for owner, decoders in snapshot.decoders.items():
        for decoder in decoders:
            if not owner:
                yield Finding(str(decoder.pid), f"the decoder process {decoder.pid} has outlived its worker")
            elif decoder.busy:
                yield Finding(str(decoder.pid), f"the decoder process {decoder.pid} of {owner} is at work on nothing")


RESTING: dict[str, Rule] = {
    "accepted-image-ends": accepted_ends,
    "no-orphan-file": no_orphan_files,
    "no-scratch-left": no_scratch_left,
    "deleted-stays-deleted": deleted_stays_deleted,
    "queues-return-to-zero": queues_are_empty,
    "leases-return-to-zero": no_lease_is_held,
}
"""What may be otherwise for a while."""

RULES: dict[str, Rule] = {
    **RESTING,
    "accepted-image-is-known": accepted_is_known,
    "no-image-from-nothing": nothing_from_nothing,
    "one-key-one-image": one_key_one_image,
    "original-is-what-was-sent": original_is_what_was_sent,
    "done-is-complete": done_is_complete,
    "served-is-stored": served_is_stored,
    "download-is-right": files_are_what_was_stored,
    "terminal-stays": terminal_stays,
    "valid-image-is-done": valid_is_done,
    "corrupt-image-ends-error": corrupt_ends_error,
    "poison-image-ends-error": poison_ends_error,
    "dead-letters-are-garbage": dead_letters_are_garbage,
    "decoders-return-to-zero": decoders_rest,
    "answer-in-time": answers_in_time,
    "answer-is-clean": answers_are_clean,
}
"""All invariants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sight:
    """What somebody saw of an image's state."""

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


def _sights(history: History, snapshot: Snapshot) -> Mapping[str, list[_Sight]]:
    """Every read of a status, and the last of all: the database's own."""
    sights: dict[str, list[_Sight]] = defaultdict(list)
    for each in history.of(Operation.STATUS):
        if each.outcome == OK and each.image_id is not None and each.seen is not None and each.seen.state is not None:
            sights[each.image_id].append(
                _Sight(
                    began=each.began,
                    ended=each.ended,
                    state=each.seen.state,
                    finished=moment(each.seen.finished_at),
                    code=each.seen.code,
                )
            )
    for image_id in sights.keys() & snapshot.images.keys():
        row = snapshot.images[image_id]
        sights[image_id].append(
            _Sight(
                began=snapshot.seen_at,
                ended=snapshot.seen_at,
                state=row["status"],
                finished=moment(row["finished_at"]),
                code=row["error_code"],
            )
        )
    return sights


def _between(earlier: _Sight, asked: Exchange, later: _Sight) -> bool:
    """Whether a request for another rendering may have taken effect between two sights."""
    until = asked.ended + (IN_DOUBT if asked.in_doubt else 0)
    return asked.began <= later.ended and earlier.began <= until


def _deleted(history: History) -> Mapping[str, float]:
    """The images that are gone for certain, and since when."""
    gone: dict[str, float] = {}
    for each in history.of(Operation.DELETE):
        # The second of two deletions, of which the first one's answer got lost, finds nothing.
        if each.image_id is not None and (each.outcome == OK or each.status_code == NOT_FOUND):
            gone[each.image_id] = min(each.ended, gone.get(each.image_id, each.ended))
    return gone


def _perhaps_deleted(history: History) -> set[str]:
    deletions = history.of(Operation.DELETE)
    return {each.image_id for each in deletions if each.image_id is not None and (each.outcome == OK or each.in_doubt)}


def _sent(history: History, snapshot: Snapshot) -> Mapping[str, Sent]:
    """What each image was uploaded as; also where nobody was told of the image."""
    uploads = [upload for upload in history.of(Operation.UPLOAD) if upload.sent is not None]
    by_content = {upload.sent.sha256: upload.sent for upload in uploads if upload.sent is not None}
    recorded = {
        image_id: by_content[row["sha256"]] for image_id, row in snapshot.images.items() if row["sha256"] in by_content
    }
    told = {upload.image_id: upload.sent for upload in uploads if upload.outcome == OK and upload.image_id}
    return recorded | {image_id: sent for image_id, sent in told.items() if sent is not None}


def _of_kind(picture: Picture, history: History, snapshot: Snapshot) -> list[str]:
    """The images there are that were made to be of a kind."""
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
            yield Finding(image_id, f"it is {picture}, and became DONE")
        elif row["status"] == ERROR and row["error_code"] not in verdicts:
            yield Finding(image_id, f"it is {picture}, and ended in ERROR because of {row['error_code']}")


def _upright_size(snapshot: Snapshot, image_id: str) -> tuple[int, int] | None:
    """What the thumbnails of an original have to look like; None if the original cannot be read at all."""
    try:
        with Image.open(snapshot.storage / original_path(image_id)) as original:
            width, height = original.size
            sideways = original.getexif().get(ORIENTATION, 1) in SIDEWAYS
    except OSError:
        return None
    return (height, width) if sideways else (width, height)


def _wrong_with(snapshot: Snapshot, thumbnail: Row, upright: tuple[int, int] | None) -> Iterator[str]:
    try:
        content = (snapshot.storage / thumbnail["key"]).read_bytes()
    except OSError as error:
        yield f"cannot be read: {error}"
        return
    if (len(content), hashlib.sha256(content).hexdigest()) != (thumbnail["size_bytes"], thumbnail["sha256"]):
        yield f"has {len(content)} bytes, or other bytes, than the {thumbnail['size_bytes']} that are recorded"
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
    except (OSError, SyntaxError) as error:
        yield f"is no picture: {error}"
        return
    if picture.size != (thumbnail["width"], thumbnail["height"]):
        yield f"is {picture.size}, and recorded as {thumbnail['width']}x{thumbnail['height']}"
    if upright is not None and not _fits(picture.size, upright, PRESETS.get(thumbnail["preset"])):
        yield f"is {picture.size}, which is no size for an image of {upright}"


def _fits(size: tuple[int, int], original: tuple[int, int], box: tuple[int, int] | None) -> bool:
    """Whether it is the original's shape, inside the box, and not larger than the original; to a pixel."""
    if box is None:
        return True
    scale = min(1.0, box[0] / original[0], box[1] / original[1])
    wanted = [max(1.0, side * scale) for side in original]
    return all(abs(is_ - should_be) <= 1 for is_, should_be in zip(size, wanted, strict=True))


def _differences(row: Row, files: Mapping[str, str], served: Served) -> Iterator[str]:
    if served.status["status"] != row["status"]:
        yield f"it is recorded as {row['status']} and told to be {served.status['status']}"
    for name in sorted(files.keys() | served.files.keys()):
        if files.get(name) != served.files.get(name):
            yield f"its {name} is recorded with the digest {files.get(name)} and served as {served.files.get(name)}"


def was_down(history: History, each: Exchange) -> bool:
    """Whether the process that was asked had been killed, or was about to be."""
    return any(
        fault.subject == each.server and fault.began <= each.ended and each.began <= fault.ended
        for fault in history.faults
    )


def _answer(each: Exchange) -> str:
    return f"{each.status_code} {each.code or ''}" if each.status_code is not None else f"no answer: {each.error}"
