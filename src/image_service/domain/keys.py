"""Storage keys of originals and thumbnails.

Files are spread over 256 folders by the id's last two hex digits (the random end of a UUIDv7). That keeps folders small
without a folder per image: a new file costs one fsync of a folder. Thumbnail keys contain the attempt, so two workers
never write the same file, and an incomplete set is never mistaken for a complete one.
"""

import re
from typing import Final, NamedTuple
from uuid import UUID

ORIGINALS: Final = "originals/"
THUMBNAILS: Final = "thumbnails/"

_THUMBNAIL_NAME: Final = re.compile(
    r"(?P<id>[0-9a-f-]{36})\.(?P<attempt>\d+)\.(?P<output>[\w-]+(?:@\d+x)?(?:\.(?:jpg|png|webp|avif|jxl|gif))?)"
)


class ThumbnailKey(NamedTuple):
    """The image and attempt in a thumbnail's key."""

    image_id: UUID
    attempt: int


def original_key(image_id: UUID) -> str:
    """Returns the key of an image's original."""
    return f"{ORIGINALS}{_shard(image_id)}/{image_id}"


def thumbnail_key(image_id: UUID, attempt: int, output: str) -> str:
    """Returns the key of a thumbnail made by an attempt."""
    return f"{THUMBNAILS}{_shard(image_id)}/{image_id}.{attempt}.{output}"


def parse_original_key(key: str) -> UUID | None:
    """Returns the image of an original's key; None if the service makes no such key."""
    try:
        image_id = UUID(key.rpartition("/")[2])
    except ValueError:
        return None
    return image_id if original_key(image_id) == key else None


def parse_thumbnail_key(key: str) -> ThumbnailKey | None:
    """Returns the image and attempt of a thumbnail's key; None if the service makes no such key."""
    match = _THUMBNAIL_NAME.fullmatch(key.rpartition("/")[2])
    if match is None:
        return None
    try:
        origin = ThumbnailKey(UUID(match["id"]), int(match["attempt"]))
    except ValueError:
        return None
    return origin if thumbnail_key(origin.image_id, origin.attempt, match["output"]) == key else None


def _shard(image_id: UUID) -> str:
    return image_id.hex[-2:]
