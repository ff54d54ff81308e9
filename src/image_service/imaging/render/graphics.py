"""Tells graphics, such as screenshots, text, logos and charts, from photographs.

Neighbouring pixels of a graphic are equal, or else differ a lot; those of a photograph differ a little, by its noise.
The figures behind the two thresholds: docs/decisions/0048-graphics-by-their-edges.md.
"""

from functools import reduce
from typing import Final

from PIL import Image, ImageChops

_SMALL: Final = 32 * 32
"""Pixels of a picture, such as an icon, that is too small to tell, and costs few bytes either way."""
_LINES: Final = 16
"""Lines of pixels to look at: no more than a few hundredths are wrong then, for a fiftieth of the time of all lines."""
_STEEP: Final = 32
"""The difference of two neighbours, in a channel of 8 bits, from which there is an edge between them."""
_LEAST_EQUAL: Final = 0.65
"""Of all neighbours. Graphics of 1200 pixels have 0.74 to 0.99; photographs more than 0.62 only with few edges."""
_LEAST_STEEP: Final = 0.2
"""Of the neighbours that differ. Graphics have 0.27 to 1.00; photographs with large plain areas 0.00 to 0.13."""


def is_graphic(image: Image.Image) -> bool:
    """Whether the picture is a graphic, or very small.

    Args:
        image: In mode L, RGB or RGBA, as it is to be encoded.
    """
    if image.width * image.height <= _SMALL or image.width == 1:
        return True
    counts = _differences(image).histogram()
    pairs, equal, steep = sum(counts), counts[0], sum(counts[_STEEP:])
    # Where nothing is steep, as in a plain colour or a white sky, nothing can lose its sharpness.
    return steep > 0 and equal >= _LEAST_EQUAL * pairs and steep >= _LEAST_STEEP * (pairs - equal)


def _differences(image: Image.Image) -> Image.Image:
    """Return the largest difference in any channel between neighbours, along lines that are spread over the picture."""
    width, height = image.size
    lines = min(_LINES, height)
    gap = height / lines
    # They slope down to where the next one begins: level ones would miss what repeats at the same distance, like text.
    here, there = (
        image.transform(
            (width - 1, lines),
            Image.Transform.AFFINE,
            (1, 0, shift, gap / width, gap, -gap / 2),
            Image.Resampling.NEAREST,
        )
        for shift in (0, 1)
    )
    return reduce(ImageChops.lighter, ImageChops.difference(here, there).split())
