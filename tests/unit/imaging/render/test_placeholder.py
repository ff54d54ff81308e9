"""ThumbHash and dominant colour.

The ThumbHash vectors are the results of the reference implementations in JavaScript and in Rust for the same pixels.
"""

from base64 import b64decode, b64encode
from hashlib import shake_256
from typing import Literal, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from image_service.imaging.render.placeholder import describe
from image_service.imaging.render.thumbhash import thumbhash

Size: TypeAlias = tuple[int, int]
Mode: TypeAlias = Literal["L", "RGB", "RGBA"]

VECTORS: list[tuple[Size, Size, Mode, str]] = [
    ((100, 100), (100, 100), "RGB", "HwgCBwBtWcTGmFzkyHZ6mk3yFi+mV68E"),
    ((100, 100), (9, 8), "RGB", "YegFHwqzQ0ZaajsBpMfHqTVFBdzrA3cI"),
    ((100, 75), (11, 9), "RGB", "IAgGHYSVf+JDaYlyM0dTg6Z/BkgR"),
    ((75, 100), (8, 9), "RGBA", "oBeCFAQH/HpTZGKI/7my4DynPHFkMxp1AA=="),
    ((32, 32), (32, 32), "RGBA", "IPiBBQIHX52WRnXHugpLAylFj+yMooa9mQ=="),
    ((32, 24), (7, 5), "RGB", "HvgJNYRne7pvmIiMhleHmT+1dfmc"),
    ((7, 90), (2, 6), "RGB", "n+gFSQhuo7eHP1OFb0oESWE="),
    ((90, 7), (6, 2), "RGBA", "HveFCYYXH7liyYnQipcGlQybWXOHeIg="),
    ((100, 60), (9, 8), "L", "HggGBIB+vF2knzwdBtgAAAAAAA=="),
]
"""Sides, sides in cells of one colour, mode and hash."""


def cells(size: Size, count: Size, mode: Mode) -> Image.Image:
    """Return cells of pseudorandom colours that are the same on every machine."""
    colours = shake_256(f"{size[0]}x{size[1]}".encode()).digest(count[0] * count[1] * len(mode))
    return Image.frombytes(mode, count, colours).resize(size, Image.Resampling.NEAREST)


@pytest.mark.parametrize(("size", "count", "mode", "expected"), VECTORS)
def test_hash_equals_reference_implementations(size: Size, count: Size, mode: Mode, expected: str) -> None:
    assert b64encode(thumbhash(cells(size, count, mode))).decode() == expected


@given(width=st.integers(1, 100), height=st.integers(1, 100), mode=st.sampled_from(["L", "RGB", "RGBA"]))
def test_hash_length_of_any_size(width: int, height: int, mode: Mode) -> None:
    assert 5 <= len(thumbhash(cells((width, height), (1, 1), mode))) <= 25


@pytest.mark.parametrize("size", [(101, 1), (1, 101)])
def test_hash_refuses_sides_over_100_pixels(size: Size) -> None:
    with pytest.raises(ValueError, match="too many"):
        thumbhash(Image.new("RGB", size))


def test_hash_of_flat_picture_encodes_its_colour() -> None:
    for colour in ("black", "white", "red", "#123456"):
        light, yellow, reddish = split(thumbhash(Image.new("RGB", (10, 10), colour)))
        r, g, b = (value / 255 for value in Image.new("RGB", (1, 1), colour).tobytes())
        assert light == pytest.approx((r + g + b) / 3, abs=0.01)
        assert yellow == pytest.approx((r + g) / 2 - b, abs=0.02)
        assert reddish == pytest.approx(r - g, abs=0.02)


def split(code: bytes) -> tuple[float, float, float]:
    """Return the mean of each channel in a hash."""
    first = int.from_bytes(code[:3], "little")
    return (first & 63) / 63, (first >> 6 & 63) / 31.5 - 1, (first >> 12 & 63) / 31.5 - 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("size", [(100, 75), (75, 100), (100, 100)])
def test_hash_of_reduced_thumbnail_is_close_to_hash_of_whole(size: Size, mode: Mode) -> None:
    picture = cells(size, size, mode).resize((9, 8)).resize(size, Image.Resampling.BICUBIC)
    whole, part = thumbhash(picture), b64decode(describe(picture)[0])
    assert part[:3] == whole[:3]
    digits = [(byte & 15, byte >> 4) for code in (whole, part) for byte in code[6:]]
    pairs = zip(digits[: len(digits) // 2], digits[len(digits) // 2 :], strict=True)
    assert all(abs(one - other) <= 1 for pair in pairs for one, other in zip(*pair, strict=True))


@pytest.mark.parametrize("colour", ["#000000", "#ffffff", "#c81e07"])
@pytest.mark.parametrize("size", [(1, 1), (1, 100), (100, 75)])
def test_dominant_colour_of_flat_picture(size: Size, colour: str) -> None:
    assert describe(Image.new("RGB", size, colour))[1] == colour


def test_dominant_colour_is_most_common_not_mean() -> None:
    picture = Image.new("RGB", (100, 100), "#0000ff")
    picture.paste("#ff0000", (0, 0, 100, 60))
    assert describe(picture)[1] == "#ff0000"


def test_dominant_colour_of_grey_picture() -> None:
    assert describe(Image.new("L", (30, 30), 128))[1] == "#808080"


def test_dominant_colour_ignores_invisible_pixels() -> None:
    picture = Image.new("RGBA", (100, 100), (0, 255, 0, 0))
    picture.paste((255, 0, 0, 255), (10, 10, 30, 30))
    assert describe(picture)[1] == "#ff0000"


def test_dominant_colour_of_translucent_picture() -> None:
    assert describe(Image.new("RGBA", (100, 100), (255, 0, 0, 100)))[1] == "#ff0000"


def test_invisible_picture_has_no_dominant_colour() -> None:
    placeholder, colour = describe(Image.new("RGBA", (100, 100), (0, 255, 0, 0)))
    assert colour is None
    assert b64decode(placeholder)
