"""JPEG: application segments and comments before the first scan."""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from image_service.domain.image import MetadataKind
from image_service.imaging.metadata.label import MAX_STEPS, Label
from image_service.imaging.segments import START_OF_SCAN, segments

_HEADER: Final = 4
"""Marker and length field."""
_FIRST_APPLICATION: Final = 0xE0
_JFIF_THUMBNAIL_SIZE: Final = slice(12, 14)
_XMP: Final = (b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0")
_IPTC: Final = b"8BIM\x04\x04"
_PHOTOSHOP_THUMBNAILS: Final = (b"8BIM\x04\x09", b"8BIM\x04\x0c")


def labels(content: bytes) -> Iterator[Label]:
    """What the file's segments are labelled as."""
    for code, start, end in islice(segments(content), MAX_STEPS):
        if code == START_OF_SCAN:
            return
        if code >= _FIRST_APPLICATION:
            for kind in _in_segment(code, content[start + _HEADER : end]):
                yield kind, slice(start + _HEADER, end)


def _in_segment(code: int, body: bytes) -> Iterator[MetadataKind]:
    match code:
        case 0xE0 if body.startswith(b"JFXX\0") or (body.startswith(b"JFIF\0") and any(body[_JFIF_THUMBNAIL_SIZE])):
            yield MetadataKind.THUMBNAIL
        case 0xE1 if body.startswith(b"Exif\0\0"):
            yield MetadataKind.EXIF
        case 0xE1 if body.startswith(_XMP):
            yield MetadataKind.XMP
        case 0xE2 if body.startswith(b"ICC_PROFILE\0"):
            yield MetadataKind.ICC
        case 0xE2 if body.startswith(b"MPF\0"):
            yield MetadataKind.THUMBNAIL
        case 0xED:
            if _IPTC in body:
                yield MetadataKind.IPTC
            if any(label in body for label in _PHOTOSHOP_THUMBNAILS):
                yield MetadataKind.THUMBNAIL
        case 0xFE:
            yield MetadataKind.COMMENT
