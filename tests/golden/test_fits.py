"""Every fit and gravity, at odd sizes and orientations: as if the upright picture were scaled, then cut or padded.

The expected picture is made of the whole upright one in float64; its size comes from fractions.
"""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest

from image_service.domain.recipe import Fit, Gravity, OutputFormat, Preset, Recipe
from tests.golden.comparison import Tolerance, assert_alike
from tests.golden.files import exif, png_of, write
from tests.golden.pictures import quantised, scene, to_image
from tests.golden.reference import Pixels, linear_to_srgb, over, resize, resize_visible, srgb_to_linear
from tests.golden.rendering import Make, Rendered
from tests.golden.test_orientation import STORED

SIDES = {
    Gravity.CENTRE: (1, 1),
    Gravity.NORTH: (1, 0),
    Gravity.NORTH_EAST: (2, 0),
    Gravity.EAST: (2, 1),
    Gravity.SOUTH_EAST: (2, 2),
    Gravity.SOUTH: (1, 2),
    Gravity.SOUTH_WEST: (0, 2),
    Gravity.WEST: (0, 1),
    Gravity.NORTH_WEST: (0, 0),
}
"""Where the part is that is kept: 0 at the left or top, 2 at the right or bottom."""
BACKGROUND = "#336699"
BOXES = ((160, 120), (101, 67), (67, 101), (90, 89), (150, 31))
PICTURES = ((641, 479), (479, 641), (333, 501), (1021, 307), (703, 705))
CLOSE = Tolerance(mean=0.8, psnr=44, ssim=0.99)
"""For PNG, which loses nothing."""
OF_JPEG = Tolerance(mean=2.5, psnr=36, ssim=0.97)


def every_fit(width: int, height: int, *, enlarge: bool = False) -> Recipe:
    shapes = [(fit, gravity) for fit in Fit for gravity in (SIDES if fit is Fit.COVER else (Gravity.CENTRE,))]
    return Recipe(
        presets=tuple(
            Preset(
                name=f"{fit}-{gravity}",
                width=width,
                height=height,
                fit=fit,
                gravity=gravity,
                background=BACKGROUND,
                enlarge=enlarge,
                formats=(OutputFormat.PNG,),
            )
            for fit, gravity in shapes
        )
    )


def nearest(length: Fraction) -> int:
    return max(1, floor(length + Fraction(1, 2)))


class Reference:
    """What presets show of an upright picture."""

    def __init__(self, upright: Pixels) -> None:
        self.upright = upright
        self._scaled: dict[Fraction, Pixels] = {}

    def scaled(self, scale: Fraction) -> Pixels:
        if scale not in self._scaled:
            height, width, channels = self.upright.shape
            size = nearest(width * scale), nearest(height * scale)
            self._scaled[scale] = (resize_visible if channels == 4 else resize)(self.upright, *size)
        return self._scaled[scale]

    def shown(self, preset: Preset) -> Pixels:
        """Return what a preset with a box of two sides shows, if the picture is larger or may be enlarged."""
        assert preset.width
        assert preset.height
        height, width = self.upright.shape[:2]
        scales = Fraction(preset.width, width), Fraction(preset.height, height)
        if preset.fit in {Fit.INSIDE, Fit.OUTSIDE}:
            return self.scaled((min if preset.fit is Fit.INSIDE else max)(scales))
        if preset.fit is Fit.PAD:
            return padded(self.scaled(min(scales)), preset.width, preset.height)
        whole = self.scaled(max(scales))
        across, down = SIDES[preset.gravity]
        left, top = (whole.shape[1] - preset.width) * across // 2, (whole.shape[0] - preset.height) * down // 2
        return whole[top : top + preset.height, left : left + preset.width]


def padded(picture: Pixels, width: int, height: int) -> Pixels:
    colour = np.array([int(BACKGROUND[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    canvas = np.ones((height, width, 3)) * colour
    top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


def assert_all_fit(made: Rendered, upright: Pixels, recipe: Recipe, tolerance: Tolerance = CLOSE) -> None:
    reference = Reference(upright)
    for preset in recipe.presets:
        assert_alike(made.pixels(preset.name), reference.shown(preset), tolerance)


def cases() -> Iterator[tuple[tuple[int, int], tuple[int, int], int]]:
    """Every orientation of a picture and a box, and every picture with every box."""
    for orientation in STORED:
        yield PICTURES[0], BOXES[1], orientation
    for index, picture in enumerate(PICTURES):
        for at, box in enumerate(BOXES):
            yield picture, box, 1 + (3 * index + at) % 8


@pytest.mark.parametrize(("size", "box", "orientation"), list(cases()))
def test_every_fit_and_gravity(make: Make, size: tuple[int, int], box: tuple[int, int], orientation: int) -> None:
    upright, recipe = scene(*size), every_fit(*box)
    stored = to_image(STORED[orientation](upright))
    assert_all_fit(make(write(stored, "png", exif=exif(orientation)), recipe), upright, recipe)


@pytest.mark.parametrize("orientation", STORED)
def test_every_fit_and_gravity_of_a_scaled_decode(make: Make, orientation: int) -> None:
    upright, recipe = scene(1999, 1333), every_fit(151, 149)
    stored = to_image(STORED[orientation](upright))
    assert_all_fit(make(write(stored, "jpeg", exif=exif(orientation)), recipe), upright, recipe, OF_JPEG)


@pytest.mark.parametrize("orientation", [1, 6, 7])
@pytest.mark.parametrize("image_format", ["avif", "tiff", "jxl"])
def test_every_fit_and_gravity_where_only_the_decoder_knows_the_orientation(
    make: Make, image_format: str, orientation: int
) -> None:
    upright, recipe = scene(901, 401), every_fit(97, 131)
    stored = to_image(STORED[orientation](upright))
    assert_all_fit(make(write(stored, image_format, exif=exif(orientation)), recipe), upright, recipe, OF_JPEG)


@pytest.mark.parametrize("orientation", [1, 8])
@pytest.mark.parametrize("size", [(41, 23), (23, 41), (40, 40)])
def test_every_fit_and_gravity_enlarged(make: Make, size: tuple[int, int], orientation: int) -> None:
    upright, recipe = scene(*size), every_fit(121, 95, enlarge=True)
    stored = to_image(STORED[orientation](upright))
    assert_all_fit(make(write(stored, "png", exif=exif(orientation)), recipe), upright, recipe)


def test_parts_do_not_depend_on_larger_outputs(make: Make) -> None:
    """A picture that is larger than the output needs is cut at the same place."""
    upright, small = scene(901, 601), every_fit(101, 90)
    larger = Recipe(presets=(Preset(name="large", width=800, height=800), *small.presets))
    assert_all_fit(make(png_of(upright), larger), upright, small)


def test_transparent_pixels_show_the_background_of_a_padded_picture(make: Make) -> None:
    width, height = 320, 200
    alpha = np.linspace(0, 1, width)[None, :, None].repeat(height, axis=0)
    upright = quantised(np.concatenate((scene(width, height), alpha), axis=2))
    preset = Preset(name="pad", width=160, height=160, fit=Fit.PAD, background="#808080", formats=(OutputFormat.PNG,))
    canvas = np.full((160, 160, 3), 128 / 255)
    canvas[30:130] = over(resize_visible(upright, 160, 100), 128 / 255)
    assert_alike(make(png_of(upright), Recipe(presets=(preset,))).pixels("pad"), canvas, CLOSE)


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_linear_light_is_averaged(make: Make, image_format: str) -> None:
    """Black and white lines become the grey of half the light, whatever the decoder could scale."""
    lines = np.zeros((800, 800, 3))
    lines[::2] = 1
    preset = Preset(name="light", width=100, height=100, linear=True, formats=(OutputFormat.PNG,))
    usual = Preset(name="usual", width=100, height=100, formats=(OutputFormat.PNG,))
    made = make(write(to_image(lines), image_format), Recipe(presets=(usual, preset)))
    middle = made.pixels("light")[10:-10, 10:-10]
    assert abs(middle.mean() - linear_to_srgb(np.array(0.5))) < 2 / 255
    assert abs(made.pixels("usual")[10:-10, 10:-10].mean() - 0.5) < 2 / 255


def test_every_fit_and_gravity_in_linear_light(make: Make) -> None:
    upright = scene(641, 479)
    presets = [replace(each, linear=True) for each in every_fit(101, 103).presets if each.fit is not Fit.PAD]
    made = make(write(to_image(STORED[5](upright)), "png", exif=exif(5)), Recipe(presets=tuple(presets)))
    reference = Reference(srgb_to_linear(upright))
    for preset in presets:
        light = linear_to_srgb(reference.shown(preset))
        assert_alike(made.pixels(preset.name), light, Tolerance(mean=1, psnr=42, ssim=0.99))
