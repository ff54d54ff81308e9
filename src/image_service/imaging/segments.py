"""The marker segments of a JPEG file (ITU-T T.81 §B.1.1)."""

import re
from collections.abc import Iterator
from typing import Final

START_OF_SCAN: Final = 0xDA
_MARKER: Final = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
"""A marker with its fill bytes; stuffed zeros and restart markers belong to the entropy-coded data around them."""
_END_OF_IMAGE: Final = 0xD9
_WITHOUT_LENGTH: Final = frozenset({0x01, 0xD8})
"""TEM and SOI."""
_LENGTH_FIELD: Final = 2


def segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker code, start and end of every segment of the first image in the file; the last may be cut off.

    Whatever stands between two segments is no part of either: entropy-coded data, or junk.
    """
    position = 2
    while marker := _MARKER.search(content, position):
        code, position = marker[1][0], marker.end()
        if code == _END_OF_IMAGE:
            return
        if code not in _WITHOUT_LENGTH:
            length = int.from_bytes(content[position : position + _LENGTH_FIELD])
            start, position = marker.start(1) - 1, position + max(length, _LENGTH_FIELD)
            yield code, start, position
