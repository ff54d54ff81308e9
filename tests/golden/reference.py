"""The expected result: resampling, colour and colour differences in float64, directly from their definitions.

Pictures are arrays of rows, columns and channels, with values from 0 to 1; whole areas of one channel have none.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.float64]

Indices: TypeAlias = NDArray[np.uint8]
"""Rows and columns of entries in a palette."""

Curve: TypeAlias = Callable[[Pixels], Pixels]

D50: Final = np.array((0.9642, 1.0, 0.8249))
"""The white of the profile connection space (ICC.1 §7.2.16)."""
_BRADFORD: Final = np.array(((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296)))
_LOBES: Final = 3

_SRGB_PRIMARIES: Final = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
D65: Final = (0.3127, 0.3290)


def resize(pixels: Pixels, width: int, height: int) -> Pixels:
    """Return the picture at another size, with a Lanczos filter of three lobes scaled with the reduction."""
    return np.clip(_filtered(pixels, width, height), 0, 1)


def resize_visible(pixels: Pixels, width: int, height: int) -> Pixels:
    """Do the same for a picture with alpha: colours are weighted by alpha."""
    alpha = _filtered(pixels[..., 3:], width, height)
    visible = _filtered(pixels[..., :3] * pixels[..., 3:], width, height)
    colour = np.divide(visible, alpha, out=np.zeros_like(visible), where=alpha > 1 / 510)
    return np.asarray(np.clip(np.concatenate((colour, alpha), axis=2), 0, 1))


def _filtered(pixels: Pixels, width: int, height: int) -> Pixels:
    return _along_rows(_along_rows(pixels, height).swapaxes(0, 1), width).swapaxes(0, 1)


def _along_rows(pixels: Pixels, target: int) -> Pixels:
    """Return ``target`` rows, each a weighted sum of those around its position."""
    source = pixels.shape[0]
    scale = max(1.0, source / target)
    rows = []
    for centre in (np.arange(target) + 0.5) * source / target:
        near = np.arange(max(0, int(centre - _LOBES * scale)), min(source, int(centre + _LOBES * scale) + 1))
        distance = (near + 0.5 - centre) / scale
        weights = np.where(np.abs(distance) < _LOBES, np.sinc(distance) * np.sinc(distance / _LOBES), 0)
        rows.append(np.tensordot(weights / weights.sum(), pixels[near], axes=1))
    return np.array(rows)


def over(pixels: Pixels, background: float) -> Pixels:
    """Return a picture with alpha composed on a grey background."""
    alpha = pixels[..., 3:]
    return np.asarray(pixels[..., :3] * alpha + background * (1 - alpha))


def srgb_to_linear(encoded: Pixels) -> Pixels:
    """Convert stored values to linear light (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: Pixels) -> Pixels:
    """Convert linear light to stored values, clipped to the gamut."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def colorants(primaries: tuple[tuple[float, float], ...], white: tuple[float, float]) -> Pixels:
    """Return the matrix from linear light in these primaries to XYZ under D50."""
    x, y = np.array(primaries).T
    columns = np.array((x / y, np.ones(3), (1 - x - y) / y))
    light = np.array((white[0] / white[1], 1, (1 - sum(white)) / white[1]))
    matrix = columns * np.linalg.solve(columns, light)
    cones = (_BRADFORD @ D50) / (_BRADFORD @ light)
    return np.asarray(np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ matrix)


SRGB: Final = colorants(_SRGB_PRIMARIES, D65)


def xyz_to_srgb(xyz: Pixels) -> Pixels:
    """Convert the connection space to stored sRGB."""
    return linear_to_srgb(xyz @ np.linalg.inv(SRGB).T)


def srgb_to_lab(encoded: Pixels) -> Pixels:
    """Convert stored sRGB to CIELAB under D50."""
    return xyz_to_lab(srgb_to_linear(encoded) @ SRGB.T)


def xyz_to_lab(xyz: Pixels) -> Pixels:
    """Convert XYZ to CIELAB, both under D50 (CIE 15)."""
    ratio = xyz / D50
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), axis=-1)


def delta_e(one: Pixels, other: Pixels) -> Pixels:
    """Return the CIEDE2000 difference of CIELAB colours (Sharma, Wu and Dalal, 2005)."""
    (l1, a1, b1), (l2, a2, b2) = np.moveaxis(one, -1, 0), np.moveaxis(other, -1, 0)
    mean_chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25**7))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    grey = c1 * c2 == 0
    turn = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    # Opposite hues turn upwards in the published data; only one case of it shows that.
    turn = np.where((turn == -180) & (h2 > h1), 180, turn)
    hue = np.where(grey, h1 + h2, (h1 + turn / 2) % 360)
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    weight = 1 - 0.17 * _cos(hue - 30) + 0.24 * _cos(2 * hue) + 0.32 * _cos(3 * hue + 6) - 0.20 * _cos(4 * hue - 63)
    by_lightness = (l2 - l1) / (1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2))
    by_chroma = (c2 - c1) / (1 + 0.045 * chroma)
    by_hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * chroma * weight)
    spread = 2 * np.sqrt(chroma**7 / (chroma**7 + 25**7))
    rotation = -np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2)))) * spread
    return np.asarray(np.sqrt(by_lightness**2 + by_chroma**2 + by_hue**2 + rotation * by_chroma * by_hue))


def _cos(degrees: Pixels) -> Pixels:
    return np.cos(np.radians(degrees))
