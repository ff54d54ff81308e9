"""The scans of a JPEG file, each of which costs a pass over the whole picture."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from image_service.errors import ImageTooLarge

MAX_SCANS: Final = 100
"""The most found in a legitimate file was 20; a hostile one of 200 KB had 1,000, and took 12 s to decode."""

_START_OF_SCAN: Final = b"\xff\xda"
_MARKER: Final = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
"""A marker with its fill bytes; stuffed zeros and restart markers belong to the entropy-coded data around them."""
_END_OF_IMAGE: Final = 0xD9
_WITHOUT_LENGTH: Final = frozenset({0x01, 0xD8})
_PIECE: Final = 1 << 20


def check_scans(source: Path) -> None:
    """Return if the JPEG file ``source`` has no more than ``MAX_SCANS`` scans.

    Raises:
        ImageTooLarge: it has more.
    """
    # The cheap count is exact or too high, as metadata and appended files hold the marker by chance.
    if _occurrences(source) > MAX_SCANS and _exceeds_limit(source.read_bytes()):
        raise ImageTooLarge(
            f"The JPEG file has more than {MAX_SCANS} scans, which take too long to decode. Export the image again and "
            "upload the new file."
        )


def ends_in_scan(data: bytes) -> bool:
    """Whether the last thing a JPEG file begins is a scan: else what it announced next is missing."""
    last = 0
    for code in _segments(data):
        last = code
    return last == _START_OF_SCAN[1]


def _occurrences(source: Path) -> int:
    """How often the two bytes of the marker occur anywhere."""
    count, last = 0, b""
    with source.open("rb") as file:
        while piece := file.read(_PIECE):
            count += (last + piece).count(_START_OF_SCAN)
            last = piece[-1:]
    return count


def _exceeds_limit(data: bytes) -> bool:
    scans = (code for code in _segments(data) if code == _START_OF_SCAN[1])
    return next(islice(scans, MAX_SCANS, None), None) is not None


def _segments(data: bytes) -> Iterator[int]:
    """The marker codes of the segments of the first image in the file (ITU-T T.81 §B.1.1)."""
    position = 2
    while marker := _MARKER.search(data, position):
        code, position = marker[1][0], marker.end()
        if code == _END_OF_IMAGE:
            return
        if code not in _WITHOUT_LENGTH:
            yield code
            position += int.from_bytes(data[position : position + 2])
