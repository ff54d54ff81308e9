"""Maps rows to domain objects.

Values that were made of a decoder's reply are checked here too: one of an earlier version, or of another program, must
not break every list that contains its image. What is malformed is left out.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from sqlalchemy import Row, select

from image_service.domain.image import (
    Image,
    ImageError,
    ImageHeader,
    ImageTraits,
    MetadataKind,
    Thumbnail,
)
from image_service.domain.wellformed import COLOUR, DIGEST, MAX_DETAIL, OUTPUT_TYPES, PLACEHOLDER, one_line
from image_service.models import ImageRow, ThumbnailRow

AnyRow: TypeAlias = Row[*tuple[Any, ...]]
"""A row of any columns, which are its attributes."""

_IMAGE: Final = (
    ImageRow.id,
    ImageRow.status,
    ImageRow.format,
    ImageRow.width,
    ImageRow.height,
    ImageRow.size_bytes,
    ImageRow.sha256,
    ImageRow.created_at,
    ImageRow.updated_at,
    ImageRow.finished_at,
    ImageRow.error_code,
    ImageRow.error_detail,
    ImageRow.placeholder,
    ImageRow.dominant_colour,
    ImageRow.metadata_removed,
    ImageRow.original_removed_at,
    ImageRow.recipe_name,
    ImageRow.recipe,
    ImageRow.pending,
    ImageRow.left_out,
)
_THUMBNAIL: Final = (
    ThumbnailRow.output,
    ThumbnailRow.key,
    ThumbnailRow.content_type,
    ThumbnailRow.width.label("thumbnail_width"),
    ThumbnailRow.height.label("thumbnail_height"),
    ThumbnailRow.size_bytes.label("thumbnail_size_bytes"),
    ThumbnailRow.sha256.label("thumbnail_sha256"),
    ThumbnailRow.fingerprint,
)

SELECT_IMAGES: Final = (
    select(*_IMAGE, *_THUMBNAIL).select_from(ImageRow).outerjoin(ThumbnailRow, ThumbnailRow.image_id == ImageRow.id)
)
"""Images with their thumbnails: a row for each thumbnail, and one for an image without any."""


def image_from_rows(rows: Sequence[AnyRow]) -> Image:
    """Map all rows of ``SELECT_IMAGES`` that belong to one image, of which there is at least one."""
    row = rows[0]
    return Image(
        id=row.id,
        status=row.status,
        header=ImageHeader(format=row.format, width=row.width, height=row.height),
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        created_at=row.created_at,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
        error=_error(row),
        traits=_traits(row),
        original_removed_at=row.original_removed_at,
        recipe_name=row.recipe_name,
        recipe=row.recipe,
        pending=tuple(row.pending or ()),
        left_out=row.left_out or {},
        thumbnails=tuple(_thumbnail(row) for row in rows if _is_thumbnail(row)),
    )


def _error(row: AnyRow) -> ImageError | None:
    if row.error_code is None:
        return None
    return ImageError(code=row.error_code, detail=one_line(row.error_detail or "", MAX_DETAIL))


def _traits(row: AnyRow) -> ImageTraits | None:
    placeholder, colour, kinds = row.placeholder, row.dominant_colour, row.metadata_removed
    if placeholder is None or not PLACEHOLDER.fullmatch(placeholder):
        return None
    return ImageTraits(
        placeholder=placeholder,
        dominant_colour=colour if colour is not None and COLOUR.fullmatch(colour) else None,
        metadata_removed=tuple(kind for kind in MetadataKind if isinstance(kinds, list) and kind in kinds),
    )


def _is_thumbnail(row: AnyRow) -> bool:
    """Whether the row has a thumbnail, and one that can be served."""
    return (
        row.output is not None
        and row.content_type in OUTPUT_TYPES
        and DIGEST.fullmatch(row.thumbnail_sha256) is not None
    )


def _thumbnail(row: AnyRow) -> Thumbnail:
    return Thumbnail(
        output=row.output,
        key=row.key,
        content_type=row.content_type,
        width=row.thumbnail_width,
        height=row.thumbnail_height,
        size_bytes=row.thumbnail_size_bytes,
        sha256=row.thumbnail_sha256,
        fingerprint=row.fingerprint,
    )
