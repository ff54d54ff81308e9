"""Sizes of thumbnails: inside the box, never enlarged, with the picture's aspect ratio."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from image_service.domain.recipe import Preset, Recipe
from tests.golden.comparison import Tolerance, assert_alike
from tests.golden.files import TRUE_COLOUR, packed_png, png_of, write
from tests.golden.pictures import quantised, scene, to_image
from tests.golden.reference import Pixels, resize
from tests.golden.rendering import Make, boxes

LENGTH = 20_000
LONGEST_WEBP = 16_383


def small(width: int, height: int) -> bytes:
    """Return a file of this size that is cheap to make."""
    return packed_png(np.zeros((height, width), dtype=np.uint8), 1, colour=0)


side = st.one_of(st.integers(1, 40), st.integers(1, 2500))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=side, height=side, box_width=st.integers(1, 1300), box_height=st.integers(1, 1300))
@example(width=1, height=1, box_width=1, box_height=1)
@example(width=2500, height=1, box_width=100, box_height=100)
@example(width=1, height=2500, box_width=100, box_height=100)
@example(width=101, height=100, box_width=100, box_height=100)
@example(width=100, height=101, box_width=100, box_height=100)
def test_sizes(make: Make, width: int, height: int, box_width: int, box_height: int) -> None:
    recipe = Recipe(presets=(Preset(name="1", width=box_width, height=box_height), *boxes(100, 300).presets))
    made = make(small(width, height), recipe)
    assert (made.rendering.width, made.rendering.height) == (width, height)
    for preset in recipe.presets:
        assert_fits(made.image(int(preset.name)).size, (width, height), (preset.width or 0, preset.height or 0))


def assert_fits(found: tuple[int, int], size: tuple[int, int], box: tuple[int, int]) -> None:
    """Check that the size is the largest in the box with the aspect ratio, to half a pixel, and not enlarged."""
    scale = min(Fraction(1), *(Fraction(limit, length) for limit, length in zip(box, size, strict=True)))
    for got, length, limit in zip(found, size, box, strict=True):
        assert 1 <= got <= min(length, limit)
        assert abs(got - length * scale) <= Fraction(1, 2) or got == 1
    assert scale == 1 or any(got == limit for got, limit in zip(found, box, strict=True))
    assert scale < 1 or found == size


@pytest.mark.parametrize("image_format", TRUE_COLOUR)
def test_one_pixel(make: Make, image_format: str) -> None:
    picture = quantised(np.array([[[0.8, 0.4, 0.2]]]))
    made = make(write(to_image(picture), image_format), boxes(100))
    assert made.image(100).size == (1, 1)
    assert np.abs(made.pixels(100) - picture).max() * 255 < 6


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp", "avif"])
@pytest.mark.parametrize("turned", [False, True], ids=["wide", "tall"])
def test_pictures_one_pixel_wide(make: Make, image_format: str, *, turned: bool) -> None:
    picture = line(LONGEST_WEBP if image_format == "webp" else LENGTH)
    picture = picture.swapaxes(0, 1) if turned else picture
    made = make(write(to_image(picture), image_format), boxes(1200, 100))
    for box in (1200, 100):
        width, height = (1, box) if turned else (box, 1)
        assert made.image(box).size == (width, height)
        assert_alike(made.pixels(box), resize(picture, width, height), Tolerance(mean=3, psnr=33))


def line(length: int) -> Pixels:
    """Return a picture one pixel high, whose colours change slowly enough for the smallest thumbnail."""
    at = np.linspace(0, 1, length)
    return quantised(np.stack((0.1 + 0.8 * at, 0.5 + 0.3 * np.sin(12 * at), 0.8 - 0.5 * at), axis=-1)[None])


@pytest.mark.parametrize("size", [(300, 200), (299, 200), (150, 100)])
def test_small_pictures_keep_their_size(make: Make, size: tuple[int, int]) -> None:
    picture = scene(*size)
    assert_alike(make(png_of(picture), boxes(300)).pixels(300), picture)


@pytest.mark.parametrize(("width", "height"), [(1201, 803), (1999, 420), (97, 1303), (640, 480), (641, 479)])
@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp"])
def test_any_aspect_ratio_shows_the_whole_picture(make: Make, image_format: str, width: int, height: int) -> None:
    # A scaled decode rounds the edges up; the picture must not be shifted or stretched by that.
    picture = scene(width, height)
    made = make(write(to_image(picture), image_format), boxes(160))
    size = made.image(160).size
    assert_fits(size, (width, height), (160, 160))
    assert_alike(made.pixels(160), resize(picture, *size), Tolerance(mean=3, psnr=34, ssim=0.96))
