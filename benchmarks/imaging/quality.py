"""Measures the quality of thumbnails: SSIM against a reference computed in 64-bit floating point."""

from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels: TypeAlias = NDArray[np.float64]

_LOBES = 3
_LUMA = np.array([0.299, 0.587, 0.114])
_WINDOW = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def references(source: Path, sizes: dict[str, tuple[int, int]]) -> dict[str, Pixels]:
    """Return the ideal thumbnail of each size: decoded in full, upright, and resampled once with Lanczos (a = 3)."""
    if source.suffix == ".heic":
        heif: Any = import_module("pillow_heif")  # only in the benchmark's environment, not in the type checker's
        heif.register_heif_opener()
    with Image.open(source) as image:
        full = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    return {name: np.clip(_resample(full, size), 0, 255) for name, size in sizes.items()}


def ssim(reference: Pixels, thumbnail: Path) -> float:
    """Return the structural similarity of the luma (Wang et al. 2004: Gaussian window of 11 pixels, sigma 1.5)."""
    with Image.open(thumbnail) as image:
        pixels = np.asarray(image.convert("RGB"), np.float64)
    if pixels.shape != reference.shape:
        return 0.0
    return similarity(reference @ _LUMA, pixels @ _LUMA)


def similarity(x: Pixels, y: Pixels) -> float:
    """Return the structural similarity of two planes."""
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return float(np.mean(likeness / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))))


def _resample(pixels: NDArray[Any], size: tuple[int, int]) -> Pixels:
    width, height = size
    return _rows(_rows(pixels, height).transpose(1, 0, 2), width).transpose(1, 0, 2)


def _rows(pixels: NDArray[Any], count: int) -> Pixels:
    """Return the picture with so many rows, each a weighted mean of those around it."""
    scale = pixels.shape[0] / count
    reach = _LOBES * max(scale, 1.0)
    result = np.empty((count, *pixels.shape[1:]))
    for row in range(count):
        centre = (row + 0.5) * scale
        first, last = max(0, int(centre - reach)), min(pixels.shape[0], int(centre + reach) + 1)
        offsets = (np.arange(first, last) + 0.5 - centre) / max(scale, 1.0)
        weights = np.sinc(offsets) * np.sinc(offsets / _LOBES) * (np.abs(offsets) < _LOBES)
        result[row] = np.tensordot(weights / weights.sum(), pixels[first:last].astype(np.float64), 1)
    return result


def _blur(plane: Pixels) -> Pixels:
    """Return the window's weighted mean at every position where it fits."""
    window = _WINDOW / _WINDOW.sum()
    for axis in (0, 1):
        length = plane.shape[axis] - len(window) + 1
        plane = sum(
            (weight * plane.take(range(start, start + length), axis) for start, weight in enumerate(window)),
            np.zeros(()),
        )
    return plane
