"""JPEG, WebP, TIFF and BMP: what their files say about colours; and the formats that say nothing."""

import struct

import pytest

from harness.images import bmp_header, display_p3, encoded, gradient, jpeg_segment, linear_grey, raw_tiff, tiff
from image_service.domain.image import ImageFormat
from image_service.imaging.formats import read_colour
from image_service.imaging.formats.colour import Profile
from image_service.imaging.limits import MAX_PROFILE_BYTES

PICTURE = gradient(20, 10)
PROFILE = display_p3()
JPEG, WEBP = encoded(PICTURE, "JPEG"), encoded(PICTURE, "WEBP", icc_profile=PROFILE)
SOF, SOS = JPEG.index(b"\xff\xc0"), JPEG.index(b"\xff\xda")
THIRD = -(-len(PROFILE) // 3)
THIRDS = [PROFILE[at : at + THIRD] for at in range(0, len(PROFILE), THIRD)]


def part(index: int, total: int, content: bytes, signature: bytes = b"ICC_PROFILE\0") -> bytes:
    return jpeg_segment(0xE2, signature + bytes((index, total)) + content)


def parts(*order: int, total: int = 3) -> bytes:
    return b"".join(part(index, total, THIRDS[index - 1]) for index in order)


def jpeg(before: bytes = b"", between: bytes = b"", after: bytes = b"") -> bytes:
    """A JPEG file with segments before and after its frame header, and after its scan."""
    return JPEG[:SOF] + before + JPEG[SOF:SOS] + between + JPEG[SOS:-2] + after + JPEG[-2:]


WHOLE = part(1, 1, PROFILE)
USED = {
    "in one segment": jpeg(WHOLE),
    "in three": jpeg(parts(1, 2, 3)),
    "in any order": jpeg(parts(3, 1, 2)),
    "after the frame header": jpeg(b"", WHOLE),
    "around the frame header": jpeg(parts(1, 2), parts(3)),
    "twice: the first": jpeg(WHOLE + part(1, 1, linear_grey())),
    "with something else between": jpeg(
        parts(1) + jpeg_segment(0xE2, b"MPF\0") + jpeg_segment(0xFE, b"a") + parts(2, 3)
    ),
    "before a part that is cut off": jpeg(WHOLE) + WHOLE[:10],
}
IGNORED = {
    "none": JPEG,
    "without a part": jpeg(parts(1, 3)),
    "with a part twice": jpeg(parts(1, 2, 2, 3)),
    "with counts that differ": jpeg(parts(1, 2) + parts(3, total=4)),
    "numbered from zero": jpeg(b"".join(part(index, 3, THIRDS[index]) for index in range(3))),
    "of no parts": jpeg(part(0, 0, PROFILE)),
    "with a number above its count": jpeg(part(2, 1, PROFILE)),
    "after the scan": jpeg(after=WHOLE),
    "after the end": JPEG + WHOLE,
    "with another signature": jpeg(part(1, 1, PROFILE, b"icc_profile\0")),
    "empty": jpeg(part(1, 1, b"")),
    "too large": jpeg(b"".join(part(index, 70, bytes(60_000)) for index in range(1, 71))),
    "in a segment without room for its number": jpeg(jpeg_segment(0xE2, b"ICC_PROFILE\0")),
}


@pytest.mark.parametrize("content", USED.values(), ids=USED)
def test_profile_of_jpeg_is_used(content: bytes) -> None:
    assert read_colour(content, ImageFormat.JPEG) == (Profile(PROFILE),)


@pytest.mark.parametrize("content", IGNORED.values(), ids=IGNORED)
def test_profile_of_jpeg_is_ignored(content: bytes) -> None:
    assert read_colour(content, ImageFormat.JPEG) == ()


@pytest.mark.parametrize("length", range(4, 24))
def test_jpeg_that_ends_in_a_profile_segment_has_no_profile_or_its_beginning(length: int) -> None:
    found = read_colour(JPEG[:SOS] + WHOLE[:length], ImageFormat.JPEG)
    assert found == ((Profile(PROFILE[: length - 18]),) if length > 18 else ())


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2) for kind, content in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def extended(flags: int) -> tuple[bytes, bytes]:
    return b"VP8X", bytes((flags, 0, 0, 0, 19, 0, 0, 9, 0, 0))


FRAME = b"VP8 ", encoded(PICTURE, "WEBP")[20:]
ICC = b"ICCP", PROFILE
WEBPS = {
    "announced": (WEBP, True),
    "announced, after the pixels": (riff(extended(0x20), FRAME, ICC), True),
    "announced, and another": (riff(extended(0x20), ICC, FRAME, (b"ICCP", b"other")), True),
    "not announced": (riff(extended(0), ICC, FRAME), False),
    "announced too late": (riff(FRAME, extended(0x20), ICC), False),
    "not in the extended format": (riff(FRAME, ICC), False),
    "announced, and missing": (riff(extended(0x20), FRAME), False),
    "announced, and empty": (riff(extended(0x20), (b"ICCP", b""), ICC), False),
    "announced, and too large": (riff(extended(0x20), (b"ICCP", bytes(MAX_PROFILE_BYTES + 1))), False),
}


@pytest.mark.parametrize(("content", "used"), WEBPS.values(), ids=WEBPS)
def test_profile_of_webp_has_to_be_announced(content: bytes, *, used: bool) -> None:
    assert read_colour(content, ImageFormat.WEBP) == ((Profile(PROFILE),) if used else ())


def test_profile_of_tiff_is_found() -> None:
    for big in (False, True):
        content = encoded(PICTURE, "TIFF", icc_profile=PROFILE, big_tiff=big)
        assert read_colour(content, ImageFormat.TIFF) == (Profile(PROFILE),)


@pytest.mark.parametrize("order", ["<", ">"])
def test_profile_of_tiff_is_the_first(order: str) -> None:
    entries = [(0x8773, 7, 3, 1000), (0x8773, 7, 4, 1003)]
    content = tiff(*entries, order="<" if order == "<" else ">").ljust(1000, b"\0") + b"abcdefg"
    assert read_colour(content, ImageFormat.TIFF) == (Profile(b"abc"),)


@pytest.mark.parametrize(("length", "place"), [(0, 8), (5, 2**32 - 1), (2**32 - 1, 5000)])
def test_useless_profile_of_tiff_is_ignored(length: int, place: int) -> None:
    content = raw_tiff(2, 2, bytes(12), (0x8773, 7, length, place))
    assert read_colour(content, ImageFormat.TIFF) == ()


def test_profile_of_tiff_that_is_too_large_is_ignored() -> None:
    content = raw_tiff(2, 2, bytes(MAX_PROFILE_BYTES + 100), (0x8773, 7, 2**32 - 1, 8))
    assert read_colour(content, ImageFormat.TIFF) == ()


def bmp(kind: bytes = b"DEBM", *, length: int = 124, start: int | None = None, size: int | None = None) -> bytes:
    """A BMP file of one pixel with a profile behind it."""
    header = bytearray(bmp_header(1, 1, length=length) + bytes(4))
    if length == 124:
        header[14 + 56 : 14 + 60] = kind
        place = len(header) - 14 if start is None else start
        struct.pack_into("<II", header, 14 + 112, place, len(PROFILE) if size is None else size)
    return bytes(header) + PROFILE


BMPS = {
    "embedded": (bmp(), True),
    "linked": (bmp(b"KNIL"), False),
    "of another header": (bmp(length=108), False),
    "elsewhere": (bmp(start=2**32 - 1), False),
    "of no length": (bmp(size=0), False),
    "in a header that is cut off": (bmp()[: 14 + 120], False),
}


@pytest.mark.parametrize(("content", "used"), BMPS.values(), ids=BMPS)
def test_profile_of_bmp_has_to_be_embedded(content: bytes, *, used: bool) -> None:
    assert read_colour(content, ImageFormat.BMP) == ((Profile(PROFILE),) if used else ())


def test_profile_of_bmp_that_is_too_large_is_ignored() -> None:
    assert read_colour(bmp(size=2**32 - 1) + bytes(MAX_PROFILE_BYTES), ImageFormat.BMP) == ()
    assert read_colour(bmp(size=2**32 - 1), ImageFormat.BMP) == (Profile(PROFILE),)


def test_gif_says_nothing() -> None:
    assert read_colour(encoded(PICTURE, "GIF"), ImageFormat.GIF) == ()
