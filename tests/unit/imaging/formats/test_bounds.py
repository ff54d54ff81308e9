"""Files of a few megabytes that name their parts as often as they can are read in less than a second."""

import struct
import zlib
from collections.abc import Callable
from time import process_time

import pytest

from harness.images import box, encoded, extents, gradient, jpeg_segment, png_chunk
from image_service.domain.image import ImageFormat
from image_service.errors import CorruptImage
from image_service.imaging.formats import find_metadata, read_colour, read_dimensions, read_orientation, strip
from tests.unit.imaging.formats.av1_headers import avif, colr, ipma, pitm

PICTURE = gradient(20, 10)
PNG, JPEG = encoded(PICTURE, "PNG"), encoded(PICTURE, "JPEG")
PIXELS, SCAN = PNG.index(b"IDAT") - 4, JPEG.index(b"\xff\xda")
LIMIT = 4.0
"""Seconds of processor time; the slowest takes half a second on a machine that does nothing else."""
MEGABYTES = 6 << 20
MANY = 2**32 - 1


def chunks(kind: bytes, content: bytes) -> bytes:
    """A PNG file with thousands of chunks whose checksum is wrong before its pixels."""
    chunk = png_chunk(kind, content)[:-1] + b"?"
    return PNG[:PIXELS] + chunk * 30_000 + PNG[PIXELS:]


def segments(marker: int, content: bytes) -> bytes:
    """A JPEG file with as many segments as are read."""
    return JPEG[:SCAN] + jpeg_segment(marker, content) * 4000 + JPEG[SCAN:]


def parts(count: int, length: int) -> bytes:
    """A JPEG file with segments of a profile of 255."""
    listed = (jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes((1 + at % 255, 255)) + bytes(length)) for at in range(count))
    return JPEG[:SCAN] + b"".join(listed) + JPEG[SCAN:]


FILES = {
    "cICP": (chunks(b"cICP", bytes(4)), ImageFormat.PNG),
    "iCCP": (chunks(b"iCCP", bytes(100)), ImageFormat.PNG),
    "eXIf": (chunks(b"eXIf", bytes(100)), ImageFormat.PNG),
    "palettes": (PNG[:PIXELS] + png_chunk(b"PLTE", bytes(3)) * 30_000 + PNG[PIXELS:], ImageFormat.PNG),
    "bomb": (
        PNG[:PIXELS] + png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100 << 20))) + PNG[PIXELS:],
        ImageFormat.PNG,
    ),
    "profile segments": (parts(4000, 1500), ImageFormat.JPEG),
    "large profile segments": (parts(255, 25_000), ImageFormat.JPEG),
    "other segments": (segments(0xE2, b"MPF\0"), ImageFormat.JPEG),
    "EXIF without an end": (segments(0xE1, b"Exif\0\xfe"), ImageFormat.JPEG),
}


@pytest.mark.parametrize(("content", "image_format"), FILES.values(), ids=FILES)
def test_parts_are_read_in_linear_time(content: bytes, image_format: ImageFormat) -> None:
    began = process_time()
    read_colour(content, image_format)
    read_orientation(content, image_format)
    find_metadata(content, image_format)
    strip(content, image_format)
    assert process_time() - began < LIMIT


def iloc(extents_of_item: int) -> bytes:
    """Places of one item that all hold the same byte, at 12: the length of each is given, its position is not."""
    entry = struct.pack(">HHIH", 1, 0, 12, extents_of_item) + b"\1" * extents_of_item
    return box(b"iloc", bytes(4), b"\1\x40\0\1", entry)


def repeating(byte: int, *places: bytes) -> bytes:
    """An AVIF file of an AV1 item that consists of the same byte all over."""
    entry = box(b"infe", b"\2\0\0\0", struct.pack(">HH", 1, 0), b"av01\0")
    inside = (
        pitm(),
        box(b"iinf", bytes(4), struct.pack(">H", 1), entry),
        *places,
        box(b"iprp", box(b"ipco", extents(8, 8))),
    )
    return box(b"ftyp", b"avif", bytes((byte, 0, 0, 0)), b"avif") + box(b"meta", bytes(4), *inside)


def associated(*boxes: bytes, large: bytes = b"") -> bytes:
    return avif(colr(b"prof", large), associations=b"".join(boxes))


NO_PROPERTIES = ipma(*[(2, ())] * 4096, count=MANY)
ALL_PROPERTIES = ipma(*[(1, (2,) * 255)] * 400, count=MANY)
HEIFS: dict[str, Callable[[], bytes]] = {
    "places of one byte that is a delimiter": lambda: repeating(0x12, iloc(65_000)),
    "places of one byte that is a header": lambda: repeating(0x0A, iloc(65_000)),
    "places of one byte that is a unit without content": lambda: repeating(0x02, iloc(65_000)),
    "tables of places": lambda: repeating(0x12, *[iloc(60_000)] * 100),
    "associations of other items": lambda: associated(*[NO_PROPERTIES] * 500),
    "associations of all properties": lambda: associated(*[ALL_PROPERTIES] * 50),
    "associations with one large profile": lambda: associated(ALL_PROPERTIES, large=bytes(MEGABYTES)),
    "boxes in boxes": lambda: avif() + b"\0\0\0\0meta\0\0\0\0" * 500_000,
    "boxes": lambda: avif() + b"\0\0\0\x08free" * 500_000,
}


@pytest.mark.parametrize("make", HEIFS.values(), ids=HEIFS)
def test_boxes_are_read_in_linear_time(make: Callable[[], bytes]) -> None:
    content = make()
    began = process_time()
    try:
        read_dimensions(content, ImageFormat.AVIF)
    except CorruptImage:
        pass
    else:
        # Only files of which this could be read get so far.
        read_colour(content, ImageFormat.AVIF)
        find_metadata(content, ImageFormat.AVIF)
    assert process_time() - began < LIMIT


def test_tables_of_one_kind_are_counted_together() -> None:
    one, two = repeating(0x12, iloc(60_000)), repeating(0x12, *[iloc(60_000)] * 3)
    assert read_dimensions(one, ImageFormat.AVIF) == (8, 8)
    with pytest.raises(CorruptImage, match="too many items"):
        read_dimensions(two, ImageFormat.AVIF)
