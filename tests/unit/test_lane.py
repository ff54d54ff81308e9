"""The choice of a lane."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_service.domain.image import ImageFormat, ImageHeader
from image_service.domain.lane import Lane, lane_of


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
    assert lane_of(ImageHeader(format=image_format, width=width, height=height)) is lane


@given(
    header=st.builds(
        ImageHeader, format=st.sampled_from(ImageFormat), width=st.integers(1, 10**9), height=st.integers(1, 10**9)
    )
)
def test_no_header_selects_the_backfill_lane(header: ImageHeader) -> None:
    assert lane_of(header) is not Lane.BACKFILL
