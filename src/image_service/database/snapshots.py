"""Snapshots: an image with its thumbnails as one JSON value, which an event keeps.

A snapshot is made by the database, in the statement that makes the change. So it shows exactly what that change left,
however long ago it was, and takes no round trip. Versions may add keys; those they do not know they ignore.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import JSON, ColumnElement, literal_column, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from image_service.database.rows import AnyRow, image_from_rows
from image_service.domain.image import Image, ImageFormat
from image_service.domain.status import Status
from image_service.models import ImageRow, ThumbnailRow

COLUMNS: Final = (
    "status",
    "format",
    "width",
    "height",
    "size_bytes",
    "sha256",
    "created_at",
    "updated_at",
    "finished_at",
    "error_code",
    "error_detail",
    "placeholder",
    "dominant_colour",
    "metadata_removed",
    "original_removed_at",
    "recipe_name",
    "recipe",
    "pending",
    "left_out",
    "client_metadata",
    "webhook_id",
)
"""The columns of an image that its snapshot has."""

_JSON_COLUMNS: Final = frozenset({"metadata_removed", "pending", "left_out"})
_TIMES: Final = ("created_at", "updated_at", "finished_at", "original_removed_at")

THUMBNAIL_COLUMNS: Final = {
    "output": "output",
    "key": "key",
    "content_type": "content_type",
    "width": "thumbnail_width",
    "height": "thumbnail_height",
    "size_bytes": "thumbnail_size_bytes",
    "sha256": "thumbnail_sha256",
    "fingerprint": "fingerprint",
}
"""The columns of a thumbnail that a snapshot has, with their names in ``SELECT_IMAGES``."""

_NO_THUMBNAIL: Final = dict.fromkeys(THUMBNAIL_COLUMNS.values())


class json_of(GenericFunction[Any]):  # noqa: N801 — SQLAlchemy names functions in lower case
    """A JSON object of pairs of a key and a value."""

    type = JSON()
    inherit_cache = True


class nested_json(GenericFunction[Any]):  # noqa: N801 — the same
    """A JSON value as a part of another one: SQLite would take it for a string."""

    type = JSON()
    inherit_cache = True


class json_list(GenericFunction[Any]):  # noqa: N801 — the same
    """The JSON list of all rows' values; NULL or an empty list if there are no rows."""

    type = JSON()
    inherit_cache = True


def snapshot_of(columns: Any, thumbnails: ColumnElement[Any]) -> ColumnElement[Any]:  # noqa: ANN401 — any collection of columns
    """The snapshot of an image.

    Args:
        columns: The image's ``COLUMNS``.
        thumbnails: The ``thumbnails_of`` it.
    """
    pairs = [(name, nested_json(columns[name]) if name in _JSON_COLUMNS else columns[name]) for name in COLUMNS]
    return _object([*pairs, ("thumbnails", nested_json(thumbnails))])


def image_snapshot() -> ColumnElement[Any]:
    """The snapshot of the image of a query on images."""
    recorded = select(thumbnails_of(ThumbnailRow.__table__.c)).where(ThumbnailRow.image_id == ImageRow.id)
    columns = {name: getattr(ImageRow, name) for name in COLUMNS}
    return snapshot_of(columns, recorded.correlate(ImageRow).scalar_subquery())


def thumbnails_of(columns: Any) -> ColumnElement[Any]:  # noqa: ANN401 — any collection of columns
    """The list of thumbnails for a snapshot, of a query on rows that have their columns."""
    return json_list(_object([(name, columns[name]) for name in THUMBNAIL_COLUMNS]))


def image_from_snapshot(image_id: UUID, snapshot: Mapping[str, Any]) -> Image:
    """Returns the image that a snapshot shows."""
    image: dict[str, Any] = {name: snapshot.get(name) for name in COLUMNS}
    image |= {name: _time(image[name]) for name in _TIMES}
    image |= {"id": image_id, "status": Status(image["status"]), "format": ImageFormat(image["format"])}
    thumbnails: Sequence[Mapping[str, Any]] = snapshot.get("thumbnails") or ()
    by_size = sorted(thumbnails, key=lambda each: (each["width"], each["output"]))
    files = [{to: each.get(name) for name, to in THUMBNAIL_COLUMNS.items()} for each in by_size]
    return image_from_rows([cast("AnyRow", SimpleNamespace(**image, **file)) for file in files or [_NO_THUMBNAIL]])


def _object(pairs: Sequence[tuple[str, ColumnElement[Any]]]) -> ColumnElement[Any]:
    return json_of(*(part for name, value in pairs for part in (literal_column(f"'{name}'"), value)))


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    time = datetime.fromisoformat(text)
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


@compiles(json_of, "postgresql")
def _json_of_postgresql(element: json_of, compiler: SQLCompiler, **options: object) -> str:
    return f"json_build_object({compiler.process(element.clauses, **options)})"


@compiles(json_of, "sqlite")
def _json_of_sqlite(element: json_of, compiler: SQLCompiler, **options: object) -> str:
    return f"json_object({compiler.process(element.clauses, **options)})"


@compiles(nested_json, "postgresql")
def _nested_postgresql(element: nested_json, compiler: SQLCompiler, **options: object) -> str:
    return compiler.process(element.clauses, **options)


@compiles(nested_json, "sqlite")
def _nested_sqlite(element: nested_json, compiler: SQLCompiler, **options: object) -> str:
    return f"json({compiler.process(element.clauses, **options)})"


@compiles(json_list, "postgresql")
def _json_list_postgresql(element: json_list, compiler: SQLCompiler, **options: object) -> str:
    return f"json_agg({compiler.process(element.clauses, **options)})"


@compiles(json_list, "sqlite")
def _json_list_sqlite(element: json_list, compiler: SQLCompiler, **options: object) -> str:
    return f"json_group_array({compiler.process(element.clauses, **options)})"
