"""Crops keep the part with the most detail."""

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from harness.images import noise
from image_service.imaging.render.attention import focus

WIDTH, HEIGHT = 600, 400
GREY = (128, 128, 128)
SKINS = ((255, 219, 172), (224, 172, 140), (141, 85, 36), (90, 56, 37))
OBJECT = 100
"""Width and height of the objects."""
CROP = 300
PLACES = (0, 20, 130, 250, 370, 480, 500)


def plain(mode: str = "RGB", colour: tuple[int, int, int] = GREY) -> Image.Image:
    return Image.new("RGB", (WIDTH, HEIGHT), colour).convert(mode)


def checks(colour: tuple[int, int, int], other: tuple[int, int, int], side: int = 25) -> Image.Image:
    image = Image.new("RGB", (OBJECT, OBJECT), colour)
    for left in range(0, OBJECT, side):
        for top in range(left % (2 * side), OBJECT, 2 * side):
            image.paste(other, (left, top, left + side, top + side))
    return image


def disc(colour: tuple[int, int, int], ground: tuple[int, int, int] = GREY) -> Image.Image:
    image = Image.new("RGB", (OBJECT, OBJECT), ground)
    ImageDraw.Draw(image).ellipse((0, 0, OBJECT - 1, OBJECT - 1), fill=colour)
    return image


def texture(strength: float) -> Image.Image:
    """Irregular spots in grey."""
    spots = np.random.default_rng(5).integers(0, 256, (HEIGHT // 6, WIDTH // 6), np.uint8)
    soft = Image.fromarray(spots).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return Image.blend(plain("L"), soft, strength).convert("RGB")


def kept(image: Image.Image, left: int, crop: int = CROP) -> bool:
    """Whether an object with this left edge is whole in the crop as high as the image."""
    begin, top = focus(image, crop, image.height)
    assert top == 0
    return begin <= left and left + OBJECT <= begin + crop


@pytest.mark.parametrize("left", PLACES)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK"])
def test_keeps_a_detailed_object_whole(left: int, mode: str) -> None:
    image = plain()
    image.paste(checks((90, 90, 90), (170, 170, 170)), (left, 150))
    assert kept(image.convert(mode), left)


@pytest.mark.parametrize("top", [0, 20, 130, 250, 370, 480, 500])
def test_keeps_it_in_high_pictures(top: int) -> None:
    image = plain().transpose(Image.Transpose.ROTATE_90)
    image.paste(checks((90, 90, 90), (170, 170, 170)), (150, top))
    left, begin = focus(image, image.width, CROP)
    assert left == 0
    assert begin <= top <= begin + CROP - OBJECT


@pytest.mark.parametrize("left", [0, 60, 250, 500])
@pytest.mark.parametrize("top", [0, 40, 150, 300])
def test_keeps_it_where_both_sides_are_shorter(left: int, top: int) -> None:
    image = plain()
    image.paste(checks((90, 90, 90), (170, 170, 170)), (left, top))
    begin, upper = focus(image, 150.5, 133.3)
    assert begin <= left <= begin + 150.5 - OBJECT
    assert upper <= top <= upper + 133.3 - OBJECT


def test_leaves_a_margin_where_there_is_room() -> None:
    image = plain()
    image.paste(checks((90, 90, 90), (170, 170, 170)), (470, 150))
    begin, _ = focus(image, CROP, HEIGHT)
    assert begin + CROP - (470 + OBJECT) == pytest.approx(30)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(600, 400), (601, 401), (1300, 7), (5, 1300)])
def test_a_plain_picture_is_cropped_at_its_centre(mode: str, size: tuple[int, int]) -> None:
    image = Image.new(mode, size, 77 if mode == "L" else (200, 60, 50))
    width, height = size[0] / 3, size[1] / 2
    assert focus(image, width, height) == ((size[0] - width) / 2, (size[1] - height) / 2)


@pytest.mark.parametrize("image", [texture(0.4), texture(1), Image.linear_gradient("L").rotate(90)])
def test_the_same_everywhere_is_cropped_near_its_centre(image: Image.Image) -> None:
    left, _ = focus(image, image.width / 2, image.height)
    assert left == pytest.approx(image.width / 4, abs=image.width / 10)


def test_equal_objects_at_both_sides_give_the_left_one_every_time() -> None:
    image = plain()
    for left in (0, WIDTH - OBJECT):
        image.paste(disc((90, 90, 90)), (left, 150))
    assert {focus(image.copy(), CROP, HEIGHT) for _ in range(5)} == {focus(image, CROP, HEIGHT)}
    assert focus(image, CROP, HEIGHT)[0] < (WIDTH - CROP) / 2


def test_more_detail_wins() -> None:
    image = plain()
    image.paste(checks((110, 110, 110), (150, 150, 150), side=50), (0, 150))
    image.paste(checks((110, 110, 110), (150, 150, 150), side=20), (WIDTH - OBJECT, 150))
    assert kept(image, WIDTH - OBJECT)


def test_a_sharp_object_wins_before_a_blurred_ground() -> None:
    image = texture(0.5).filter(ImageFilter.GaussianBlur(12))
    image.paste(checks((60, 60, 60), (190, 190, 190)), (20, 150))
    assert kept(image, 20)


def test_grain_does_not_count() -> None:
    dice = random.Random(1)
    grain = Image.frombytes("L", (250, HEIGHT), bytes(128 + dice.randrange(-12, 13) for _ in range(250 * HEIGHT)))
    image = plain()
    image.paste(grain, (350, 0))
    image.paste(disc((100, 100, 100)), (10, 150))
    assert kept(image, 10)


@pytest.mark.parametrize("left", PLACES)
def test_keeps_what_differs_only_in_hue(left: int) -> None:
    image = plain()
    image.paste(disc((176, 108, 110)), (left, 150))
    assert kept(image, left)


def test_vivid_colours_win_over_pale_ones() -> None:
    image = plain()
    image.paste(disc((150, 128, 128)).resize((OBJECT, OBJECT)), (0, 150))
    image.paste(disc((20, 60, 255)), (WIDTH - OBJECT, 150))
    assert kept(image, WIDTH - OBJECT)


def test_a_vivid_sky_does_not_count() -> None:
    image = plain(colour=(60, 120, 230))
    image.paste(GREY, (380, 0, WIDTH, HEIGHT))
    image.paste(checks((90, 90, 90), (170, 170, 170)), (480, 150))
    assert kept(image, 480)


@pytest.mark.parametrize("skin", SKINS)
def test_skin_wins_over_things_of_the_same_shape(skin: tuple[int, int, int]) -> None:
    # As vivid and as bright, but green.
    red, green, blue = skin
    for face, thing in ((0, WIDTH - OBJECT), (WIDTH - OBJECT, 0)):
        image = plain()
        image.paste(disc(skin), (face, 150))
        image.paste(disc((green, red, blue)), (thing, 150))
        assert kept(image, face)


def test_skin_does_not_win_over_much_more_detail() -> None:
    image = plain()
    image.paste(disc(SKINS[1]).resize((40, 40)), (0, 150))
    for top in (0, 100, 200, 300):
        image.paste(checks((40, 40, 40), (210, 210, 210)), (WIDTH - OBJECT, top))
    assert kept(image, WIDTH - OBJECT)


def test_transparent_parts_do_not_count() -> None:
    image = plain("RGBA")
    image.paste(checks((0, 0, 0), (255, 0, 0)), (0, 150))
    image.paste((0, 0, 0, 0), (0, 0, 300, HEIGHT), Image.new("L", (300, HEIGHT), 255))
    hidden = image.copy()
    hidden.paste(checks((0, 0, 0), (255, 0, 0)), (0, 150))
    alpha = Image.new("L", hidden.size, 255)
    alpha.paste(0, (0, 0, 300, HEIGHT))
    hidden.putalpha(alpha)
    assert focus(hidden, 200, HEIGHT) == focus(image, 200, HEIGHT)
    assert focus(hidden, 200, HEIGHT)[0] >= 250


@pytest.mark.parametrize("left", PLACES)
def test_a_plain_shape_on_transparent_ground_is_kept(left: int) -> None:
    image = Image.new("RGBA", (WIDTH, HEIGHT))
    image.paste((0, 0, 0, 255), (left, 150, left + OBJECT, 150 + OBJECT))
    assert kept(image, left)


def test_an_invisible_picture_is_cropped_at_its_centre() -> None:
    assert focus(Image.new("RGBA", (WIDTH, HEIGHT)), 200, HEIGHT) == (200, 0)


@pytest.mark.parametrize("turn", [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180])
def test_a_mirrored_picture_gives_the_mirrored_part(turn: Image.Transpose) -> None:
    image = texture(0.1)
    image.paste(disc(SKINS[1]), (430, 90))
    left, _ = focus(image, CROP, HEIGHT)
    mirrored, _ = focus(image.transpose(turn), CROP, HEIGHT)
    assert mirrored == pytest.approx(WIDTH - CROP - left, abs=10)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_the_scale_makes_little_difference(factor: int) -> None:
    image = texture(0.1)
    image.paste(disc(SKINS[1]), (430, 90))
    left, _ = focus(image, CROP, HEIGHT)
    larger = image.resize((WIDTH * factor, HEIGHT * factor), Image.Resampling.BICUBIC)
    assert focus(larger, CROP * factor, HEIGHT * factor)[0] / factor == pytest.approx(left, abs=25)


def test_what_is_as_large_as_the_picture_is_all_of_it() -> None:
    assert focus(noise(33, 21), 33, 21) == (0, 0)
    assert focus(noise(33, 21), 33.0, 21.4) == (0, 0)


MAKERS: dict[str, Callable[[int, int], Image.Image]] = {
    "noise": noise,
    "grey": lambda width, height: noise(width, height).convert("L"),
    "translucent": lambda width, height: Image.merge(
        "RGBA", (*noise(width, height).split(), noise(width, height).getchannel(1))
    ),
}
sides = st.integers(1, 200)
shares = st.floats(0.001, 1)


@given(sides, sides, shares, shares, st.sampled_from(sorted(MAKERS)))
def test_the_crop_is_always_inside(width: int, height: int, across: float, down: float, maker: str) -> None:
    image = MAKERS[maker](width, height)
    before = image.tobytes()
    left, top = focus(image, width * across, height * down)
    assert 0 <= left <= width - width * across
    assert 0 <= top <= height - height * down
    assert focus(image, width * across, height * down) == (left, top)
    assert image.tobytes() == before


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 100_000), (100_000, 1), (129, 128), (255, 257)])
@pytest.mark.parametrize("maker", sorted(MAKERS))
def test_odd_sizes(size: tuple[int, int], maker: str) -> None:
    width, height = max(1, size[0] // 2), max(1, size[1] // 2)
    left, top = focus(MAKERS[maker](*size), width, height)
    assert 0 <= left <= size[0] - width
    assert 0 <= top <= size[1] - height
