"""The reference itself, checked against published values and mathematical properties."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.golden.comparison import USUAL, assert_alike, measure
from tests.golden.pictures import scene
from tests.golden.reference import (
    D50,
    SRGB,
    delta_e,
    linear_to_srgb,
    resize,
    resize_visible,
    srgb_to_lab,
    srgb_to_linear,
)

# From the supplement to Sharma, Wu and Dalal: "The CIEDE2000 color-difference formula", 2005.
PUBLISHED = (
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, 3.1571, -77.2803), (50, 0, -82.7485), 2.8615),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
    ((50, 2.4900, -0.0010), (50, -2.4900, 0.0009), 7.1792),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (61, -5, 29), 22.8977),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((63.0109, -31.0961, -5.8663), (62.8187, -29.7946, -4.0864), 1.2630),
    ((35.0831, -44.1164, 3.7933), (35.0232, -40.0716, 1.5901), 1.8645),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
)


def test_colour_differences_are_as_published() -> None:
    one, other, expected = (np.array(column) for column in zip(*PUBLISHED, strict=True))
    assert np.abs(delta_e(one, other) - expected).max() < 1e-4
    assert np.abs(delta_e(other, one) - expected).max() < 1e-4


def test_white_is_white() -> None:
    assert np.abs(SRGB @ np.ones(3) - D50).max() < 1e-3
    assert np.abs(srgb_to_lab(np.ones(3)) - (100, 0, 0)).max() < 0.05


def test_curves_are_inverse() -> None:
    values = np.linspace(0, 1, 256)
    assert np.abs(linear_to_srgb(srgb_to_linear(values)) - values).max() < 1e-7


def test_resizing_preserves_constants_and_means() -> None:
    assert np.abs(resize(np.full((70, 50, 3), 0.3), 9, 11) - 0.3).max() < 1e-12
    slope = np.tile(np.linspace(0.2, 0.8, 100)[:, None], (1, 10))
    assert np.abs(resize(slope, 10, 20)[4:-4].mean() - 0.5) < 1e-3
    visible = np.zeros((40, 40, 4))
    visible[10:30, 10:30] = (0.7, 0.1, 0.2, 1)
    edge = resize_visible(visible, 9, 11)
    assert np.abs(edge[edge[..., 3] > 0.05][:, :3] - (0.7, 0.1, 0.2)).max() < 1e-6


@pytest.mark.parametrize("shift", [(0, 1), (1, 0)])
def test_comparison_detects_half_a_pixel(shift: tuple[int, int]) -> None:
    picture = scene(360, 240)
    moved = resize(np.roll(picture, shift, (0, 1)), 180, 120)
    assert measure(moved, resize(picture, 180, 120)).exceeds(USUAL)


def test_saves_pictures_that_differ(tmp_path: Path) -> None:
    found, expected = np.zeros((8, 10, 4)), np.ones((8, 10, 4))
    with pytest.raises(AssertionError, match="mean=255") as caught:
        assert_alike(found, expected, folder=tmp_path)
    (saved,) = tmp_path.iterdir()
    assert str(saved) in str(caught.value)
    assert "test_saves_pictures_that_differ" in saved.name
    with Image.open(saved) as image:
        assert image.size == (30, 16)
