"""Compares a picture with the expected one, and saves both where they differ too much."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from tests.golden.reference import Pixels

FAILURES: Final = Path(__file__).parents[2] / "build" / "golden"
_AMPLIFIED: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How much two pictures may differ: good filters and encoders stay within these limits, errors exceed them."""

    mean: float = 2.0
    """Mean absolute difference in levels of 255, at most."""
    psnr: float = 39.0
    """Decibels, at least."""
    ssim: float = 0.98
    """At least; not computed for pictures smaller than a window."""


USUAL: Final = Tolerance()
SMALL: Final = Tolerance(mean=3.0, psnr=34.0, ssim=0.965)
"""For thumbnails of so few pixels that the chroma subsampling of JPEG and WebP is visible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much two pictures differ."""

    mean: float
    psnr: float
    ssim: float

    def exceeds(self, tolerance: Tolerance) -> bool:
        """Whether it exceeds the tolerance."""
        return self.mean > tolerance.mean or self.psnr < tolerance.psnr or self.ssim < tolerance.ssim


def assert_alike(found: Pixels, expected: Pixels, tolerance: Tolerance = USUAL, folder: Path = FAILURES) -> None:
    """Fail if the pictures differ by more than the tolerance, and name the file that shows the difference."""
    assert found.shape == expected.shape
    difference = measure(found, expected)
    if difference.exceeds(tolerance):
        path = _save(found, expected, folder)
        raise AssertionError(
            f"{difference} exceeds {tolerance}: found, expected and {_AMPLIFIED}x difference in {path}"
        )


def measure(found: Pixels, expected: Pixels) -> Difference:
    """Return how much the pictures differ."""
    error = found - expected
    square = max(float(np.mean(error**2)), 1e-10)
    return Difference(
        mean=float(np.mean(np.abs(error))) * 255, psnr=float(-10 * np.log10(square)), ssim=_ssim(found, expected)
    )


def _ssim(one: Pixels, other: Pixels, window: int = 7) -> float:
    """Return structural similarity in uniform windows (Wang et al., 2004), averaged over all channels."""
    if min(one.shape[:2]) < window:
        return 1.0
    mean_one, mean_other = _mean(one, window), _mean(other, window)
    variances = _mean(one**2, window) - mean_one**2 + _mean(other**2, window) - mean_other**2
    covariance = _mean(one * other, window) - mean_one * mean_other
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_one * mean_other + c1) * (2 * covariance + c2)
    similarity /= (mean_one**2 + mean_other**2 + c1) * (variances + c2)
    return float(similarity.mean())


def _mean(pixels: Pixels, window: int) -> Pixels:
    for axis in (0, 1):
        total = np.cumsum(np.insert(pixels, 0, 0, axis=axis), axis=axis)
        pixels = (
            np.diff(np.stack((np.roll(total, window, axis=axis), total)), axis=0)[0].take(
                range(window, total.shape[axis]), axis=axis
            )
            / window
        )
    return pixels


def _save(found: Pixels, expected: Pixels, folder: Path) -> Path:
    """Save the two pictures and their amplified difference side by side, in a file named after the running test."""
    pictures = [found, expected, np.abs(found - expected) * _AMPLIFIED]
    visible = [np.round(np.clip(_as_rgb(each), 0, 1) * 255).astype(np.uint8) for each in pictures]
    name = re.sub(r"[^\w.-]+", "_", os.environ["PYTEST_CURRENT_TEST"].split(" (")[0].rpartition("/")[2])
    path = folder / f"{name[:150]}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(visible, axis=1)).save(path)
    return path


def _as_rgb(pixels: Pixels) -> Pixels:
    """Return grey as RGB, and alpha as a picture of its own below the colours."""
    if pixels.ndim == 2:
        return np.stack((pixels,) * 3, axis=-1)
    alpha = pixels[..., 3:]
    return np.concatenate((pixels[..., :3], alpha.repeat(3, axis=2))) if alpha.size else pixels
