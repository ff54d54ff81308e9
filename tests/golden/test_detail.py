"""Resampling keeps the detail that a thumbnail can show, and averages finer detail without aliasing."""

import numpy as np
import pytest

from tests.golden.files import write
from tests.golden.pictures import quantised, to_image
from tests.golden.reference import Pixels
from tests.golden.rendering import Make, boxes

SIDE = 1000
FORMATS = ("png", "jpeg", "webp", "avif")


def waves(period: float) -> Pixels:
    """Return grey waves of a period in pixels, from the upper left to the lower right."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return quantised(0.5 + 0.4 * np.sin(2 * np.pi * (x + 0.7 * y) / period))


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("box", [250, 100])
@pytest.mark.parametrize("share", [0.3, 0.55], ids=["fine", "less fine"])
def test_averages_detail_finer_than_a_pixel(make: Make, image_format: str, box: int, share: float) -> None:
    # Waves shorter than a thumbnail's pixel: picking pixels, or averaging too few, gives false waves (aliasing).
    content = write(to_image(waves(max(3.3, share * SIDE / box))), image_format)
    middle = make(content, boxes(box)).pixels(box)[5:-5, 5:-5]
    assert np.abs(middle.mean() - 0.5) * 255 < 3
    assert middle.std() * 255 < 4


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("boxes_made", [(100,), (500, 200, 100)], ids=["at once", "step by step"])
def test_keeps_visible_detail(make: Make, image_format: str, boxes_made: tuple[int, ...]) -> None:
    # Waves of six thumbnail pixels; their standard deviation measures the remaining contrast.
    content = write(to_image(waves(6 * SIDE / 100)), image_format)
    middle = make(content, boxes(*boxes_made)).pixels(100)[5:-5, 5:-5]
    left = middle.std() / (0.4 / np.sqrt(2))
    assert 0.85 < left < 1.1


@pytest.mark.parametrize("image_format", FORMATS)
def test_keeps_hard_edges(make: Make, image_format: str) -> None:
    # Dark to light within two pixels, with little ringing beside the edge.
    picture = np.full((SIDE, SIDE), 0.2)
    picture[:, SIDE // 2 :] = 0.8
    row = make(write(to_image(quantised(picture)), image_format), boxes(100)).pixels(100)[50, :, 0]
    assert np.abs(row[:47] - 0.2).max() < 0.06
    assert np.abs(row[53:] - 0.8).max() < 0.06
    assert row[48] < 0.3
    assert row[51] > 0.7
