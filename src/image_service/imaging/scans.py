"""The scans of a JPEG file, each of which costs a pass over the whole picture."""

from itertools import islice
from pathlib import Path
from typing import Final

from image_service.errors import ImageTooLarge
from image_service.imaging.segments import START_OF_SCAN, segments

MAX_SCANS: Final = 100
"""The most found in a legitimate file was 20; a hostile one of 200 KB had 1,000, and took 12 s to decode."""

_MARKER: Final = bytes((0xFF, START_OF_SCAN))
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
    for code, _, _ in segments(data):
        last = code
    return last == START_OF_SCAN


def _occurrences(source: Path) -> int:
    """How often the two bytes of the marker occur anywhere."""
    count, last = 0, b""
    with source.open("rb") as file:
        while piece := file.read(_PIECE):
            count += (last + piece).count(_MARKER)
            last = piece[-1:]
    return count


def _exceeds_limit(data: bytes) -> bool:
    scans = (code for code, _, _ in segments(data) if code == START_OF_SCAN)
    return next(islice(scans, MAX_SCANS, None), None) is not None
