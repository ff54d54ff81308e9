"""The picture in all files: colours with soft edges and a ramp of grey, which differs when turned or mirrored."""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.golden.reference import Pixels

WIDTH, HEIGHT = 128, 96
_SIDE: Final = 32
"""Of a patch in pixels."""
_EDGE: Final = 20
"""Pixels in which a colour turns into the next: chroma of half the resolution, as in JPEG, can follow."""
_PATCHES: Final = np.array(
    (
        ((200, 60, 60), (60, 180, 75), (60, 80, 200), (230, 200, 60)),
        ((220, 170, 140), (60, 160, 180), (180, 80, 160), (40, 45, 60)),
        ((128, 128, 128), (128, 128, 128), (128, 128, 128), (128, 128, 128)),
    )
)
_BROWNS: Final = np.array(((60, 45, 30), (240, 215, 190)))
_FEW: Final = 16
"""Colours that are too few for all hues."""


@cache
def colours() -> Pixels:
    """Return the picture in colour: values from 0 to 1, to be read as whatever the file says that they are."""
    pixels = _patches()
    pixels[2 * _SIDE + _EDGE // 2 :] = np.linspace(0, 1, WIDTH)[:, None]
    blend = _smooth(np.arange(_EDGE) - _EDGE / 2)[:, None, None]
    above, ramp = _patches()[2 * _SIDE - _EDGE], pixels[-1]
    pixels[2 * _SIDE - _EDGE // 2 : 2 * _SIDE + _EDGE // 2] = above * (1 - blend) + ramp * blend
    return pixels


@cache
def greys() -> Pixels:
    """Return the picture without colour."""
    return np.asarray(colours() @ np.array((0.3, 0.6, 0.1)))


@cache
def opacity() -> Pixels:
    """Return alpha for the picture: opaque on the left, nearly transparent on the right."""
    return np.linspace(1, 0.1, WIDTH)[None, :].repeat(HEIGHT, axis=0)


@cache
def holes() -> Pixels:
    """Return alpha for formats whose alpha the browser reads differently between both ends: 1 and 0."""
    return np.repeat(np.where(np.arange(WIDTH) < WIDTH * 3 // 4, 1.0, 0.0)[None, :], HEIGHT, axis=0)


def stripes(count: int) -> tuple[Pixels, NDArray[np.uint8]]:
    """Return a table of colours that turn into each other, and the indices of a picture that they all appear in.

    Neighbours are so alike that the picture has no edges but one between its halves.
    """
    stops = _PATCHES[:2].reshape(-1, 3) / 255 if count > _FEW else _BROWNS / 255
    place = np.linspace(0, len(stops) - 1, count)
    table = np.stack([np.interp(place, np.arange(len(stops)), stops[:, each]) for each in range(3)], axis=-1)
    rows = np.arange(count).reshape(2, -1).repeat(2 * WIDTH // count, axis=1)
    return table, rows.repeat(HEIGHT // 2, axis=0).astype(np.uint8)


def to_image(pixels: Pixels) -> Image.Image:
    """Return the picture in 8 bits."""
    return Image.fromarray(np.round(pixels * 255).astype(np.uint8))


def _patches() -> Pixels:
    rows = _soft(_PATCHES / 255, HEIGHT)
    return _soft(rows.swapaxes(0, 1), WIDTH).swapaxes(0, 1)


def _soft(values: Pixels, length: int) -> Pixels:
    """Return the values repeated along the first axis, with soft edges between them."""
    place = np.clip((np.arange(length) + 0.5) / _SIDE - 0.5, 0, len(values) - 1)
    left = np.floor(place).astype(int)
    share = _smooth((place - left - 0.5) * _SIDE)
    share = share.reshape(-1, *(1,) * (values.ndim - 1))
    return np.asarray(values[left] * (1 - share) + values[np.minimum(left + 1, len(values) - 1)] * share)


def _smooth(distance: NDArray[np.floating]) -> Pixels:
    """Return how far a colour has turned into the next, by the distance from the edge in pixels."""
    at = np.clip(distance / _EDGE + 0.5, 0, 1)
    return np.asarray(at * at * (3 - 2 * at))
