"""The choice of a lane."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_service.domain.image import ImageFormat, ImageHeader
from image_service.domain.lane import Lane, lane_after_decoder_failure, lane_of


@pytest.mark.parametrize(
    ("image_format", "width", "height", "lane"),
    [
        (ImageFormat.JPEG, 640, 480, Lane.EXPRESS),
        (ImageFormat.JPEG, 3000, 2000, Lane.EXPRESS),
        (ImageFormat.JPEG, 3001, 2000, Lane.NORMAL),
        (ImageFormat.PNG, 1500, 1000, Lane.EXPRESS),
        (ImageFormat.PNG, 1501, 1000, Lane.NORMAL),
        (ImageFormat.AVIF, 3000, 2000, Lane.NORMAL),
        (ImageFormat.WEBP, 1, 50_000_000, Lane.NORMAL),
    ],
)
def test_the_lane_depends_on_the_header(image_format: ImageFormat, width: int, height: int, lane: Lane) -> None:
    assert lane_of(ImageHeader(format=image_format, width=width, height=height), 100_000) is lane


@pytest.mark.parametrize(
    ("side", "size_bytes", "lane"),
    [
        (64, 20_000, Lane.EXPRESS),
        (64, 256 * 1024 + 4 * 64 * 64, Lane.EXPRESS),
        (64, 256 * 1024 + 4 * 64 * 64 + 1, Lane.NORMAL),
        (1000, 4_000_000, Lane.EXPRESS),
        (1000, 9_000_000, Lane.NORMAL),
    ],
)
def test_a_file_larger_than_its_pixels_is_not_express(side: int, size_bytes: int, lane: Lane) -> None:
    assert lane_of(ImageHeader(format=ImageFormat.PNG, width=side, height=side), size_bytes) is lane


@pytest.mark.parametrize(
    ("lane", "following"),
    [(Lane.EXPRESS, Lane.NORMAL), (Lane.NORMAL, Lane.NORMAL), (Lane.BACKFILL, Lane.BACKFILL)],
)
def test_no_second_attempt_after_a_decoder_failure_is_express(lane: Lane, following: Lane) -> None:
    assert lane_after_decoder_failure(lane) is following


@given(
    header=st.builds(
        ImageHeader, format=st.sampled_from(ImageFormat), width=st.integers(1, 10**9), height=st.integers(1, 10**9)
    ),
    size_bytes=st.integers(1, 10**9),
)
def test_no_header_selects_the_backfill_lane(header: ImageHeader, size_bytes: int) -> None:
    assert lane_of(header, size_bytes) is not Lane.BACKFILL
