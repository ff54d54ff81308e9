"""BMP: the information header, of Windows or of OS/2."""

import struct
from typing import Final

from image_service.imaging.formats.content import Content, damaged, take

_HEADER_AT: Final = 14
"""Where the information header begins, in bytes from the start of the file."""
_HEADER_LENGTHS: Final = frozenset({12, 40, 52, 56, 64, 108, 124})
"""The lengths that the information header can have; it begins with its own, in four bytes."""
_LENGTH_FIELD: Final = 4
_CORE_LENGTH: Final = 12


def matches(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a BMP file."""
    length = head[_HEADER_AT : _HEADER_AT + _LENGTH_FIELD]
    return head.startswith(b"BM") and int.from_bytes(length, "little") in _HEADER_LENGTHS


def dimensions(content: Content) -> tuple[int, int]:
    """Return width and height in pixels. A negative height means that the rows are stored from the top.

    Raises:
        CorruptImage: the width is negative, or the header is cut off.
    """
    (length,) = struct.unpack("<I", take(content, _HEADER_AT, _LENGTH_FIELD))
    size_at = _HEADER_AT + _LENGTH_FIELD
    if length == _CORE_LENGTH:
        width, height = struct.unpack("<HH", take(content, size_at, 4))
    else:
        width, height = struct.unpack("<ii", take(content, size_at, 8))
    if width < 0:
        raise damaged("BMP", "the width is negative")
    return width, abs(height)
