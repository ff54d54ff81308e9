"""Thumbnail sizes, for any image and any box."""

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from image_service.domain.geometry import fit_inside

SIDES = st.integers(min_value=1, max_value=100_000)


@pytest.mark.parametrize(
    ("image", "box", "expected"),
    [
        ((4000, 3000), (300, 300), (300, 225)),
        ((3000, 4000), (300, 300), (225, 300)),
        ((4000, 4000), (300, 300), (300, 300)),
        ((300, 300), (300, 300), (300, 300)),
        ((300, 200), (300, 300), (300, 200)),
        ((301, 300), (300, 300), (300, 299)),
        ((20, 10), (300, 300), (20, 10)),
        ((1, 1), (300, 300), (1, 1)),
        ((1, 20_000), (300, 300), (1, 300)),
        ((20_000, 1), (300, 300), (300, 1)),
        ((1, 20_000), (1, 1), (1, 1)),
        ((200, 3), (100, 100), (100, 2)),
        ((1920, 1080), (400, 100), (178, 100)),
        ((1920, 1080), (100, 400), (100, 56)),
    ],
)
def test_examples(image: tuple[int, int], box: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fit_inside(*image, *box) == expected


@given(width=SIDES, height=SIDES, box_width=SIDES, box_height=SIDES)
@example(width=1, height=20_000, box_width=100, box_height=100)
@example(width=20_000, height=1, box_width=100, box_height=100)
def test_a_thumbnail_is_at_least_one_pixel_fits_its_box_and_is_never_enlarged(
    width: int, height: int, box_width: int, box_height: int
) -> None:
    thumbnail = fit_inside(width, height, box_width, box_height)
    assert 1 <= thumbnail[0] <= min(width, box_width)
    assert 1 <= thumbnail[1] <= min(height, box_height)


@given(width=SIDES, height=SIDES, box_width=SIDES, box_height=SIDES)
@example(width=1, height=20_000, box_width=100, box_height=100)
def test_the_aspect_ratio_is_exact_to_half_a_pixel(width: int, height: int, box_width: int, box_height: int) -> None:
    scale = min(Fraction(box_width, width), Fraction(box_height, height), Fraction(1))
    thumbnail = fit_inside(width, height, box_width, box_height)
    for side, exact in zip(thumbnail, (width * scale, height * scale), strict=True):
        assert abs(side - exact) <= Fraction(1, 2) or (side == 1 and exact < 1)


@given(width=SIDES, height=SIDES, box_width=SIDES, box_height=SIDES)
def test_a_reduced_image_touches_its_box(width: int, height: int, box_width: int, box_height: int) -> None:
    thumbnail = fit_inside(width, height, box_width, box_height)
    assert thumbnail == (width, height) or thumbnail[0] == box_width or thumbnail[1] == box_height


@given(width=SIDES, height=SIDES, box_width=SIDES, box_height=SIDES)
def test_rotating_image_and_box_rotates_the_thumbnail(width: int, height: int, box_width: int, box_height: int) -> None:
    assert fit_inside(height, width, box_height, box_width) == fit_inside(width, height, box_width, box_height)[::-1]


@given(width=SIDES, height=SIDES, box_width=SIDES, box_height=SIDES)
def test_an_image_that_fits_keeps_its_size(width: int, height: int, box_width: int, box_height: int) -> None:
    thumbnail = fit_inside(width, height, box_width, box_height)
    assert fit_inside(*thumbnail, box_width, box_height) == thumbnail
