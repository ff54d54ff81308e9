"""Sharpening makes edges steeper, and nothing else."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from harness.images import noise
from image_service.imaging.render.sharpening import sharpen
from image_service.imaging.resizing import resize

MODES = ("L", "RGB", "RGBA")


def pixels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image).astype(np.int64)


def edge(low: int = 64, high: int = 192) -> Image.Image:
    """An edge as resizing makes it."""
    large = Image.new("L", (160, 160), low)
    large.paste(high, (80, 0, 160, 160))
    return resize(large, (40, 40))


def soft() -> Image.Image:
    return noise(60, 40).filter(ImageFilter.GaussianBlur(2))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 3), (61, 37)])
def test_keeps_mode_and_size(mode: str, size: tuple[int, int]) -> None:
    image = noise(*size).convert(mode)
    before = image.tobytes()
    made = sharpen(image)
    assert (made.mode, made.size) == (mode, size)
    assert image.tobytes() == before


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("level", [0, 1, 77, 128, 254, 255])
def test_plain_colours_stay(mode: str, level: int) -> None:
    image = Image.new("RGB", (20, 20), (level, 255 - level, 128)).convert(mode)
    assert ImageChops.difference(sharpen(image).convert("RGB"), image.convert("RGB")).getbbox() is None


def test_gradients_stay() -> None:
    image = Image.linear_gradient("L")
    assert abs(pixels(sharpen(image)) - pixels(image)).max() == 0


def test_edges_become_steeper() -> None:
    before, after = (np.abs(np.diff(pixels(each)[20])).max() for each in (edge(), sharpen(edge())))
    assert before * 1.1 <= after <= before * 1.5


def test_halos_are_weak_and_narrow() -> None:
    change = pixels(sharpen(edge()))[20] - pixels(edge())[20]
    # Of 128 levels; the resized edge itself is up to a twelfth beyond its sides.
    assert abs(change).max() <= 12
    assert np.count_nonzero(abs(change) > 2) <= 6


def test_fine_detail_is_as_strong_as_before_resizing() -> None:
    # A sine with two fifths of a period to a pixel of the result.
    wave = 127.5 + 60 * np.cos(2 * np.pi * 0.4 * (np.arange(960) + 0.5) / 4)
    image = Image.fromarray(np.tile(np.round(wave).astype(np.uint8), (64, 1)))
    small = resize(image, (240, 16))
    expected = 60 / np.sqrt(2)
    assert pixels(small)[8, 24:-26].std() / expected == pytest.approx(0.83, abs=0.03)
    assert pixels(sharpen(small))[8, 24:-26].std() / expected == pytest.approx(1.04, abs=0.03)


def test_noise_grows_by_a_quarter_at_most() -> None:
    generator = np.random.default_rng(1)
    grain = Image.fromarray(np.clip(128 + generator.normal(0, 4, (200, 200)), 0, 255).astype(np.uint8))
    assert 1.1 <= pixels(sharpen(grain)).std() / pixels(grain).std() <= 1.25


def test_channels_are_sharpened_alike() -> None:
    image = soft()
    bands = [sharpen(each).tobytes() for each in image.split()]
    assert [each.tobytes() for each in sharpen(image).split()] == bands


def test_an_opaque_picture_is_the_same_with_alpha() -> None:
    image = soft()
    with_alpha = sharpen(image.convert("RGBA")).convert("RGB")
    assert abs(pixels(with_alpha) - pixels(sharpen(image))).max() <= 1


def test_alpha_stays() -> None:
    image = soft().convert("RGBA")
    image.putalpha(noise(60, 40).getchannel(0))
    assert sharpen(image).getchannel("A").tobytes() == image.getchannel("A").tobytes()


@pytest.mark.parametrize("hidden", [(0, 0, 0), (255, 255, 255), (0, 255, 0)])
def test_colours_of_invisible_pixels_do_not_bleed(hidden: tuple[int, int, int]) -> None:
    image = Image.new("RGBA", (30, 30), (*hidden, 0))
    image.paste((200, 60, 120, 255), (10, 10, 20, 20))
    assert sharpen(image).crop((10, 10, 20, 20)).getcolors() == [(100, (200, 60, 120, 255))]


def test_no_halo_where_a_shape_fades_out() -> None:
    image = Image.new("RGBA", (64, 64), (200, 60, 120, 255))
    image.putalpha(Image.radial_gradient("L").resize((64, 64)))
    change = abs(pixels(sharpen(image)) - pixels(image))[..., :3] * pixels(image)[..., 3:] / 255
    # Premultiplied colours have so few levels.
    assert change.max() <= 1


def test_faint_pixels_stay() -> None:
    image = soft().convert("RGBA")
    image.putalpha(15)
    assert sharpen(image).tobytes() == image.tobytes()
