"""The average colour in a ThumbHash."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from image_service.domain.average_colour import average_colour
from image_service.imaging.render.thumbhash import thumbhash


def colour_of(image: Image.Image) -> tuple[int, ...] | None:
    colour = average_colour(b64encode(thumbhash(image)).decode())
    return None if colour is None else tuple(bytes.fromhex(colour.removeprefix("#")))


@given(colour=st.tuples(*[st.integers(0, 255)] * 3))
def test_plain_colours_are_found_within_the_steps_of_the_hash(colour: tuple[int, int, int]) -> None:
    found = colour_of(Image.new("RGB", (12, 9), colour))
    assert found is not None
    assert max(abs(one - other) for one, other in zip(found, colour, strict=True)) <= 12


def test_the_average_of_two_halves_is_between_them() -> None:
    image = Image.new("RGB", (20, 10), (200, 40, 0))
    image.paste((0, 40, 200), (10, 0, 20, 10))
    assert colour_of(image) == pytest.approx((100, 40, 100), abs=12)


def test_transparent_images_have_none() -> None:
    assert colour_of(Image.new("RGBA", (10, 10), (200, 40, 0, 128))) is None


@pytest.mark.parametrize(
    ("placeholder", "colour"),
    # Computed with thumbHashToAverageRGBA of thumbhash 0.1.1, the reference.
    [
        ("k0oGLQaSVsN0BVhn2oq2Z5SQUQcZ", "#7b5714"),
        ("1QcSHQRnh493V4dIh4eXh1h4kJUI", "#565258"),
        ("WycKdJh0d3eAiIh3iHdwdQfniA==", "#715c7b"),
        ("KBoLZBhwB4d4h3d4eHiPhIf3iA==", "#ff7274"),
        ("AAAA", "#002baa"),
        ("moOBBQA6emuIiI/IV1x4D3i3kGp4iIiIdw==", None),  # with transparency
    ],
)
def test_known_hashes_have_known_colours(placeholder: str, colour: str | None) -> None:
    assert average_colour(placeholder) == colour


@given(st.from_regex(r"[A-Za-z0-9+/]{4,62}={0,2}", fullmatch=True))
def test_every_placeholder_that_a_row_may_have_is_read(placeholder: str) -> None:
    average_colour(placeholder)
