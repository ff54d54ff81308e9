"""Files whose signals are damaged in any way end in a picture or a verdict: never in another error."""

import random
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from harness.images import bmp_header, display_p3, encoded, gradient, linear_grey, oriented, png, png_chunk
from image_service.domain.image import ImageFormat
from image_service.domain.recipe import Preset, Recipe
from image_service.errors import InvalidImage
from image_service.imaging.formats import find_metadata, read_colour, read_orientation, strip
from image_service.imaging.inspect import HeaderInspector
from image_service.imaging.limits import RenderLimits
from image_service.imaging.render.pipeline import render
from tests.unit.imaging.formats.av1_headers import avif, described, nclx, reduced, unit

PICTURE = gradient(24, 16)
EXIF, P3 = oriented(PICTURE, 6), display_p3()
ROUNDS = 60
"""Damaged files made of each."""
NUMBERS = (0, 1, 2, 127, 128, 255, 4096, 65_535, 2**31 - 1, 2**31, 2**32 - 1)
CHUNKS = (
    png_chunk(b"cICP", bytes((9, 16, 0, 1))),
    png_chunk(b"cLLI", struct.pack(">II", 10**7, 1)),
    png_chunk(b"iCCP", b"a\0\0" + zlib.compress(P3)),
    png_chunk(b"gAMA", struct.pack(">I", 100_000)),
    png_chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
    png_chunk(b"eXIf", EXIF[6:]),
)
WIDE = bytes(value for value in PICTURE.tobytes() for _ in range(2))


def bmp() -> bytes:
    header = bytearray(bmp_header(*PICTURE.size, length=124))
    header[70:74] = b"DEBM"
    pixels = bytes(3 * 24 * 16)
    struct.pack_into("<II", header, 126, len(header) - 14 + len(pixels), len(P3))
    return bytes(header) + pixels + P3


SEEDS = {
    "png": png(*PICTURE.size, PICTURE.tobytes(), *CHUNKS),
    "png of a gamma": png(*PICTURE.size, PICTURE.tobytes(), *CHUNKS[3:]),
    "png of 16 bits": png(*PICTURE.size, WIDE, *CHUNKS, depth=16),
    "png of 16 bits with a profile": png(*PICTURE.size, WIDE, CHUNKS[2], depth=16),
    "jpeg": encoded(PICTURE, "JPEG", icc_profile=P3, exif=EXIF),
    "grey jpeg": encoded(PICTURE.convert("L"), "JPEG", icc_profile=linear_grey()),
    "webp": encoded(PICTURE, "WEBP", icc_profile=P3, exif=EXIF),
    "avif": encoded(PICTURE, "AVIF", icc_profile=P3, speed=10),
    "avif with alpha": encoded(PICTURE.convert("RGBA"), "AVIF", speed=10),
    "sequence": encoded(PICTURE, "AVIF", speed=10, save_all=True, append_images=[PICTURE.rotate(180)]),
    "boxes": avif(nclx(9, 16), streams={1: unit(reduced(*described(9, 16)))}),
    "heic": encoded(PICTURE, "HEIF", icc_profile=P3),
    "tiff": encoded(PICTURE, "TIFF", icc_profile=P3),
    "bmp": bmp(),
}


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Return the file with one to four changes, most of them near its start, where signals stand."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(len(changed), rng.choice((300, 1200, len(changed)))))
        match rng.randrange(6):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + 4] = rng.choice(NUMBERS).to_bytes(4)
            case 2:
                changed[at:at] = rng.randbytes(rng.choice((1, 4, 50)))
            case 3:
                del changed[at : at + rng.choice((1, 4, 50))]
            case 4:
                changed[at:at] = changed[at : at + rng.choice((12, 60))] * rng.choice((1, 5))
            case _:
                del changed[max(at, 20) :]
    return bytes(changed)


def with_sums(content: bytes) -> bytes:
    """Return the PNG file with the right checksum of each chunk, so that what is in them is read."""
    position, made = 8, content[:8]
    while len(content) - position >= 12:
        end = position + 8 + int.from_bytes(content[position : position + 4])
        made += png_chunk(content[position + 4 : position + 8], content[position + 8 : end])
        position = end + 4
    return made


RECIPE = Recipe(presets=(Preset(name="small", width=8, height=8, quality=80),))
LIMITS = RenderLimits(formats=tuple(ImageFormat), max_pixels=100_000)


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_signals_end_in_a_picture_or_a_verdict(name: str, tmp_path: Path) -> None:
    rng, source = random.Random(name), tmp_path / "source"
    outcomes: set[type[InvalidImage] | None] = set()
    inspector = HeaderInspector(max_pixels=LIMITS.max_pixels, allowed=ImageFormat)
    for _ in range(ROUNDS):
        content = mutated(SEEDS[name], rng)
        if name.startswith("png") and rng.random() < 0.7:
            content = with_sums(content)
        source.write_bytes(content)
        try:
            image_format = inspector.inspect(source).format
            read_colour(content, image_format)
            read_orientation(content, image_format)
            find_metadata(content, image_format)
            strip(content, image_format)
            made = render(source, RECIPE, tmp_path, LIMITS)
        except InvalidImage as error:
            outcomes.add(type(error))
        else:
            with Image.open(made.thumbnails[0].path) as small:
                assert max(small.size) <= 8
            outcomes.add(None)
    assert len(outcomes) > (name != "boxes")
