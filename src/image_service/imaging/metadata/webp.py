"""WebP: chunks of the extended format (RFC 9649 §2.7.1)."""

from collections.abc import Iterator
from typing import Final

from image_service.domain.image import MetadataKind
from image_service.imaging.metadata.label import MAX_STEPS, Label

_FIRST_CHUNK: Final = 12
_LENGTH_AND_NAME: Final = 8
_NAMES: Final = {b"ICCP": MetadataKind.ICC, b"EXIF": MetadataKind.EXIF, b"XMP ": MetadataKind.XMP}


def labels(content: bytes) -> Iterator[Label]:
    """What the file's chunks are named."""
    position = _FIRST_CHUNK
    for _ in range(MAX_STEPS):
        name = content[position : position + 4]
        length = int.from_bytes(content[position + 4 : position + _LENGTH_AND_NAME], "little")
        start = position + _LENGTH_AND_NAME
        if not name:
            return
        if name in _NAMES:
            yield _NAMES[name], slice(start, start + length)
        position = start + length + length % 2
