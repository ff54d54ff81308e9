"""JPEG: all but metadata, of which only the colours and the orientation matter (ITU-T T.81 §B.2)."""

from typing import Final

from image_service.imaging.segments import START_OF_SCAN, segments

_METADATA: Final = frozenset({*range(0xE0, 0xF0), 0xFE})
"""APP0 to APP15 and COM."""
_NEEDED: Final = {0xE0: (b"JFIF\0", 14), 0xE1: (b"Exif\0\0", 6), 0xE2: (b"ICC_PROFILE\0", 14), 0xEE: (b"Adobe", 12)}
"""The metadata that matters, by marker: its signature, and the length below which it makes no sense."""
_HEADER_LENGTH: Final = 4
"""Marker and length field."""


def essentials(content: bytes) -> bytes:
    """The file without the comments, previews and application data that stand before its first scan."""
    kept, rest = [], 0
    for code, start, end in segments(content):
        if code == START_OF_SCAN:
            break
        if code in _METADATA and not _is_needed(code, content, start + _HEADER_LENGTH, end):
            kept.append(content[rest:start])
            rest = end
    return b"".join((*kept, content[rest:]))


def _is_needed(code: int, content: bytes, start: int, end: int) -> bool:
    if code not in _NEEDED:
        return False
    signature, length = _NEEDED[code]
    return end - start >= length and content.startswith(signature, start)
