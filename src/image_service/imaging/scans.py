"""The scans of a JPEG file, each of which costs a pass over the whole picture."""

import re
from itertools import islice
from typing import Final

from image_service.errors import ImageTooLarge
from image_service.imaging.segments import START_OF_SCAN, segments

MAX_SCANS: Final = 100
"""The most found in a legitimate file was 20; a hostile one of 200 KB had 1,000, and took 12 s to decode."""

_MARKER: Final = re.compile(bytes((0xFF, START_OF_SCAN)))
_SEQUENTIAL_FRAMES: Final = frozenset({0xC0, 0xC1})
_OTHER_FRAMES: Final = frozenset(range(0xC2, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF2 to SOF15: the codes between are tables."""
_FRAME_COMPONENTS, _SCAN_COMPONENTS = 9, 4
"""Where frame and scan headers give the number of their components (ITU-T T.81 §B.2.2 and §B.2.3)."""


def check_scans(content: bytes) -> None:
    """Return if a JPEG file has no more than ``MAX_SCANS`` scans.

    Raises:
        ImageTooLarge: it has more.
    """
    if _is_read_in_one_scan(content):
        return
    # The cheap count is exact or too high, as metadata and appended files hold the marker by chance.
    if len(_MARKER.findall(content)) > MAX_SCANS and _exceeds_limit(content):
        raise ImageTooLarge(
            f"The JPEG file has more than {MAX_SCANS} scans, which take too long to decode. Export the image again "
            "and upload the new file."
        )


def ends_in_scan(data: bytes) -> bool:
    """Whether the last thing a JPEG file begins is a scan: else what it announced next is missing."""
    last = 0
    for code, _, _ in segments(data):
        last = code
    return last == START_OF_SCAN


def _is_read_in_one_scan(content: bytes) -> bool:
    """Whether the first scan holds all components of a sequential frame: libjpeg then never begins another."""
    components = b""
    for code, start, _ in segments(content):
        if code == START_OF_SCAN:
            return components == content[start + _SCAN_COMPONENTS : start + _SCAN_COMPONENTS + 1] != b""
        if code in _OTHER_FRAMES or (code in _SEQUENTIAL_FRAMES and components):
            return False
        if code in _SEQUENTIAL_FRAMES:
            components = content[start + _FRAME_COMPONENTS : start + _FRAME_COMPONENTS + 1]
    return False


def _exceeds_limit(data: bytes) -> bool:
    scans = (code for code, _, _ in segments(data) if code == START_OF_SCAN)
    return next(islice(scans, MAX_SCANS, None), None) is not None
