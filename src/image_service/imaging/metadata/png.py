"""PNG: ancillary chunks (PNG specification §11.3)."""

from collections.abc import Iterator
from typing import Final

from image_service.domain.image import MetadataKind
from image_service.imaging.metadata.label import MAX_STEPS, Label

_FIRST_CHUNK: Final = 8
_LENGTH_AND_KIND: Final = 8
_CHECKSUM: Final = 4
_NAMES: Final = {b"iCCP": MetadataKind.ICC, b"eXIf": MetadataKind.EXIF}
_TEXTS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_LONGEST_KEYWORD: Final = 79
_KEYWORDS: Final = {
    b"XML:com.adobe.xmp": MetadataKind.XMP,
    b"Comment": MetadataKind.COMMENT,
    b"Raw profile type exif": MetadataKind.EXIF,
    b"Raw profile type APP1": MetadataKind.EXIF,
    b"Raw profile type iptc": MetadataKind.IPTC,
    b"Raw profile type xmp": MetadataKind.XMP,
}
"""What texts stand for that are none; other keywords name text."""


def labels(content: bytes) -> Iterator[Label]:
    """What the file's chunks are named, and texts by their keyword."""
    position = _FIRST_CHUNK
    for _ in range(MAX_STEPS):
        name = content[position + 4 : position + _LENGTH_AND_KIND]
        start = position + _LENGTH_AND_KIND
        end = start + int.from_bytes(content[position : position + 4])
        if not name:
            return
        if name in _NAMES:
            yield _NAMES[name], slice(start, end)
        elif name in _TEXTS:
            keyword = content[start : min(end, start + _LONGEST_KEYWORD + 1)].partition(b"\0")[0]
            yield _KEYWORDS.get(keyword, MetadataKind.TEXT), slice(start, end)
        position = end + _CHECKSUM
