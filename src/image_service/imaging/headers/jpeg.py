"""JPEG: the frame header (ITU-T T.81 §B.2.2)."""

from typing import Final

from image_service.imaging.headers.reader import Reader, damaged

_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15; the gaps are DHT, JPG and DAC."""
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_WITHOUT_LENGTH: Final = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
"""A stuffed zero, TEM, RST0 to RST7 and SOI."""
_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = 0xD9
_LENGTH_FIELD: Final = 2
_MAX_STEPS: Final = 8192
"""Bytes looked at one by one: two a segment, the rest for fill bytes and for junk, which decoders skip too."""


def dimensions(reader: Reader) -> tuple[int, int]:
    """Width and height in pixels, from the first frame header.

    Raises:
        CorruptImage: there is none before the first scan, or none in reach.
    """
    _seek_frame(reader)
    reader.skip(1)
    height, width = reader.number(2), reader.number(2)
    return width, height


def buffered_samples(reader: Reader) -> float:
    """How many samples a pixel a decoder has to keep until the last scan: none, unless the file is progressive.

    Raises:
        CorruptImage: the frame header is not complete.
    """
    if _seek_frame(reader) not in _PROGRESSIVE:
        return 0
    reader.skip(5)
    areas = [(byte >> 4) * (byte & 0x0F) for byte in reader.take(3 * reader.number(1))[1::3]]
    return sum(areas) / max([1, *areas])


def _seek_frame(reader: Reader) -> int:
    """Go to the content of the first frame header; returns its marker code."""
    after_ff = False
    for _ in range(_MAX_STEPS):
        byte = reader.number(1)
        if not after_ff or byte == 0xFF:  # noqa: PLR2004 — the byte that begins every marker; repeated, it is fill
            after_ff = byte == 0xFF  # noqa: PLR2004 — as above
            continue
        after_ff = False
        if byte in _WITHOUT_LENGTH:
            continue
        if byte in {_START_OF_SCAN, _END_OF_IMAGE}:
            break
        length = reader.number(_LENGTH_FIELD)
        if byte in _FRAME_HEADERS:
            return byte
        # A length too short for itself is the decoder's business: ours is the size, if there is one.
        reader.skip(max(0, length - _LENGTH_FIELD))
    raise damaged("JPEG", "it has no frame header that says how large the image is")
