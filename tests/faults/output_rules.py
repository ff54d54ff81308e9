"""The invariants about an image's recipe and its outputs.

Independent of the service's code; see ``evidence`` and ``recipes``.
"""

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping

from PIL import Image

from tests.faults.evidence import Row, Snapshot, left_out, original_path, pending
from tests.faults.finding import DONE, Finding
from tests.faults.history import OK, Exchange, History, Operation
from tests.faults.recipes import DEFAULT, Expected, outputs_of

ORIENTATION, SIDEWAYS = 0x0112, range(5, 9)
"""The EXIF tag, and its values for images rotated by 90 degrees."""
IN_DOUBT = 15.0
"""Seconds for which a request without a response may still take effect."""


def done_is_complete(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Every DONE image has all outputs of its recipe: valid images of the right size that match their rows.

    Only those that are not required may be left out, and are recorded as such once none is pending.
    """
    for image_id, row in snapshot.images.items():
        thumbnails = {thumbnail["preset"]: thumbnail for thumbnail in snapshot.thumbnails.get(image_id, ())}
        expected = outputs_of(row["recipe_name"])
        if row["status"] == DONE and (missing := expected.keys() - thumbnails.keys() - _excused(row, expected)):
            yield Finding(image_id, f"it is DONE without {', '.join(sorted(missing))}")
        upright = _upright_size(snapshot, image_id) if row["status"] == DONE else None
        for name, thumbnail in thumbnails.items():
            for wrong in _wrong_with(snapshot, thumbnail, upright, expected.get(name)):
                yield Finding(image_id, f"its thumbnail {name} {wrong}")


def outputs_follow(_history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """No output is still to be made when the service is idle."""
    for image_id, row in snapshot.images.items():
        for column in ("outputs_due_at", "outputs_lease_until"):
            if row[column] is not None:
                yield Finding(image_id, f"its {column} is {row[column]}")
        if names := pending(row):
            yield Finding(image_id, f"{', '.join(sorted(names))} are still pending")
        if row["status"] == DONE and row["recipe"] is None:
            yield Finding(image_id, "it is DONE, but not recorded as complete by its recipe")


def recipe_is_kept(history: History, snapshot: Snapshot) -> Iterator[Finding]:
    """Every image has the recipe that was chosen for it, and no outputs of another."""
    chosen = _chosen(history, snapshot)
    for image_id, row in snapshot.images.items():
        recipe = row["recipe_name"] or DEFAULT
        if image_id in chosen and recipe not in chosen[image_id]:
            yield Finding(image_id, f"its recipe is {recipe}, but {sorted(chosen[image_id])} was chosen")
        foreign = {each["preset"] for each in snapshot.thumbnails.get(image_id, ())} - outputs_of(recipe).keys()
        foreign |= left_out(row) - outputs_of(recipe).keys()
        if row["status"] == DONE and foreign:
            yield Finding(image_id, f"it has outputs that its recipe {recipe} does not: {', '.join(sorted(foreign))}")
    yield from _made_differently(snapshot)


def _excused(row: Row, expected: Mapping[str, Expected]) -> set[str]:
    """Return the outputs that a DONE image need not have."""
    absent = pending(row) | left_out(row)
    return {name for name in absent if name in expected and not expected[name].required}


def _chosen(history: History, snapshot: Snapshot) -> Mapping[str, set[str]]:
    """Return the recipes that each image may have: what it was uploaded with, or what was requested since."""
    by_content: dict[str, set[str]] = defaultdict(set)
    told: dict[str, set[str]] = defaultdict(set)
    for each in history.of(Operation.UPLOAD):
        if each.sent is not None:
            by_content[each.sent.sha256].add(each.sent.recipe or DEFAULT)
            if each.outcome == OK and each.image_id:
                told[each.image_id].add(each.sent.recipe or DEFAULT)
    sent = {image_id: by_content[row["sha256"]] for image_id, row in snapshot.images.items()}
    chosen = {image_id: set(told.get(image_id, recipes)) for image_id, recipes in sent.items() if recipes}
    changes: dict[str, list[Exchange]] = defaultdict(list)
    for each in history.of(Operation.REPROCESS):
        if each.image_id in chosen and each.recipe is not None and (each.outcome == OK or each.in_doubt):
            changes[each.image_id].append(each)
    for image_id, its in changes.items():
        if any(each.outcome == OK for each in its):
            chosen[image_id].clear()
        chosen[image_id] |= {each.recipe for each in its if each.recipe and not _is_superseded(each, its)}
    return chosen


def _is_superseded(change: Exchange, changes: list[Exchange]) -> bool:
    """Whether another change certainly took effect after this one did, if it did."""
    until = change.ended + (IN_DOUBT if change.in_doubt else 0)
    return any(each.outcome == OK and each.began > until for each in changes)


def _made_differently(snapshot: Snapshot) -> Iterator[Finding]:
    """An output of a recipe is made in the same way for every image: all have the fingerprint of the first."""
    known: dict[tuple[str, str], str] = {}
    for image_id, row in snapshot.images.items():
        if row["status"] != DONE:
            continue
        recipe = row["recipe_name"] or DEFAULT
        made = {each["preset"]: each["fingerprint"] for each in snapshot.thumbnails.get(image_id, ())}
        for name, fingerprint in {**made, "the recipe": row["recipe"]}.items():
            if fingerprint is not None and known.setdefault((recipe, name), fingerprint) != fingerprint:
                yield Finding(image_id, f"{name} was made as {fingerprint}, but as {known[recipe, name]} elsewhere")


def _upright_size(snapshot: Snapshot, image_id: str) -> tuple[int, int] | None:
    """Return the upright size of an original; None if it cannot be read."""
    try:
        with Image.open(snapshot.storage / original_path(image_id)) as original:
            width, height = original.size
            sideways = original.getexif().get(ORIENTATION, 1) in SIDEWAYS
    except OSError:
        return None
    return (height, width) if sideways else (width, height)


def _wrong_with(
    snapshot: Snapshot, thumbnail: Row, upright: tuple[int, int] | None, expected: Expected | None
) -> Iterator[str]:
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
        yield f"is no valid image: {error}"
        return
    if picture.size != (thumbnail["width"], thumbnail["height"]):
        yield f"is {picture.size}, but recorded as {thumbnail['width']}x{thumbnail['height']}"
    if upright is None or expected is None:
        return
    if not expected.fits(picture.size, upright):
        yield f"is {picture.size}, the wrong size for an image of {upright}"
    if picture.format not in expected.formats:
        yield f"is a file of the format {picture.format}"
