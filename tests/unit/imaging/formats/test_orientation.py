"""EXIF orientation, as browsers follow it: a single SHORT in the first directory, or in that of EXIF's own tags."""

import struct

import pytest

from harness.images import LONG, SHORT, encoded, gradient, jpeg_segment, oriented, tiff
from image_service.domain.image import ImageFormat
from image_service.imaging.formats import read_orientation
from image_service.imaging.formats.tiff import orientation

PICTURE = gradient(20, 10)
JPEG = encoded(PICTURE, "JPEG")
SOF, SOS = JPEG.index(b"\xff\xc0"), JPEG.index(b"\xff\xda")
BYTE, SIGNED_SHORT = 1, 8
SIX = 0x112, SHORT, 1, 6
ONE_ENTRY = 8 + 2 + 12 + 4
"""Where the bytes after a directory of one entry begin."""


def own_tags(*entries: tuple[int, int, int, int]) -> bytes:
    """A directory without the file around it."""
    return tiff(*entries)[8:]


def announcing(count: int) -> bytes:
    """A block whose directory claims another number of entries."""
    content = tiff(SIX)
    return content[:8] + struct.pack("<H", count) + content[10:]


BLOCKS: dict[str, tuple[bytes, int]] = {
    "little-endian": (tiff(SIX), 6),
    "big-endian": (tiff(SIX, order=">"), 6),
    "every value": (tiff((0x112, SHORT, 1, 8)), 8),
    "LONG": (tiff((0x112, LONG, 1, 6)), 1),
    "signed": (tiff((0x112, SIGNED_SHORT, 1, 6)), 1),
    "BYTE": (tiff((0x112, BYTE, 1, 6)), 1),
    "two values": (tiff((0x112, SHORT, 2, 6)), 1),
    "no values": (tiff((0x112, SHORT, 0, 6)), 1),
    "0": (tiff((0x112, SHORT, 1, 0)), 1),
    "9": (tiff((0x112, SHORT, 1, 9)), 1),
    "9, then 6": (tiff((0x112, SHORT, 1, 9), SIX), 6),
    "twice": (tiff(SIX, (0x112, SHORT, 1, 3)), 6),
    "none": (tiff((0x10F, SHORT, 1, 6)), 1),
    "in the second directory": (tiff()[:10] + struct.pack("<I", 14) + own_tags(SIX), 1),
    "among EXIF's own tags": (tiff((0x8769, LONG, 1, ONE_ENTRY), rest=own_tags(SIX)), 6),
    "in both": (tiff(SIX, (0x8769, LONG, 1, ONE_ENTRY + 12), rest=own_tags((0x112, SHORT, 1, 3))), 6),
    "own tags beyond the end": (tiff((0x8769, LONG, 1, 2**32 - 1)), 1),
    "own tags that are the directory itself": (tiff((0x8769, LONG, 1, 8)), 1),
    "more entries claimed": (announcing(65_535), 6),
    "no entries claimed": (announcing(0), 1),
    "far behind": (b"II*\0" + struct.pack("<I", 5000) + bytes(4992) + own_tags(SIX), 6),
    "beyond the end": (b"II*\0\xff\xff\xff\xff" + own_tags(SIX), 1),
    "BigTIFF": (tiff(SIX, big=True), 1),
    "wrong version": (b"MM\0+" + tiff(SIX, order=">")[4:], 1),
    "wrong byte order": (b"XX*\0" + tiff(SIX)[4:], 1),
    "cut off in the entry": (tiff(SIX)[:20], 1),
    "cut off in the start": (tiff(SIX)[:7], 1),
    "empty": (b"", 1),
}


@pytest.mark.parametrize(("block", "expected"), BLOCKS.values(), ids=BLOCKS)
def test_orientation_in_a_block(block: bytes, expected: int) -> None:
    assert orientation(block) == expected


def exif(value: int, signature: bytes = b"Exif\0\0") -> bytes:
    return jpeg_segment(0xE1, signature + oriented(PICTURE, value)[6:])


JPEGS: dict[str, tuple[bytes, int]] = {
    "none": (JPEG, 1),
    "first": (JPEG[:2] + exif(6) + JPEG[2:], 6),
    "after the frame header": (JPEG[:SOS] + exif(6) + JPEG[SOS:], 6),
    "twice": (JPEG[:2] + exif(6) + exif(3) + JPEG[2:], 6),
    "malformed, then another": (JPEG[:2] + jpeg_segment(0xE1, b"Exif\0\0none") + exif(6) + JPEG[2:], 1),
    "after XMP": (JPEG[:2] + jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0") + exif(6) + JPEG[2:], 6),
    "signature with another end": (JPEG[:2] + exif(6, b"Exif\0\xff") + JPEG[2:], 6),
    "signature that is cut off": (JPEG[:2] + jpeg_segment(0xE1, b"Exif\0") + exif(6) + JPEG[2:], 6),
    "another signature": (JPEG[:2] + exif(6, b"exif\0\0") + JPEG[2:], 1),
    "in another segment": (JPEG[:2] + jpeg_segment(0xE2, exif(6)[4:]) + JPEG[2:], 1),
    "after the scan": (JPEG[:-2] + exif(6) + JPEG[-2:], 1),
    "after the end": (JPEG + exif(6), 1),
}


@pytest.mark.parametrize(("content", "expected"), JPEGS.values(), ids=JPEGS)
def test_orientation_of_jpeg(content: bytes, expected: int) -> None:
    assert read_orientation(content, ImageFormat.JPEG) == expected


def test_formats_without_exif_of_their_own() -> None:
    turned = encoded(PICTURE, "WEBP", exif=oriented(PICTURE, 6))
    assert read_orientation(turned, ImageFormat.WEBP) == 1
    assert read_orientation(encoded(PICTURE, "BMP"), ImageFormat.BMP) == 1
    for known_by_decoders in (ImageFormat.AVIF, ImageFormat.HEIC, ImageFormat.TIFF):
        assert read_orientation(b"", known_by_decoders) == 0
