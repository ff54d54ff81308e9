"""The statements that change an image's state: the only place that spells them.

Whatever is written together with a change of state belongs in these statements. So does the event that tells of it;
where a change takes several statements, its event is recorded by the last one of the transaction. Those that every
image needs are built once: SQLAlchemy takes longer to build one than to run it.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Delete,
    Insert,
    Select,
    Update,
    bindparam,
    delete,
    func,
    insert,
    null,
    or_,
    select,
    true,
    update,
)

from image_service.database.clock import in_seconds, now
from image_service.database.dialect import insert_if_new
from image_service.database.event_log import SNAPSHOT_COLUMNS, current_transaction, with_event
from image_service.database.prepared import Prepared
from image_service.domain.event import EventType
from image_service.domain.status import CLAIMABLE, TERMINAL, Status
from image_service.models import ImageRow, ThumbnailRow

_THIS_IMAGE = ImageRow.id == bindparam("image")

HELD_BY_CLAIM: Final = (_THIS_IMAGE, ImageRow.attempt == bindparam("held"), ImageRow.status == Status.PROCESSING)
"""Fencing: true only for the holder of the newest attempt. Parameters: image, held (the attempt)."""

HAS_EVENT: Final[dict[str, Any]] = {"event_transaction": current_transaction(ImageRow.event_transaction)}
"""What a change sets that an event tells of."""

_FINISHED: Final[dict[str, Any]] = HAS_EVENT | {
    "lease_until": None,
    "due_at": None,
    "finished_at": now(),
    "updated_at": now(),
}
"""What a terminal state sets besides the status."""

NO_LATE_OUTPUTS: Final[dict[str, Any]] = {
    "pending": null(),
    "outputs_due_at": None,
    "outputs_lease_until": None,
    "outputs_attempts": 0,
}
"""What is set when an image lacks no outputs any more, or is to be rendered as a whole; it ends claims on them, too."""

_ADDED: Final = (
    "id",
    "format",
    "width",
    "height",
    "size_bytes",
    "sha256",
    "idempotency_key",
    "recipe_name",
    "client_metadata",
    "webhook_id",
    "lane",
)
"""The columns that an upload gives."""


def _add(dialect: str) -> Insert:
    return insert_if_new(dialect, ImageRow).values(
        **{name: bindparam(f"new_{name}", type_=ImageRow.__table__.c[name].type) for name in _ADDED},
        status=Status.NEW,
        attempt=0,
        attempts_charged=0,
        decoder_failures=0,
        publishes=0,
        outputs_attempts=0,
        recipe_attempt=0,
        event_transaction=current_transaction(0),
        due_at=in_seconds(bindparam("due_in")),
        created_at=now(),
        updated_at=now(),
    )


ADD: Final = {
    "sqlite": Prepared(_add("sqlite")),
    "postgresql": Prepared(with_event(_add("postgresql").returning(*SNAPSHOT_COLUMNS), EventType.ACCEPTED)),
}
"""Record an image as NEW, unless it is recorded already; on PostgreSQL with its event, and the id is returned.

Parameters: new_ with each column that an upload gives, and due_in.
"""

_MARK_QUEUED: Final[Update] = (
    update(ImageRow)
    .where(_THIS_IMAGE, ImageRow.status == Status.NEW)
    .values(
        status=Status.PROCESSING,
        queued_at=now(),
        recipe_attempt=ImageRow.attempt,
        due_at=in_seconds(bindparam("due_in")),
        updated_at=now(),
    )
)
MARK_QUEUED: Final = {
    "sqlite": Prepared(_MARK_QUEUED),
    # The commit does not wait for the disk. A crash of the database a moment later may undo it: the image then waits
    # in the queue as NEW, and is processed all the same. The setting holds for this transaction, so that nothing else
    # may be in it.
    "postgresql": Prepared(_MARK_QUEUED.where(func.set_config("synchronous_commit", "off", true()) == "off")),
}
"""NEW → PROCESSING. Parameters: image, due_in."""

CLAIM: Final = Prepared(
    update(ImageRow)
    .where(
        _THIS_IMAGE,
        or_(*(ImageRow.status == status for status in CLAIMABLE)),  # SQLAlchemy would expand an IN for each call
        or_(ImageRow.lease_until.is_(None), ImageRow.lease_until <= now()),
    )
    .values(
        status=Status.PROCESSING,
        attempt=ImageRow.attempt + 1,
        attempts_charged=ImageRow.attempts_charged + 1,
        recipe_attempt=ImageRow.attempt + 1,
        lease_until=in_seconds(bindparam("lease")),
        due_at=in_seconds(bindparam("lease")),
        updated_at=now(),
    )
    .returning(
        ImageRow.attempt,
        ImageRow.attempts_charged,
        ImageRow.decoder_failures,
        ImageRow.finished_at,
        ImageRow.sha256,
        ImageRow.recipe_name,
    )
)
"""NEW or PROCESSING → PROCESSING under a new attempt. Parameters: image, lease."""

_RESULT: Final = (
    "width",
    "height",
    "placeholder",
    "dominant_colour",
    "metadata_removed",
    "recipe",
    "pending",
    "left_out",
)

COMPLETE: Final[Update] = (
    update(ImageRow)
    .where(*HELD_BY_CLAIM)
    .values(
        status=Status.DONE,
        **_FINISHED,
        **NO_LATE_OUTPUTS
        | {name: bindparam(f"made_{name}") for name in _RESULT}
        | {"outputs_due_at": in_seconds(bindparam("outputs_due_in"))},
    )
)
"""PROCESSING → DONE.

Parameters: those of ``HELD_BY_CLAIM``, made_ with each column of the result, and outputs_due_in, which is None if no
outputs follow.
"""

_THUMBNAIL: Final = {
    column.key: column.type for column in ThumbnailRow.__table__.c if column is not ThumbnailRow.__table__.c.image_id
}


def _complete_with_thumbnails() -> Select[UUID]:
    done = COMPLETE.returning(*SNAPSHOT_COLUMNS)
    lists = [bindparam(f"each_{name}", type_=ARRAY(kind)) for name, kind in _THUMBNAIL.items()]
    each = func.unnest(*lists).table_valued(*_THUMBNAIL, name="each").render_derived()
    return with_event(
        done,
        EventType.DONE,
        thumbnails=lambda changed: insert(ThumbnailRow).from_select(
            ["image_id", *_THUMBNAIL],
            select(changed.c.id, *(each.c[name] for name in _THUMBNAIL)).select_from(changed.join(each, true())),
        ),
    )


COMPLETE_WITH_THUMBNAILS: Final = Prepared(_complete_with_thumbnails())
"""The same for an image that has no thumbnails yet, with its thumbnails and its event, in one statement of PostgreSQL.

Returns the id, or nothing if the claim is lost. Parameters: those of ``COMPLETE``, and each_ with each column of a
thumbnail: a list of its values.
"""

FAIL: Final[Update] = (
    update(ImageRow)
    .where(*HELD_BY_CLAIM)
    .values(
        status=Status.ERROR,
        error_code=bindparam("failed_code"),
        error_detail=bindparam("failed_detail"),
        **_FINISHED,
    )
)
"""PROCESSING → ERROR. Parameters: those of ``HELD_BY_CLAIM``, failed_code, failed_detail."""

FAIL_WITH_EVENT: Final = Prepared(with_event(FAIL.returning(*SNAPSHOT_COLUMNS), EventType.FAILED))
"""The same with its event, in one statement of PostgreSQL. Returns the id, or nothing if the claim is lost."""


def reprocess(image_ids: Collection[UUID], *, due_in: float, changes: Mapping[str, Any]) -> Update:
    """DONE or ERROR → NEW, for images that still have their original.

    Args:
        image_ids: The images.
        due_in: Seconds after which the reconciler queues them.
        changes: The columns of their new lane and recipe, if any.
    """
    return (
        update(ImageRow)
        .where(
            ImageRow.id.in_(image_ids),
            ImageRow.status.in_(TERMINAL),
            ImageRow.original_removed_at.is_(None),
        )
        .values(
            status=Status.NEW,
            # A worker that never got the reply to its last COMMIT, and repeats it, finds its claim lost.
            attempt=ImageRow.attempt + 1,
            recipe_attempt=ImageRow.attempt + 1,
            attempts_charged=0,
            decoder_failures=0,
            publishes=0,
            error_code=None,
            error_detail=None,
            queued_at=None,
            due_at=in_seconds(due_in),
            updated_at=now(),
            **NO_LATE_OUTPUTS,
            **HAS_EVENT,
            **changes,
        )
    )


def remove(image_ids: Collection[UUID]) -> Delete:
    """Delete images, in whatever state."""
    return delete(ImageRow).where(ImageRow.id.in_(image_ids))
