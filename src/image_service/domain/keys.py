"""Where an image's files lie in the storage.

One shard folder of 256, from the id's last two hex digits (a UUIDv7's random end), keeps folders small and needs no
folder of its own for an image: a new file costs one folder fsync. Thumbnail keys name the attempt, so that two
workers never write the same file and a half-made set is never mistaken for a whole one.
"""

import re
from typing import Final, NamedTuple
from uuid import UUID

ORIGINALS: Final = "originals/"
THUMBNAILS: Final = "thumbnails/"

_THUMBNAIL_NAME: Final = re.compile(r"(?P<id>[0-9a-f-]{36})\.(?P<attempt>\d+)\.(?P<preset>[\w-]+)")


class ThumbnailKey(NamedTuple):
    """What a thumbnail's key says about its origin."""

    image_id: UUID
    attempt: int


def original_key(image_id: UUID) -> str:
    """The key of an image's original."""
    return f"{ORIGINALS}{_shard(image_id)}/{image_id}"


def thumbnail_key(image_id: UUID, attempt: int, preset: str) -> str:
    """The key of one thumbnail made by one attempt."""
    return f"{THUMBNAILS}{_shard(image_id)}/{image_id}.{attempt}.{preset}"


def parse_original_key(key: str) -> UUID | None:
    """The image that an original's key belongs to; None for a file that is not ours."""
    try:
        image_id = UUID(key.rpartition("/")[2])
    except ValueError:
        return None
    return image_id if original_key(image_id) == key else None


def parse_thumbnail_key(key: str) -> ThumbnailKey | None:
    """The image and attempt that a thumbnail's key belongs to; None for a file that is not ours."""
    match = _THUMBNAIL_NAME.fullmatch(key.rpartition("/")[2])
    if match is None:
        return None
    try:
        origin = ThumbnailKey(UUID(match["id"]), int(match["attempt"]))
    except ValueError:
        return None
    return origin if thumbnail_key(origin.image_id, origin.attempt, match["preset"]) == key else None


def _shard(image_id: UUID) -> str:
    return image_id.hex[-2:]
