"""Every orientation is applied exactly once, in every format."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from harness.images import png_chunk
from tests.golden.comparison import SMALL, USUAL, assert_alike
from tests.golden.files import FORMATS, exif, png_of, with_box_value, write
from tests.golden.pictures import scene, to_image
from tests.golden.reference import Pixels, resize
from tests.golden.rendering import Make, boxes

WIDTH, HEIGHT = 360, 240
UPRIGHT = scene(WIDTH, HEIGHT)
STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}
"""From the upright to the stored picture, by orientation (EXIF 2.32 §4.6.4)."""
ORIENTATION, UNUSED = 0x0112, 0x0113
ORIENTABLE = [each for each in FORMATS if each not in {"gif", "bmp", "webp"}]
"""Formats whose EXIF decides on the orientation: browsers do not read that of WebP."""
ISO_MEDIA = [each for each in FORMATS if each in {"avif", "heic"}]
"""Formats with rotation and mirroring boxes."""


def assert_upright(make: Make, content: bytes, upright: Pixels = UPRIGHT) -> None:
    height, width = upright.shape[:2]
    made = make(content, boxes(180, 60))
    assert (made.rendering.width, made.rendering.height) == (width, height)
    for side, tolerance in ((180, USUAL), (60, SMALL)):
        size = (side, side * height // width) if width > height else (side * width // height, side)
        assert_alike(made.pixels(side), resize(upright, *size), tolerance)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("image_format", ORIENTABLE)
def test_applies_every_orientation(make: Make, image_format: str, orientation: int) -> None:
    stored = to_image(STORED[orientation](UPRIGHT))
    assert_upright(make, write(stored, image_format, exif=exif(orientation)))


@pytest.mark.parametrize("orientation", STORED)
def test_ignores_orientation_in_webp(make: Make, orientation: int) -> None:
    assert_upright(make, write(to_image(UPRIGHT), "webp", exif=exif(orientation)))


@pytest.mark.parametrize("orientation", STORED)
def test_applies_every_orientation_to_a_scaled_decode(make: Make, orientation: int) -> None:
    # Four times the wanted size, and no multiple of the size of decoded blocks.
    upright = scene(727, 483)
    made = make(write(to_image(STORED[orientation](upright)), "jpeg", exif=exif(orientation)), boxes(120))
    assert (made.rendering.width, made.rendering.height) == (727, 483)
    assert_alike(made.pixels(120), resize(upright, 120, 80), USUAL)


@pytest.mark.parametrize("size", [(360, 240), (1290, 860)], ids=["small", "large"])
def test_finds_the_orientation_before_the_pixels_of_a_png(make: Make, size: tuple[int, int]) -> None:
    upright = scene(*size)
    chunk = png_chunk(b"eXIf", exif(6).removeprefix(b"Exif\0\0"))
    assert_alike(make(png_of(STORED[6](upright), chunk), boxes(180)).pixels(180), resize(upright, 180, 120))


@pytest.mark.parametrize("size", [(360, 240), (1290, 860)], ids=["small", "large"])
def test_ignores_the_orientation_after_the_pixels_of_a_png(make: Make, size: tuple[int, int]) -> None:
    upright = scene(*size)
    content = png_of(upright)
    at = content.index(b"IEND") - 4
    made = make(content[:at] + png_chunk(b"eXIf", exif(6).removeprefix(b"Exif\0\0")) + content[at:], boxes(180))
    assert_alike(made.pixels(180), resize(upright, 180, 120))


@pytest.mark.parametrize("orientation", STORED)
def test_applies_every_orientation_to_transparency(make: Make, orientation: int) -> None:
    alpha = np.linspace(0.2, 1, WIDTH)[None, :, None].repeat(HEIGHT, axis=0)
    upright = np.concatenate((UPRIGHT, alpha), axis=2)
    chunk = png_chunk(b"eXIf", exif(orientation).removeprefix(b"Exif\0\0"))
    made = make(png_of(STORED[orientation](upright), chunk), boxes(180))
    assert_alike(made.pixels_with_alpha(180)[..., 3], resize(alpha, 180, 120)[..., 0])


@pytest.mark.parametrize("mirrored", [None, 0, 1], ids=["not mirrored", "top to bottom", "left to right"])
@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("image_format", ISO_MEDIA)
def test_applies_the_boxes_of_iso_media(make: Make, image_format: str, quarters: int, mirrored: int | None) -> None:
    # Anticlockwise quarters of a turn, and then a mirror (ISO 23008-12 §6.5.10 and §6.5.12, MIAF §7.3.6.7).
    upright = np.rot90(UPRIGHT, quarters)
    if mirrored is not None:
        upright = np.flip(upright, axis=mirrored)
    content = write(to_image(UPRIGHT), image_format, exif=exif(6 if mirrored is None else 7))
    content = with_box_value(content, b"irot", quarters)
    if mirrored is not None:
        content = with_box_value(content, b"imir", mirrored)
    assert_upright(make, content, upright)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("image_format", ISO_MEDIA)
def test_orients_once_where_exif_repeats_the_boxes(make: Make, image_format: str, orientation: int) -> None:
    tags = Image.Exif()
    tags[ORIENTATION], tags[UNUSED] = orientation, orientation
    content = write(to_image(STORED[orientation](UPRIGHT)), image_format, exif=tags.tobytes())
    assert_upright(make, named_orientation(content))


@pytest.mark.parametrize("image_format", ISO_MEDIA)
def test_iso_media_ignores_orientation_in_exif(make: Make, image_format: str) -> None:
    tags = Image.Exif()
    tags[UNUSED] = 6
    assert_upright(make, named_orientation(write(to_image(UPRIGHT), image_format, exif=tags.tobytes())))


def named_orientation(content: bytes) -> bytes:
    """Return the file with its unused tag renamed: encoders remove the orientation from EXIF, but keep other tags."""
    unused, orientation = (struct.pack(">HHI", tag, 3, 1) for tag in (UNUSED, ORIENTATION))
    assert content.count(unused) == 1
    return content.replace(unused, orientation)
