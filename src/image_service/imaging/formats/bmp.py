"""BMP: the information header, of Windows or of OS/2."""

import struct
from collections.abc import Iterator
from typing import Final

from image_service.imaging.formats.colour import Signal, profile
from image_service.imaging.formats.content import Content, damaged, take
from image_service.imaging.limits import MAX_PROFILE_BYTES

_HEADER_AT: Final = 14
"""Where the information header begins, in bytes from the start of the file."""
_HEADER_LENGTHS: Final = frozenset({12, 40, 52, 56, 64, 108, 124})
"""The lengths that the information header can have; it begins with its own, in four bytes."""
_LENGTH_FIELD: Final = 4
_CORE_LENGTH: Final = 12
_EMBEDDED: Final = b"DEBM"
"""Says in the longest header that a profile is in the file: PROFILE_EMBEDDED in bV5CSType."""
_COLOURS_AT, _PROFILE_AT, _LONGEST = 56, 112, 124
"""Where in that header this stands, and the profile's place, counted from the header's start, and length."""


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


def colour(content: bytes) -> Iterator[Signal]:
    """Yield the profile that is embedded in a file with the longest header, BITMAPV5HEADER."""
    head = content[_HEADER_AT : _HEADER_AT + _LONGEST]
    if len(head) < _LONGEST or head[0] != _LONGEST or head[_COLOURS_AT : _COLOURS_AT + 4] != _EMBEDDED:
        return
    start, length = struct.unpack_from("<II", head, _PROFILE_AT)
    if found := profile(content[_HEADER_AT + start : _HEADER_AT + start + min(length, MAX_PROFILE_BYTES + 1)]):
        yield found
