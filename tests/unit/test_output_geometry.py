"""Sizes and parts of outputs, for any image and any preset."""

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from image_service.domain.geometry import (
    MAX_OUTPUT_PIXELS,
    MAX_SIDE,
    crop_box,
    fit_inside,
    needed_size,
    output_size,
    pad_offset,
    scaled_size,
)
from image_service.domain.recipe import Fit, Gravity, Output, OutputFormat

SIDES = st.one_of(st.integers(1, 50), st.integers(1, 100_000))
BOXES = st.integers(1, 4000)
ANY_OUTPUT = st.builds(
    Output,
    preset=st.just("box"),
    format=st.just(OutputFormat.AUTO),
    width=BOXES,
    height=BOXES,
    fit=st.sampled_from(Fit),
    gravity=st.sampled_from(Gravity),
    enlarge=st.booleans(),
)
ONE_SIDED = st.one_of(
    st.builds(
        Output,
        preset=st.just("box"),
        format=st.just(OutputFormat.AUTO),
        width=st.one_of(st.none(), BOXES),
        height=st.one_of(st.none(), BOXES),
        fit=st.sampled_from(Fit),
        enlarge=st.booleans(),
    )
).filter(lambda output: (output.width is None) != (output.height is None))


def box(
    width: int | None, height: int | None, fit: Fit, gravity: Gravity = Gravity.CENTRE, *, big: bool = False
) -> Output:
    return Output(
        preset="box", format=OutputFormat.AUTO, width=width, height=height, fit=fit, gravity=gravity, enlarge=big
    )


def with_fit(output: Output, *fits: Fit) -> bool:
    return output.fit in fits and output.width is not None and output.height is not None


def sides(output: Output) -> tuple[int, int]:
    assert output.width
    assert output.height
    return output.width, output.height


@pytest.mark.parametrize(
    ("image", "output", "scaled", "size"),
    [
        ((4000, 3000), box(256, 256, Fit.INSIDE), (256, 192), (256, 192)),
        ((4000, 3000), box(256, 256, Fit.COVER), (341, 256), (256, 256)),
        ((3000, 4000), box(256, 256, Fit.COVER), (256, 341), (256, 256)),
        ((4000, 3000), box(256, 256, Fit.PAD), (256, 192), (256, 256)),
        ((4000, 3000), box(256, 256, Fit.OUTSIDE), (341, 256), (341, 256)),
        ((400, 1000), box(500, 500, Fit.COVER), (400, 1000), (400, 400)),
        ((400, 1000), box(500, 500, Fit.COVER, big=True), (500, 1250), (500, 500)),
        ((400, 1000), box(500, 250, Fit.COVER), (400, 1000), (400, 200)),
        ((200, 100), box(500, 500, Fit.PAD), (200, 100), (500, 500)),
        ((200, 100), box(500, 500, Fit.PAD, big=True), (500, 250), (500, 500)),
        ((200, 100), box(500, 500, Fit.INSIDE, big=True), (500, 250), (500, 250)),
        ((200, 100), box(500, 500, Fit.OUTSIDE), (200, 100), (200, 100)),
        ((1000, 100), box(500, 500, Fit.OUTSIDE), (1000, 100), (1000, 100)),
        ((200, 100), box(500, 500, Fit.OUTSIDE, big=True), (1000, 500), (1000, 500)),
        ((4000, 3000), box(400, None, Fit.INSIDE), (400, 300), (400, 300)),
        ((4000, 3000), box(None, 300, Fit.COVER), (400, 300), (400, 300)),
        ((4000, 3000), box(None, 300, Fit.PAD), (400, 300), (400, 300)),
        ((4000, 3000), box(8000, None, Fit.OUTSIDE), (4000, 3000), (4000, 3000)),
        ((20_000, 1), box(500, 500, Fit.COVER), (20_000, 1), (1, 1)),
        ((20_000, 1), box(500, 500, Fit.COVER, big=True), (10_000_000, 500), (500, 500)),
        ((20_000, 1), box(500, 500, Fit.PAD), (500, 1), (500, 500)),
        # Sizes that are bounded.
        ((20_000, 1), box(500, 500, Fit.OUTSIDE), (16_383, 1), (16_383, 1)),
        ((20_000, 1), box(500, 500, Fit.OUTSIDE, big=True), (16_383, 1), (16_383, 1)),
        ((1, 20_000), box(1000, None, Fit.INSIDE, big=True), (1, 16_383), (1, 16_383)),
        ((2, 20_000), box(None, 20_000, Fit.INSIDE), (2, 16_383), (2, 16_383)),
        ((1000, 2000), box(4000, None, Fit.INSIDE, big=True), (2828, 5656), (2828, 5656)),
        ((1000, 8000), box(4000, 4000, Fit.OUTSIDE, big=True), (1414, 11_311), (1414, 11_311)),
        ((1, 1), box(20_000, 20_000, Fit.PAD), (1, 1), (4000, 4000)),
        ((1, 1), box(40_000, 20_000, Fit.COVER, big=True), (5656, 5656), (5656, 2828)),
    ],
)
def test_examples(image: tuple[int, int], output: Output, scaled: tuple[int, int], size: tuple[int, int]) -> None:
    assert output_size(*image, output) == size
    assert scaled_size(*image, output) == scaled


@given(width=SIDES, height=SIDES, output=st.one_of(ANY_OUTPUT, ONE_SIDED))
def test_no_side_is_zero_and_no_output_exceeds_the_bounds(width: int, height: int, output: Output) -> None:
    size = output_size(width, height, output)
    assert min(size) >= 1
    assert max(size) <= MAX_SIDE
    assert size[0] * size[1] <= MAX_OUTPUT_PIXELS
    assert min(scaled_size(width, height, output)) >= 1
    needed = needed_size(width, height, output)
    assert 1 <= needed[0] <= width
    assert 1 <= needed[1] <= height


@given(width=SIDES, height=SIDES, output=st.one_of(ANY_OUTPUT, ONE_SIDED))
def test_the_aspect_ratio_of_the_image_is_kept_to_a_pixel(width: int, height: int, output: Output) -> None:
    across, down = scaled_size(width, height, output)
    scale = max(Fraction(across, width), Fraction(down, height))
    least = min(Fraction(across, width), Fraction(down, height))
    # Some scale gives both sides, where a side of less than half a pixel is one.
    assert abs(across - width * least) <= 1 or abs(across - width * scale) <= 1
    assert abs(down - height * least) <= 1 or abs(down - height * scale) <= 1
    assert output.enlarge or (across <= width and down <= height)


@given(width=SIDES, height=SIDES, output=ANY_OUTPUT.filter(lambda output: with_fit(output, Fit.INSIDE)))
def test_inside_is_never_outside_the_box(width: int, height: int, output: Output) -> None:
    size, limits = output_size(width, height, output), sides(output)
    assert size[0] <= limits[0]
    assert size[1] <= limits[1]
    fills = size[0] == limits[0] or size[1] == limits[1]
    assert fills or (size == (width, height) and not output.enlarge)


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), output=ANY_OUTPUT)
def test_outside_covers_the_box_and_no_more(width: int, height: int, output: Output) -> None:
    output = box(*sides(output), Fit.OUTSIDE, big=output.enlarge)
    size, limits = output_size(width, height, output), sides(output)
    if not output.enlarge and (width <= limits[0] or height <= limits[1]):
        assert size == fit_inside(width, height, MAX_SIDE, MAX_SIDE) or size[0] * size[1] <= MAX_OUTPUT_PIXELS
        return
    bounded = limits[0] * limits[1] <= MAX_OUTPUT_PIXELS / 4 and max(width, height) < 2 * min(width, height)
    if bounded and max(limits) < 2 * min(limits):
        assert size[0] >= limits[0]
        assert size[1] >= limits[1]
        assert size[0] == limits[0] or size[1] == limits[1]


@given(width=SIDES, height=SIDES, output=ANY_OUTPUT)
@example(width=500, height=500, output=box(500, 500, Fit.COVER))
def test_cover_and_pad_have_exactly_the_size_of_the_box(width: int, height: int, output: Output) -> None:
    limits = sides(output)
    if limits[0] * limits[1] > MAX_OUTPUT_PIXELS:
        return
    for fit in (Fit.COVER, Fit.PAD):
        each = box(*limits, fit, big=output.enlarge)
        size = output_size(width, height, each)
        if fit is Fit.PAD or output.enlarge or (width >= limits[0] and height >= limits[1]):
            assert size == limits
        else:
            assert size == fit_inside(*limits, width, height)


@given(width=SIDES, height=SIDES, output=ANY_OUTPUT)
def test_the_part_that_cover_shows_is_inside_the_image_and_touches_two_edges(
    width: int, height: int, output: Output
) -> None:
    output = box(*sides(output), Fit.COVER, output.gravity, big=output.enlarge)
    left, top, right, bottom = crop_box(width, height, output)
    assert 0 <= left < right <= width * (1 + 1e-12)
    assert 0 <= top < bottom <= height * (1 + 1e-12)
    scaled, size = scaled_size(width, height, output), output_size(width, height, output)
    assert size[0] <= scaled[0]
    assert size[1] <= scaled[1]
    assert size[0] == scaled[0] or size[1] == scaled[1]
    # In the scaled image it is cut between two pixels.
    cut = crop_box(width, height, output, scaled)
    assert all(edge == int(edge) for edge in cut)
    assert (cut[2] - cut[0], cut[3] - cut[1]) == size


@given(width=SIDES, height=SIDES, output=ANY_OUTPUT)
def test_gravity_keeps_its_side(width: int, height: int, output: Output) -> None:
    limits = sides(output)
    scaled = scaled_size(width, height, box(*limits, Fit.COVER, big=output.enlarge))
    for gravity in Gravity:
        left, top, right, bottom = crop_box(width, height, box(*limits, Fit.COVER, gravity, big=output.enlarge), scaled)
        assert left == 0 or "west" not in gravity
        assert top == 0 or "north" not in gravity
        assert right == scaled[0] or "east" not in gravity
        assert bottom == scaled[1] or "south" not in gravity
        # The middle, to a pixel, in the other directions.
        assert "west" in gravity or "east" in gravity or abs(left - (scaled[0] - right)) <= 1
        assert "north" in gravity or "south" in gravity or abs(top - (scaled[1] - bottom)) <= 1


@given(
    width=SIDES,
    height=SIDES,
    output=ANY_OUTPUT,
    corner=st.tuples(*[st.floats(-1e6, 1e6, allow_nan=False)] * 2),
)
def test_a_chosen_corner_is_kept_inside_the_image(
    width: int, height: int, output: Output, corner: tuple[float, float]
) -> None:
    output = box(*sides(output), Fit.COVER, Gravity.ATTENTION, big=output.enlarge)
    scaled, size = scaled_size(width, height, output), output_size(width, height, output)
    left, top, right, bottom = crop_box(width, height, output, scaled, corner)
    assert 0 <= left <= right <= scaled[0]
    assert 0 <= top <= bottom <= scaled[1]
    for edge, wanted, spare in zip((left, top), corner, (scaled[0] - size[0], scaled[1] - size[1]), strict=True):
        assert abs(edge - min(max(wanted, 0), spare)) <= 0.5


def test_only_cover_shows_a_part() -> None:
    for fit in (Fit.INSIDE, Fit.PAD, Fit.OUTSIDE):
        assert crop_box(400, 300, box(100, 100, fit, Gravity.NORTH)) == (0, 0, 400, 300)
    assert crop_box(400, 300, box(100, None, Fit.COVER, Gravity.NORTH), (40, 30)) == (0, 0, 40, 30)


@given(width=SIDES, height=SIDES, output=ANY_OUTPUT)
def test_pad_puts_the_whole_image_in_the_middle(width: int, height: int, output: Output) -> None:
    output = box(*sides(output), Fit.PAD, big=output.enlarge)
    offset = pad_offset(width, height, output)
    scaled, size = scaled_size(width, height, output), output_size(width, height, output)
    for before, shown, whole in zip(offset, scaled, size, strict=True):
        after = whole - shown - before
        assert 0 <= before <= after <= before + 1


@given(width=SIDES, height=SIDES, output=ANY_OUTPUT)
def test_rotating_image_and_box_rotates_the_output(width: int, height: int, output: Output) -> None:
    turned = box(output.height, output.width, output.fit, big=output.enlarge)
    assert output_size(height, width, turned) == output_size(width, height, output)[::-1]
    assert needed_size(height, width, turned) == needed_size(width, height, output)[::-1]


@given(width=SIDES, height=SIDES, output=ONE_SIDED)
def test_a_box_of_one_side_is_fitted_as_by_inside(width: int, height: int, output: Output) -> None:
    size = output_size(width, height, output)
    limit, found = (output.width, size[0]) if output.width else (output.height, size[1])
    assert limit
    assert found <= limit
    assert output.enlarge or size[0] <= width
    assert scaled_size(width, height, output) == size
