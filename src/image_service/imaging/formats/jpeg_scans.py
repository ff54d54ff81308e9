"""JPEG: the number of scans, each of which costs the decoder a pass over the whole picture."""

from typing import Final

from image_service.errors import ImageTooLarge
from image_service.imaging.formats.content import number
from image_service.imaging.formats.jpeg import (
    COMPONENTS,
    MAX_SEGMENTS,
    OTHER_FRAMES,
    SEQUENTIAL_FRAMES,
    START_OF_SCAN,
    find_marker,
    segments,
)

MAX_SCANS: Final = 100
"""Scans of a file, however small; a hostile one of 200 KB had 1,000, and took 12 s to decode."""
_COMMON_SCANS: Final = 20
"""The most found in a legitimate file: as many are decoded at any size."""
_MAX_SCANNED_PIXELS: Final = 1_000_000_000
"""Scans times pixels: 20 passes over 50 megapixels take about a second."""

_COEFFICIENTS: Final = 64
"""Coefficients of a block."""
_MARKER: Final = bytes((0xFF, START_OF_SCAN))


def check_scans(content: bytes, pixels: int) -> None:
    """Return if a JPEG file has no more scans than an image of so many pixels may have, ``MAX_SCANS`` at most.

    Raises:
        ImageTooLarge: it has more.
    """
    if _is_read_in_one_scan(content):
        return
    limit = max(_COMMON_SCANS, min(MAX_SCANS, _MAX_SCANNED_PIXELS // max(1, pixels)))
    # The cheap count is exact or too high, as metadata and appended files hold the marker by chance.
    if content.count(_MARKER) > limit and _exceeds(limit, content):
        raise ImageTooLarge(
            f"The JPEG file has more than {limit} scans, which take too long to decode. Export the image again and "
            "upload the new file."
        )


def ends_in_scan(content: bytes) -> bool:
    """Whether the last segment of a JPEG file begins a scan; otherwise what that segment announces is missing."""
    last = 0
    for segment in segments(content):
        last = segment.code
    return last == START_OF_SCAN


def end_of_image(content: bytes) -> int | None:
    """Return where the marker stands that ends the first image of a JPEG file; None if nothing does."""
    position = None
    for segment in segments(content):
        position = segment.end
    return None if position is None else find_marker(content, position, len(content) - position)


def lacks_detail(content: bytes) -> bool:
    """Whether the scans of a progressive JPEG file leave out some coefficients, or some of their bits (T.81 §G.1.1)."""
    missing = 0
    for code, _, body, end in segments(content):
        if code in OTHER_FRAMES:
            missing = _COEFFICIENTS * number(content, body + COMPONENTS, 1)
        elif code == START_OF_SCAN and not number(content, end - 1, 1) & 0x0F:
            # This scan holds the last bit of so many coefficients of so many components.
            first, last = number(content, end - 3, 1), number(content, end - 2, 1)
            missing -= (last - first + 1) * number(content, body, 1)
    return missing > 0


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


def _exceeds(limit: int, content: bytes) -> bool:
    codes = [segment.code for segment in segments(content)]
    # Of what lies beyond the segments that are read, only the cheap count is known.
    return codes.count(START_OF_SCAN) > limit or len(codes) == MAX_SEGMENTS
