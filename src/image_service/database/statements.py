"""The statements that every image needs, made once: making one takes SQLAlchemy longer than running it."""

from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    Select,
    Update,
    bindparam,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from image_service.database.clock import in_seconds, now
from image_service.database.rows import IMAGE, THUMBNAIL
from image_service.domain.status import CLAIMABLE, Status
from image_service.models import Base, ImageRow, ThumbnailRow

FINISHED: Final[dict[str, Any]] = {"lease_until": None, "due_at": None, "finished_at": now(), "updated_at": now()}
"""What a terminal state is besides its name."""

_THIS_IMAGE = ImageRow.id == bindparam("image")

HELD: Final = (_THIS_IMAGE, ImageRow.attempt == bindparam("held"), ImageRow.status == Status.PROCESSING)
"""What only the row of the newest attempt's holder is. Parameters: image, held (the attempt)."""

_MARK_QUEUED: Final[Update] = (
    update(ImageRow)
    .where(_THIS_IMAGE, ImageRow.status == Status.NEW)
    .values(
        status=Status.PROCESSING,
        queued_at=now(),
        due_at=in_seconds(bindparam("due_in")),
        updated_at=now(),
    )
)
MARK_QUEUED: Final = {
    "sqlite": _MARK_QUEUED,
    # The commit does not wait for the disk. A crash of the database a moment later may undo it: the image then waits
    # in the queue as NEW, and is processed all the same. True: for this transaction, in which nothing else may be.
    "postgresql": _MARK_QUEUED.where(func.set_config("synchronous_commit", "off", true()) == "off"),
}
"""Parameters: image, due_in."""

CLAIM: Final = (
    update(ImageRow)
    .where(
        _THIS_IMAGE,
        or_(*(ImageRow.status == status for status in CLAIMABLE)),  # IN would be written anew for each call
        or_(ImageRow.lease_until.is_(None), ImageRow.lease_until <= now()),
    )
    .values(
        status=Status.PROCESSING,
        attempt=ImageRow.attempt + 1,
        attempts_charged=ImageRow.attempts_charged + 1,
        lease_until=in_seconds(bindparam("lease")),
        due_at=in_seconds(bindparam("lease")),
        updated_at=now(),
    )
    .returning(ImageRow.attempt, ImageRow.attempts_charged, ImageRow.decoder_failures, ImageRow.finished_at)
)
"""Parameters: image, lease."""

EXTEND: Final[Update] = (
    update(ImageRow)
    .where(*HELD)
    .values(
        lease_until=in_seconds(bindparam("lease")),
        due_at=in_seconds(bindparam("lease")),
        updated_at=now(),
    )
)
"""Parameters: those of ``HELD``, and lease."""

_RESULT: Final = ("width", "height", "placeholder", "dominant_colour", "metadata_removed", "recipe")

COMPLETE: Final[Update] = (
    update(ImageRow)
    .where(*HELD)
    .values(status=Status.DONE, **{name: bindparam(f"made_{name}") for name in _RESULT}, **FINISHED)
)
"""Parameters: those of ``HELD``, and made_ with each column of the result."""

_THUMBNAIL: Final = {
    column.name: column.type for column in ThumbnailRow.__table__.c if column is not ThumbnailRow.__table__.c.image_id
}


def _complete_with_thumbnails() -> Select[int]:
    done = COMPLETE.returning(ImageRow.id).cte("done")
    lists = [bindparam(f"each_{name}", type_=ARRAY(kind)) for name, kind in _THUMBNAIL.items()]
    each = func.unnest(*lists).table_valued(*_THUMBNAIL, name="each").render_derived()
    rows = select(done.c.id, *(each.c[name] for name in _THUMBNAIL)).select_from(done.join(each, true()))
    made = insert(ThumbnailRow).from_select(["image_id", *_THUMBNAIL], rows).cte("made")
    return select(func.count()).select_from(done).add_cte(made)


COMPLETE_WITH_THUMBNAILS: Final = _complete_with_thumbnails()
"""The same, and the thumbnails of an image that has none yet, in one statement of PostgreSQL; returns 1, or 0 if lost.

Parameters: those of ``COMPLETE``, and each_ with each column of a thumbnail: a list of its values.
"""


_IMAGE: Final = (
    select(*IMAGE, *THUMBNAIL)
    .select_from(ImageRow)
    .outerjoin(ThumbnailRow, ThumbnailRow.image_id == ImageRow.id)
    .order_by(ThumbnailRow.width, ThumbnailRow.preset)
)
IMAGE_BY_ID: Final = _IMAGE.where(_THIS_IMAGE)
"""An image, a row for each thumbnail. Parameter: image."""
IMAGE_BY_KEY: Final = _IMAGE.where(ImageRow.idempotency_key == bindparam("key"))
"""The same. Parameter: key, the idempotency key."""


def insert_if_new(dialect: str, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that leaves a row alone which is there already."""
    # Both dialects spell it the same; SQLAlchemy has no common word for it.
    insert_into = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return insert_into(table).on_conflict_do_nothing()


ADD: Final = {
    dialect: insert_if_new(dialect, ImageRow).values(
        status=Status.NEW,
        due_at=in_seconds(bindparam("due_in")),
        created_at=now(),
        updated_at=now(),
    )
    for dialect in ("sqlite", "postgresql")
}
"""Record an image as NEW, unless it is there. Parameters: its columns that are known, and due_in."""
