"""PNG: which chunk decides on the colours, and what makes a chunk one that is ignored."""

import struct
import zlib

import pytest

from harness.images import display_p3, gradient, linear_grey, oriented, png, png_chunk
from image_service.domain.image import ImageFormat
from image_service.imaging.formats import read_colour, read_orientation
from image_service.imaging.formats.colour import SRGB, Cicp, Gamma, Profile, Signal

PICTURE = gradient(20, 10)
P3_POINTS = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


def iccp(profile: bytes, name: bytes = b"name", method: int = 0) -> bytes:
    return png_chunk(b"iCCP", name + bytes((0, method)) + zlib.compress(profile))


def gama(value: int) -> bytes:
    return png_chunk(b"gAMA", struct.pack(">I", value))


def chrm(*values: int) -> bytes:
    return png_chunk(b"cHRM", struct.pack(">8I", *values))


def cicp(*values: int) -> bytes:
    return png_chunk(b"cICP", bytes(values))


def damaged(chunk: bytes) -> bytes:
    """The chunk with a wrong checksum."""
    return chunk[:-1] + bytes((chunk[-1] ^ 1,))


CICP, ICCP, SRGB_CHUNK, GAMA = cicp(12, 13, 0, 1), iccp(display_p3()), png_chunk(b"sRGB", b"\0"), gama(1)
CHRM = chrm(*P3_POINTS)
PROFILE = Profile(display_p3())
GAMMA = Gamma(0.00001, tuple(value / 100_000 for value in P3_POINTS))
LIGHT = png_chunk(b"cLLI", struct.pack(">II", 4000 * 10_000, 1))
DISPLAY = png_chunk(b"mDCV", struct.pack(">8H2I", *[0] * 8, 600 * 10_000, 1))
PLTE = png_chunk(b"PLTE", bytes(3))


def of(*chunks: bytes, after: bytes = b"") -> bytes:
    """A PNG file with chunks before its pixels, and after them."""
    content = png(*PICTURE.size, PICTURE.tobytes(), *chunks)
    return content[:-12] + after + content[-12:]


CASES: dict[str, tuple[bytes, tuple[Signal, ...]]] = {
    "nothing": (of(), ()),
    "all, the most important first": (
        of(CHRM, GAMA, SRGB_CHUNK, ICCP, CICP),
        (Cicp(12, 13), PROFILE, SRGB, GAMMA),
    ),
    "cHRM alone": (of(CHRM), ()),
    "gAMA alone": (of(gama(100_000)), (Gamma(1.0, ()),)),
    "gAMA of zero": (of(gama(0), CHRM), ()),
    "gAMA that is no number with a sign": (of(gama(2**32 - 1)), (Gamma((2**32 - 1) / 100_000, ()),)),
    "usual gAMA, the least": (of(gama(43_182)), ()),
    "usual gAMA, the largest": (of(gama(47_727)), ()),
    "gAMA just below the usual": (of(gama(43_181)), (Gamma(0.43181, ()),)),
    "gAMA just above the usual": (of(gama(47_728)), (Gamma(0.47728, ()),)),
    "usual gAMA with cHRM": (of(CHRM, gama(45_455)), (GAMMA._replace(exponent=0.45455),)),
    "gAMA twice": (of(gama(100_000), gama(50_000)), (Gamma(1.0, ()),)),
    "gAMA with a wrong checksum, then one": (of(damaged(gama(1)), gama(100_000)), (Gamma(1.0, ()),)),
    "gAMA of a wrong length": (of(png_chunk(b"gAMA", bytes(5))), ()),
    "gAMA after PLTE": (of(PLTE, gama(100_000)), (Gamma(1.0, ()),)),
    "gAMA after the pixels": (of(after=gama(100_000)), ()),
    "cHRM of a wrong length": (of(png_chunk(b"cHRM", bytes(31)), gama(100_000)), (Gamma(1.0, ()),)),
    "cHRM with a wrong checksum": (of(damaged(CHRM), gama(100_000)), (Gamma(1.0, ()),)),
    "sRGB of a wrong length": (of(png_chunk(b"sRGB", b""), gama(100_000)), (Gamma(1.0, ()),)),
    "sRGB of an unknown intent": (of(png_chunk(b"sRGB", b"\x09")), (SRGB,)),
    "cICP with a matrix": (of(cicp(9, 16, 9, 1), ICCP), (PROFILE,)),
    "cICP of a narrow range": (of(cicp(9, 16, 0, 0), SRGB_CHUNK), (SRGB,)),
    "cICP of a range that does not exist": (of(cicp(9, 16, 0, 2)), ()),
    "cICP too short": (of(png_chunk(b"cICP", b"\x09\x10\0")), ()),
    "cICP too long": (of(png_chunk(b"cICP", b"\x09\x10\0\1\0")), ()),
    "cICP with a wrong checksum": (of(damaged(CICP)), ()),
    "cICP twice": (of(CICP, cicp(1, 13, 0, 1)), (Cicp(12, 13),)),
    "cICP after PLTE": (of(PLTE, CICP), ()),
    "cICP after the pixels": (of(after=CICP), ()),
    "cICP that is unspecified": (of(cicp(2, 2, 0, 1)), (Cicp(2, 2),)),
    "cICP with cLLI": (of(LIGHT, DISPLAY, cicp(9, 16, 0, 1)), (Cicp(9, 16, 4000.0),)),
    "cICP with mDCV": (of(cicp(9, 16, 0, 1), DISPLAY), (Cicp(9, 16, 600.0),)),
    "cICP with cLLI of zero": (of(png_chunk(b"cLLI", bytes(8)), DISPLAY, cicp(9, 16, 0, 1)), (Cicp(9, 16, 600.0),)),
    "cLLI alone": (of(LIGHT), ()),
    "cLLI too short": (of(png_chunk(b"cLLI", bytes(7)), cicp(9, 16, 0, 1)), (Cicp(9, 16),)),
    "iCCP twice": (of(ICCP, iccp(linear_grey())), (PROFILE,)),
    "iCCP without a name": (of(iccp(display_p3(), b"")), ()),
    "iCCP with a name of 80 bytes": (of(iccp(display_p3(), b"a" * 80)), (PROFILE,)),
    "iCCP with a name of 81 bytes": (of(iccp(display_p3(), b"a" * 81), SRGB_CHUNK), (SRGB,)),
    "iCCP with another compression": (of(iccp(display_p3(), method=1)), ()),
    "iCCP that is not compressed": (of(png_chunk(b"iCCP", b"a\0\0" + display_p3())), ()),
    "iCCP without a profile": (of(png_chunk(b"iCCP", b"a\0\0")), ()),
    "iCCP without an end of its name": (of(png_chunk(b"iCCP", b"a" * 9)), ()),
    "iCCP of nothing": (of(iccp(b"")), ()),
    "iCCP with a wrong Adler-32": (of(png_chunk(b"iCCP", b"a\0\0" + zlib.compress(display_p3())[:-1] + b"x")), ()),
    "iCCP with more behind": (of(png_chunk(b"iCCP", b"a\0\0" + zlib.compress(display_p3()) + b"x")), (PROFILE,)),
    "iCCP with a wrong checksum": (of(damaged(ICCP)), ()),
    "iCCP after the pixels": (of(after=ICCP), ()),
}


@pytest.mark.parametrize(("content", "expected"), CASES.values(), ids=CASES)
def test_chunk_that_counts(content: bytes, expected: tuple[Signal, ...]) -> None:
    assert read_colour(content, ImageFormat.PNG) == expected


def with_checksum_of_zero(kind: bytes, length: int) -> bytes:
    """Return content of a chunk after which the checksum is zero (the last four bytes are found backwards)."""
    start = zlib.crc32(kind + bytes(length - 4))
    table = [zlib.crc32(bytes((byte,)), 0xFFFFFFFF) ^ 0xFFFFFFFF for byte in range(256)]
    wanted, ending = 0xFFFFFFFF, b""
    indices = []
    for _ in range(4):
        index = next(index for index in range(256) if table[index] >> 24 == wanted >> 24)
        indices.append(index)
        wanted = (wanted ^ table[index]) << 8 & 0xFFFFFFFF
    state = start ^ 0xFFFFFFFF
    for index in reversed(indices):
        byte = (state ^ index) & 0xFF
        ending += bytes((byte,))
        state = state >> 8 ^ table[index]
    return bytes(length - 4) + ending


def test_chunk_that_is_cut_off_is_ignored_whatever_its_checksum() -> None:
    # A content can be made whose checksum is zero, as which the missing one was read.
    cut = with_checksum_of_zero(b"cHRM", 12)
    assert zlib.crc32(b"cHRM" + cut) == 0
    content = of(gama(100_000))
    pixels = content.index(b"IDAT") - 4
    content = content[:pixels] + struct.pack(">I", 32) + b"cHRM" + cut
    assert read_colour(content, ImageFormat.PNG) == (Gamma(1.0, ()),)


EXIF = oriented(PICTURE, 6)[6:]
ORIENTATIONS = {
    "before the pixels": (of(png_chunk(b"eXIf", EXIF)), 6),
    "after the pixels": (of(after=png_chunk(b"eXIf", EXIF)), 1),
    "twice": (of(png_chunk(b"eXIf", EXIF), png_chunk(b"eXIf", oriented(PICTURE, 3)[6:])), 6),
    "with a wrong checksum": (of(damaged(png_chunk(b"eXIf", EXIF))), 1),
    "with JPEG's signature": (of(png_chunk(b"eXIf", b"Exif\0\0" + EXIF)), 1),
    "empty": (of(png_chunk(b"eXIf", b"")), 1),
    "none": (of(), 1),
}


@pytest.mark.parametrize(("content", "expected"), ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_orientation_of_png(content: bytes, expected: int) -> None:
    assert read_orientation(content, ImageFormat.PNG) == expected
