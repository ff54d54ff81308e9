"""JPEG: the number of scans, each of which costs the decoder a pass over the whole picture."""

from typing import Final

from image_service.errors import ImageTooLarge
from image_service.imaging.formats.jpeg import (
    COMPONENTS,
    MAX_SEGMENTS,
    OTHER_FRAMES,
    SEQUENTIAL_FRAMES,
    START_OF_SCAN,
    segments,
)

MAX_SCANS: Final = 100
"""The most found in a legitimate file was 20; a hostile one of 200 KB had 1,000, and took 12 s to decode."""

_MARKER: Final = bytes((0xFF, START_OF_SCAN))


def check_scans(content: bytes) -> None:
    """Return if a JPEG file has no more than ``MAX_SCANS`` scans.

    Raises:
        ImageTooLarge: it has more.
    """
    if _is_read_in_one_scan(content):
        return
    # The cheap count is exact or too high, as metadata and appended files hold the marker by chance.
    if content.count(_MARKER) > MAX_SCANS and _exceeds_limit(content):
        raise ImageTooLarge(
            f"The JPEG file has more than {MAX_SCANS} scans, which take too long to decode. Export the image again "
            "and upload the new file."
        )


def ends_in_scan(content: bytes) -> bool:
    """Whether the last segment of a JPEG file begins a scan; otherwise what that segment announces is missing."""
    last = 0
    for segment in segments(content):
        last = segment.code
    return last == START_OF_SCAN


def _is_read_in_one_scan(content: bytes) -> bool:
    """Whether the first scan holds all components of a sequential frame: libjpeg then never begins another."""
    components = b""
    for code, _, body, _ in segments(content):
        if code == START_OF_SCAN:
            return components == content[body : body + 1] != b""
        if code in OTHER_FRAMES or (code in SEQUENTIAL_FRAMES and components):
            return False
        if code in SEQUENTIAL_FRAMES:
            components = content[body + COMPONENTS : body + COMPONENTS + 1]
    return False


def _exceeds_limit(content: bytes) -> bool:
    codes = [segment.code for segment in segments(content)]
    # Of what lies beyond the segments that are read, only the cheap count is known.
    return codes.count(START_OF_SCAN) > MAX_SCANS or len(codes) == MAX_SEGMENTS
