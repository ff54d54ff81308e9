"""The pictures in the files: drawn from formulas, and charts of colours."""

from typing import Final

import numpy as np
from PIL import Image

from tests.golden.reference import Pixels

_CHECKER: Final = (
    (115, 82, 68),
    (194, 150, 130),
    (98, 122, 157),
    (87, 108, 67),
    (133, 128, 177),
    (103, 189, 170),
    (214, 126, 44),
    (80, 91, 166),
    (193, 90, 99),
    (94, 60, 108),
    (157, 188, 64),
    (224, 163, 46),
    (56, 61, 150),
    (70, 148, 73),
    (175, 54, 60),
    (231, 199, 31),
    (187, 86, 149),
    (8, 133, 161),
    (243, 243, 242),
    (200, 200, 200),
    (160, 160, 160),
    (122, 122, 121),
    (85, 85, 85),
    (52, 52, 52),
)
"""The 24 patches of the common colour checker, in sRGB."""
PATCH: Final = 40
"""The side of a chart's patch in pixels."""
COLUMNS: Final = 8


def colours() -> Pixels:
    """Return 48 colours of the sRGB gamut: those of the checker, and a grid that includes its corners."""
    steps = np.linspace(0, 1, 3)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    return quantised(np.concatenate((np.array(_CHECKER) / 255, grid[:24])))


def chart(patches: Pixels) -> Pixels:
    """Return the colours as a chart, row by row."""
    rows = patches.reshape(-1, COLUMNS, *patches.shape[1:])
    return rows.repeat(PATCH, axis=0).repeat(PATCH, axis=1)


def read_chart(pixels: Pixels, count: int) -> Pixels:
    """Return the mean colour of the middle of every patch, from a chart of any size."""
    side = pixels.shape[1] / COLUMNS
    corners = [(index // COLUMNS * side, index % COLUMNS * side) for index in range(count)]
    low, high = side * 0.3, side * 0.7
    return np.array(
        [
            pixels[int(top + low) : int(top + high), int(left + low) : int(left + high)].mean(axis=(0, 1))
            for top, left in corners
        ]
    )


def scene(width: int, height: int) -> Pixels:
    """Return a picture that differs when rotated or mirrored: slopes, discs, stripes and a texture.

    It has no detail so fine that a good filter would lose it in a thumbnail, because good filters differ there.
    """
    y, x = np.mgrid[:height, :width]
    x, y = (x + 0.5) / width, (y + 0.5) / height
    pixels = np.stack((0.15 + 0.6 * x * (1 - 0.3 * y), 0.2 + 0.5 * y**1.3, 0.45 + 0.2 * np.sin(5 * x + 3 * y)), axis=-1)
    pixels += 0.05 * (np.sin(50 * x) * np.cos(34 * y))[..., None]
    discs = (
        (0.25, 0.3, 0.15, (0.9, 0.35, 0.3)),
        (0.7, 0.2, 0.1, (0.1, 0.2, 0.5)),
        (0.8, 0.75, 0.18, (0.95, 0.9, 0.8)),
    )
    for left, top, radius, colour in discs:
        distance = np.hypot((x - left) * width, (y - top) * height) / min(width, height) - radius
        inside = np.clip(0.5 - distance / 0.06, 0, 1)[..., None]
        pixels += inside * (np.array(colour) - pixels)
    stripes = 0.5 - 0.5 * np.cos(2 * np.pi * 8 * (x + 0.4 * y))
    window = np.clip(
        4 * np.sin(np.pi * np.clip((x - 0.06) / 0.4, 0, 1)) * np.sin(np.pi * np.clip(2 * y - 1, 0, 1)), 0, 1
    )
    pixels *= 1 - 0.5 * (stripes * window)[..., None]
    return quantised(pixels)


def grey_scene(width: int, height: int) -> Pixels:
    """Return the same without colours, from black to white."""
    grey = scene(width, height) @ np.array((0.3, 0.6, 0.1))
    return quantised((grey - grey.min()) / np.ptp(grey))


def quantised(pixels: Pixels, depth: int = 8) -> Pixels:
    """Return the nearest values that files of a depth can hold."""
    levels = 2**depth - 1
    return np.asarray(np.round(np.clip(pixels, 0, 1) * levels) / levels)


def to_image(pixels: Pixels) -> Image.Image:
    """Return the picture in 8 bits: grey, RGB or RGBA."""
    return Image.fromarray(np.round(pixels * 255).astype(np.uint8))


def to_cmyk(inks: Pixels) -> Image.Image:
    """Return the picture of four inks."""
    values = np.round(inks * 255).astype(np.uint8)
    return Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), values.tobytes())


def to_pixels(image: Image.Image, mode: str = "RGB") -> Pixels:
    """Return an image's values."""
    return np.asarray(image.convert(mode), dtype=np.float64) / 255
