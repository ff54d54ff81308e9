"""Transparency is preserved, and the colours of invisible pixels never show."""

import numpy as np
import pytest

from image_service.domain.recipe import DEFAULT_RECIPE
from tests.golden.comparison import Tolerance, assert_alike
from tests.golden.files import FORMATS, png_of, write
from tests.golden.pictures import quantised, scene, to_image
from tests.golden.reference import Pixels, over, resize_visible
from tests.golden.rendering import Make, boxes

SIDE = 500
COLOURS = {"red": (0.9, 0.2, 0.15), "green": (0.2, 0.75, 0.3), "grey": (0.5, 0.5, 0.5), "pale": (0.95, 0.85, 0.6)}
GROUNDS = {"black": 0.0, "white": 1.0}
"""The colours that encoders leave in invisible pixels."""
WITH_ALPHA = [each for each in FORMATS if each in {"png", "webp", "avif", "heic"}]


def disc(colour: tuple[float, float, float], ground: float) -> Pixels:
    """Return a disc with a smooth edge, and a half transparent one behind it, on an invisible background."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    near = np.clip(0.36 * SIDE - np.hypot(x - 0.45 * SIDE, y - 0.45 * SIDE), 0, 1)
    far = np.clip(0.3 * SIDE - np.hypot(x - 0.65 * SIDE, y - 0.65 * SIDE), 0, 1) / 2
    alpha = np.maximum(near, far)[..., None]
    return quantised(np.concatenate((np.where(alpha > 0, colour, ground), alpha), axis=2))


@pytest.mark.parametrize("ground", GROUNDS.values(), ids=GROUNDS)
@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
def test_no_fringe_around_a_disc(make: Make, colour: tuple[float, float, float], ground: float) -> None:
    picture = disc(colour, ground)
    made = make(png_of(picture), boxes(250, 100, 33, quality=100))
    for side in (250, 100, 33):
        found, expected = made.pixels_with_alpha(side), resize_visible(picture, side, side)
        assert_alike(found[..., 3], expected[..., 3], Tolerance(mean=1.5, psnr=38))
        # Nearly invisible pixels have imprecise colours in 8 bits; all others must have the disc's colour.
        seen = found[found[..., 3] > 0.15][:, :3]
        edge = found[(found[..., 3] > 0.15) & (found[..., 3] < 0.45)][:, :3]
        assert len(edge) > side / 2
        # WebP stores colours at half the resolution; they must not mix with those of invisible pixels.
        assert np.abs(seen.mean(axis=0) - colour).max() * 255 < 3
        assert np.abs(edge.mean(axis=0) - colour).max() * 255 < 12
        assert np.abs(edge - colour).max() * 255 < 48


@pytest.mark.parametrize("background", [0, 1], ids=["on black", "on white"])
@pytest.mark.parametrize("ground", GROUNDS.values(), ids=GROUNDS)
@pytest.mark.parametrize("image_format", WITH_ALPHA)
def test_no_fringe_on_background(make: Make, image_format: str, ground: float, background: float) -> None:
    picture = disc(COLOURS["red"], ground)
    options = {"lossless": True} if image_format == "webp" else {}
    made = make(write(to_image(picture), image_format, **options), boxes(100))
    found, expected = made.pixels_with_alpha(100), resize_visible(picture, 100, 100)
    assert_alike(over(found, background), over(expected, background), Tolerance(mean=1.5, psnr=34, ssim=0.97))


def test_no_fringe_in_default_recipe(make: Make) -> None:
    picture = disc(COLOURS["green"], 0)
    made = make(png_of(picture), DEFAULT_RECIPE)
    for thumbnail, side in zip(made.rendering.thumbnails, (100, 300, 500), strict=True):
        assert thumbnail.content_type == "image/webp"
        found = made.pixels_with_alpha(thumbnail.output)
        assert found.shape == (side, side, 4)
        expected = resize_visible(picture, side, side)
        assert_alike(over(found, 1), over(expected, 1), Tolerance(mean=2.5, psnr=33, ssim=0.95))


@pytest.mark.parametrize("image_format", WITH_ALPHA)
def test_invisible_picture_stays_invisible(make: Make, image_format: str) -> None:
    picture = np.zeros((60, 90, 4))
    picture[..., :3] = 1
    found = make(write(to_image(picture), image_format), boxes(30)).pixels_with_alpha(30)
    assert found[..., 3].max() == 0


def test_opaque_alpha_gives_opaque_output(make: Make) -> None:
    picture = np.concatenate((disc(COLOURS["pale"], 0)[..., :3], np.ones((SIDE, SIDE, 1))), axis=2)
    assert make(png_of(picture), boxes(100)).image(100).mode == "RGB"
    smooth = np.concatenate((scene(300, 200), np.ones((200, 300, 1))), axis=2)
    assert make(png_of(smooth), boxes(100))[100].content_type == "image/jpeg"
