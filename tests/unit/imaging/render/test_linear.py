"""Resizing in linear light keeps the light of the picture."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageChops

from harness.images import gradient, noise
from image_service.imaging import resizing
from image_service.imaging.render import linear
from image_service.imaging.render.linear import resize

MODES = ("L", "RGB", "RGBA")
HALF = 188
"""Half of the light of white."""
EVERY_FEW = range(0, 256, 15)
"""Levels of a channel, the first and the last among them."""


def checkerboard(side: int, mode: str = "L") -> Image.Image:
    rows, columns = np.indices((side, side))
    return Image.fromarray(((rows + columns) % 2 * 255).astype(np.uint8)).convert(mode)


def light(image: Image.Image) -> NDArray[np.float64]:
    value = np.asarray(image).astype(np.float64) / 255
    return np.asarray(np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4))


def lanczos(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.LANCZOS))


def largest_difference(one: Image.Image, other: Image.Image) -> int:
    assert (one.mode, one.size) == (other.mode, other.size)
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("part", [2, 4, 8, 16, 64])
def test_a_checkerboard_becomes_the_grey_of_half_its_light(mode: str, part: int) -> None:
    side = 256
    made = resize(checkerboard(side, mode), (side // part, side // part))
    # Lanczos reaches beyond the picture at its edges, where black or white weighs more.
    inner = np.asarray(made)[2:-2, 2:-2] if part <= 16 else np.asarray(made)
    assert abs(inner.astype(int) - HALF).max() <= 1
    assert resizing.resize(checkerboard(side), (side // 2, side // 2)).getpixel((20, 20)) == pytest.approx(128, abs=1)


@pytest.mark.parametrize(("size", "levels"), [((7, 9), range(256)), ((1, 1), EVERY_FEW), ((40, 50), EVERY_FEW)])
def test_plain_colours_stay_exactly(size: tuple[int, int], levels: range) -> None:
    for level in levels:
        colour = (level, 255 - level, level ^ 85)
        assert resize(Image.new("RGB", (31, 23), colour), size).getcolors() == [(size[0] * size[1], colour)]


@pytest.mark.parametrize("level", [0, 1, 5, 77, 128, 254, 255])
@pytest.mark.parametrize("alpha", [255, 254, 128, 3, 1])
def test_plain_translucent_colours_stay_exactly(level: int, alpha: int) -> None:
    colour = (level, 255 - level, 99, alpha)
    assert resize(Image.new("RGBA", (31, 23), colour), (7, 9)).getcolors() == [(63, colour)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(300, 201), (299, 26), (38, 200), (150, 33), (400, 500)])
def test_agrees_with_floating_point(mode: str, size: tuple[int, int]) -> None:
    image = noise(300, 200).convert(mode)
    if mode == "RGBA":
        image.putalpha(noise(300, 200).getchannel(1).point(lambda value: max(value, 64)))
    alpha = np.asarray(image.convert("RGBA").getchannel("A")).astype(np.float32)
    made = resize(image, size)
    scaled = lanczos(alpha, size)
    visible = scaled > 32
    for band in mode.strip("A"):
        expected = lanczos(light(image.getchannel(band)).astype(np.float32) * alpha, size) / scaled
        difference = (np.clip(expected, 0, 1) - light(made.getchannel(band)))[visible]
        # Half a level, where levels are furthest apart.
        assert abs(difference).max() <= 0.005
    if mode == "RGBA":
        assert abs(np.clip(scaled, 0, 255) - np.asarray(made.getchannel("A"))).max() <= 0.51


def test_thin_light_lines_keep_their_light() -> None:
    image = Image.new("L", (400, 400), 10)
    for left in range(0, 400, 8):
        image.paste(255, (left, 0, left + 1, 400))
    made = resize(image, (50, 50))
    assert light(made)[5:-5, 5:-5].mean() == pytest.approx(light(image).mean(), rel=0.02)
    assert light(resizing.resize(image, (50, 50))).mean() < light(image).mean() / 3


def test_colours_of_invisible_pixels_do_not_bleed() -> None:
    image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 32, 64))
    for size in ((9, 9), (3, 3), (2, 64)):
        made = resize(image, size)
        assert made.convert("RGBa").getchannel(1).getextrema() == (0, 0)
        visible = made.getchannel("A").point(lambda alpha: 255 * (alpha > 8))
        assert ImageChops.darker(made.getchannel("R"), visible).tobytes() == visible.tobytes()


def test_alpha_is_no_light() -> None:
    image = Image.new("RGBA", (64, 64), (90, 90, 90, 255))
    image.putalpha(checkerboard(64))
    made = resize(image, (16, 16)).crop((2, 2, 14, 14))
    assert made.convert("RGB").getcolors() == [(144, (90, 90, 90))]
    assert made.getchannel("A").getextrema() in {(127, 127), (127, 128), (128, 128)}


def test_invisible_pictures_stay_invisible() -> None:
    made = resize(Image.new("RGBA", (30, 20), (9, 200, 31, 0)), (7, 5))
    assert made.getchannel("A").getextrema() == (0, 0)


@pytest.mark.parametrize("mode", MODES)
def test_returns_image_of_wanted_size_unchanged(mode: str) -> None:
    image = gradient(30, 20).convert(mode)
    assert resize(image, (30, 20)) is image
    assert resize(image, (30, 20), (0, 0, 30, 20)) is image
    assert resize(image, (30, 20), (0, 0, 29, 20)) is not image


@pytest.mark.parametrize("mode", MODES)
def test_a_box_of_whole_pixels_is_as_the_part_alone(mode: str) -> None:
    image = noise(120, 90).convert(mode)
    box = (13, 7, 101, 80)
    assert resize(image, (40, 31), box).tobytes() == resize(image.crop(box), (40, 31)).tobytes()


def test_a_box_may_begin_and_end_between_pixels() -> None:
    ramp = Image.linear_gradient("L")
    for top, bottom in ((10.5, 200.25), (0, 255.5), (0.75, 256)):
        made = np.asarray(resize(ramp, (3, 10), (20.3, top, 99.9, bottom)))[1:-1, 1].astype(float)
        expected = top + (np.arange(1, 9) + 0.5) * (bottom - top) / 10 - 0.5
        assert abs(made - expected).max() <= 4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("strip", "size"), [(1, (40, 31)), (1000, (40, 31)), (1000, (9, 5)), (5000, (200, 4))])
def test_strips_do_not_show(mode: str, strip: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(233, 171).convert(mode)
    box = (3.25, 1.5, 230.0, 170.75)
    whole = resize(image, size, box)
    monkeypatch.setattr(linear, "_STRIP", strip)
    assert largest_difference(resize(image, size, box), whole) == 0


def test_very_large_reductions_agree_with_gradual_ones() -> None:
    image = gradient(1201, 803)
    assert largest_difference(resize(image, (11, 7)), resize(resize(image, (300, 200)), (11, 7))) <= 2


@pytest.mark.parametrize("mode", MODES)
def test_resizes_very_long_pictures(mode: str) -> None:
    # A filter over all of it would take half a gigabyte of weights.
    long = Image.linear_gradient("L").resize((1, 1_000_000), Image.Resampling.NEAREST).convert(mode)
    expected = np.linspace(0, 255, 1200)
    for image in (long, long.transpose(Image.Transpose.ROTATE_90)):
        made = resize(image, (min(image.width, 1200), min(image.height, 1200)))
        assert abs(np.asarray(made.convert("L")).ravel() - expected).max() <= 3
