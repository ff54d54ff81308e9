"""Maps rows to domain objects."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import RowMapping, select

from image_service.domain.image import (
    Image,
    ImageError,
    ImageHeader,
    ImageTraits,
    MetadataKind,
    Thumbnail,
)
from image_service.models import ImageRow, ThumbnailRow

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
)
_THUMBNAIL: Final = (
    ThumbnailRow.preset,
    ThumbnailRow.key,
    ThumbnailRow.content_type,
    ThumbnailRow.width.label("thumbnail_width"),
    ThumbnailRow.height.label("thumbnail_height"),
    ThumbnailRow.size_bytes.label("thumbnail_size_bytes"),
    ThumbnailRow.sha256.label("thumbnail_sha256"),
)

SELECT_IMAGES: Final = (
    select(*_IMAGE, *_THUMBNAIL).select_from(ImageRow).outerjoin(ThumbnailRow, ThumbnailRow.image_id == ImageRow.id)
)
"""Images with their thumbnails: a row for each thumbnail, and one for an image without any."""


def image_from_rows(rows: Sequence[RowMapping]) -> Image:
    """Map all rows of ``SELECT_IMAGES`` that belong to one image, of which there is at least one."""
    row = rows[0]
    return Image(
        id=row["id"],
        status=row["status"],
        header=ImageHeader(format=row["format"], width=row["width"], height=row["height"]),
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        finished_at=row["finished_at"],
        error=ImageError(code=row["error_code"], detail=row["error_detail"]) if row["error_code"] else None,
        traits=_traits(row),
        original_removed_at=row["original_removed_at"],
        thumbnails=tuple(_thumbnail(row) for row in rows if row["preset"] is not None),
    )


def _traits(row: RowMapping) -> ImageTraits | None:
    if row["placeholder"] is None:
        return None
    return ImageTraits(
        placeholder=row["placeholder"],
        dominant_colour=row["dominant_colour"],
        metadata_removed=tuple(map(MetadataKind, row["metadata_removed"])),
    )


def _thumbnail(row: RowMapping) -> Thumbnail:
    return Thumbnail(
        preset=row["preset"],
        key=row["key"],
        content_type=row["content_type"],
        width=row["thumbnail_width"],
        height=row["thumbnail_height"],
        size_bytes=row["thumbnail_size_bytes"],
        sha256=row["thumbnail_sha256"],
    )
