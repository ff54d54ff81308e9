"""Colours are converted to sRGB from profiles of every kind."""

from typing import Final

import numpy as np
import pytest
from PIL import Image, ImageCms

from harness.images import png_chunk
from image_service.imaging.limits import MAX_PROFILE_BYTES
from tests.golden.files import FORMATS, packed_png, png_of, write, ycck_jpeg
from tests.golden.pictures import PATCH, chart, colours, quantised, read_chart, to_cmyk, to_image
from tests.golden.profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    GREY_PROFILES,
    MATRIX_PROFILES,
    PRESS,
    PROPHOTO,
    TABLE_OF_COLOURS,
    MatrixProfile,
    Profile,
)
from tests.golden.reference import Pixels, delta_e, srgb_to_lab
from tests.golden.rendering import Make, boxes

MEAN, LARGEST = 1.0, 4.0
"""Tolerated CIEDE2000 differences on a chart: the mean, and that of its worst patch."""
NOTICEABLE = 2.0
"""The least mean difference between the colours with and without conversion, so that a test is meaningful."""
BOX = boxes(160)
PROFILED: Final = [each for each in FORMATS if each not in {"gif", "bmp"}]

COLOURS = colours()
GREYS = quantised(np.linspace(0, 1, 32))
INKS = quantised(
    np.concatenate(
        (
            np.random.default_rng(3).uniform(0, 0.9, (24, 4)) * (1, 1, 1, 0.5),
            np.eye(4).repeat(4, axis=0) * np.tile((0.25, 0.5, 0.75, 1), 4)[:, None],
            np.zeros((8, 4)) + np.linspace(0, 0.7, 8)[:, None],
        )
    )
)


def difference(found: Pixels, expected: Pixels) -> Pixels:
    return delta_e(srgb_to_lab(found), srgb_to_lab(expected))


def assert_colours(make: Make, content: bytes, expected: Pixels) -> None:
    """Check that the chart in the file renders as these sRGB colours."""
    found = read_chart(make(content, BOX).pixels(160), len(expected))
    differences = difference(found, expected)
    worst = int(differences.argmax())
    assert (float(differences.mean()) <= MEAN, float(differences.max()) <= LARGEST) == (True, True), (
        f"mean {differences.mean():.2f}, worst {differences.max():.2f}: found {found[worst]}, wanted {expected[worst]}"
    )


@pytest.mark.parametrize("profile", MATRIX_PROFILES, ids=lambda profile: profile.name)
def test_converts_matrix_profiles(make: Make, profile: MatrixProfile) -> None:
    stored = quantised(profile.from_srgb(COLOURS))
    expected = profile.to_srgb(stored)
    assert difference(stored, expected).mean() > NOTICEABLE
    assert_colours(make, png_of(chart(stored), icc(profile.content)), expected)


@pytest.mark.parametrize("image_format", PROFILED)
def test_finds_the_profile_in_every_format(make: Make, image_format: str) -> None:
    stored = quantised(ADOBE_RGB.from_srgb(COLOURS))
    content = write(to_image(chart(stored)), image_format, icc_profile=ADOBE_RGB.content)
    assert_colours(make, content, ADOBE_RGB.to_srgb(stored))


@pytest.mark.parametrize("profile", [DISPLAY_P3, ADOBE_RGB, PROPHOTO], ids=lambda profile: profile.name)
def test_clips_colours_outside_srgb(make: Make, profile: MatrixProfile) -> None:
    expected = profile.to_srgb(COLOURS)
    assert ((expected == 0) | (expected == 1)).any(axis=1).sum() > 8
    assert_colours(make, png_of(chart(COLOURS), icc(profile.content)), expected)


def test_converts_table_profiles(make: Make) -> None:
    stored = quantised(ADOBE_RGB.from_srgb(COLOURS))
    content = png_of(chart(stored), icc(TABLE_OF_COLOURS.content))
    assert_colours(make, content, TABLE_OF_COLOURS.to_srgb(stored))


def test_converts_palette(make: Make) -> None:
    stored = quantised(ADOBE_RGB.from_srgb(COLOURS))
    palette = png_chunk(b"PLTE", np.round(stored * 255).astype(np.uint8).tobytes())
    indices = chart(np.arange(len(stored), dtype=np.float64)).astype(np.uint8)
    content = packed_png(indices, 8, icc(ADOBE_RGB.content), palette)
    assert_colours(make, content, ADOBE_RGB.to_srgb(stored))


@pytest.mark.parametrize("depth", [8, 16])
def test_converts_colours_with_alpha(make: Make, depth: int) -> None:
    stored = quantised(PROPHOTO.from_srgb(COLOURS))
    alpha = np.full((*chart(stored).shape[:2], 1), 0.6)
    made = make(png_of(np.concatenate((chart(stored), alpha), axis=2), icc(PROPHOTO.content), depth=depth), BOX)
    found = made.pixels_with_alpha(160)
    assert np.abs(found[..., 3] - 0.6).max() < 0.01
    differences = difference(read_chart(found, len(stored))[:, :3], PROPHOTO.to_srgb(stored))
    assert differences.mean() <= MEAN


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
@pytest.mark.parametrize("profile", GREY_PROFILES, ids=lambda profile: profile.name)
def test_converts_grey_profiles(make: Make, profile: Profile, image_format: str) -> None:
    content = write(to_image(chart(GREYS)), image_format, icc_profile=profile.content)
    expected = profile.to_srgb(GREYS)
    assert difference(np.stack((GREYS,) * 3, axis=-1), expected).mean() > NOTICEABLE
    assert_colours(make, content, expected)


def test_converts_16_bit_grey(make: Make) -> None:
    profile = GREY_PROFILES[0]
    assert_colours(make, png_of(chart(GREYS), icc(profile.content), depth=16), profile.to_srgb(GREYS))


@pytest.mark.parametrize("depth", [8, 16])
def test_converts_grey_with_alpha(make: Make, depth: int) -> None:
    profile = GREY_PROFILES[0]
    pixels = np.stack((chart(GREYS), np.full((4 * PATCH, 8 * PATCH), 0.6)), axis=-1)
    found = make(png_of(pixels, icc(profile.content), depth=depth), BOX).pixels_with_alpha(160)
    assert np.abs(found[..., 3] - 0.6).max() < 0.01
    differences = difference(read_chart(found, len(GREYS))[:, :3], profile.to_srgb(GREYS))
    assert differences.mean() <= MEAN


def test_converts_grey_avif(make: Make) -> None:
    profile = GREY_PROFILES[0]
    content = write(to_image(chart(GREYS)), "avif", subsampling="4:0:0", icc_profile=profile.content)
    assert_colours(make, content, profile.to_srgb(GREYS))


def test_converts_cmyk_profile(make: Make) -> None:
    expected = PRESS.to_srgb(INKS)
    assert difference(without_profile(INKS), expected).mean() > NOTICEABLE
    for content in (
        write(to_cmyk(chart(INKS)), "jpeg", icc_profile=PRESS.content),
        write(to_cmyk(chart(INKS)), "jpeg", icc_profile=PRESS.content, progressive=True),
        ycck_jpeg(chart(INKS), icc_profile=PRESS.content),
    ):
        assert_colours(make, content, expected)


def test_converts_cmyk_without_profile(make: Make) -> None:
    for content in (write(to_cmyk(chart(INKS)), "jpeg"), ycck_jpeg(chart(INKS))):
        assert_colours(make, content, without_profile(INKS))


def without_profile(inks: Pixels) -> Pixels:
    """Return the colours that browsers show: each ink absorbs one primary, and black all of them."""
    return np.asarray((1 - inks[..., :3]) * (1 - inks[..., 3:]))


def test_does_not_convert_srgb(make: Make) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert_colours(make, png_of(chart(COLOURS), icc(profile)), COLOURS)
    assert_colours(make, png_of(chart(COLOURS)), COLOURS)


USELESS = {
    "empty": b"",
    "text": b"no profile at all" * 20,
    "cut off": DISPLAY_P3.content[:300],
    "without its tags": DISPLAY_P3.content[:128] + bytes(len(DISPLAY_P3.content) - 128),
    "without its table": TABLE_OF_COLOURS.content.replace(b"mAB ", b"none"),
    "for grey": GREY_PROFILES[0].content,
    "for CMYK": PRESS.content,
    "too large": DISPLAY_P3.content + bytes(MAX_PROFILE_BYTES),
}


@pytest.mark.parametrize("profile", USELESS.values(), ids=USELESS)
@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_ignores_useless_profiles(make: Make, profile: bytes, image_format: str) -> None:
    assert_colours(make, write(to_image(chart(COLOURS)), image_format, icc_profile=profile), COLOURS)


def test_ignores_rgb_profile_on_grey_and_cmyk(make: Make) -> None:
    greys, inks = to_image(chart(GREYS)), to_cmyk(chart(INKS))
    content = write(greys, "png", icc_profile=ADOBE_RGB.content)
    assert_colours(make, content, np.stack((GREYS,) * 3, axis=-1))
    content = write(inks, "jpeg", icc_profile=ADOBE_RGB.content)
    assert_colours(make, content, without_profile(INKS))


def icc(profile: bytes) -> bytes:
    """Return the PNG chunk that holds the profile."""
    file = write(Image.new("L", (1, 1)), "png", icc_profile=profile)
    start = file.index(b"iCCP") - 4
    return file[start : file.index(b"IDAT") - 4]
