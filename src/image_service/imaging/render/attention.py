"""Finds the part of a picture with the most detail, for crops that are to show what matters.

What counts is what libvips, and services built on it, call attention: edges, vivid colours and colours of skin. Nothing
is random and all of it is whole numbers, so that every machine finds the same part. How well it does:
docs/decisions/0050-the-part-with-the-most-detail.md.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import accumulate
from typing import Final

from PIL import Image, ImageChops

_SIDE: Final = 128
"""Pixels of the longest side of the small copy that is looked at: noise and fine texture are averaged out in it."""
_NOISE: Final = 6
"""The difference of two neighbours, in a channel of 8 bits, up to which there is no edge between them."""
_STEEPEST: Final = 60
"""What an edge counts at most, so that one silhouette does not outweigh everything else."""
_VIVID: Final = 48
"""What the most vivid colour counts; only by how much it is more vivid than most of the picture."""
_SKIN: Final = 48
"""What a pixel with a colour of skin counts."""
_SKIN_CB: Final = range(77, 128)
_SKIN_CR: Final = range(136, 174)
"""Chroma of skin, dark and light, with eight bits (after Chai and Ngan, 1999)."""
_DARK: Final = 40
"""Brightness below which a colour cannot be told."""
_VISIBLE: Final = 8
"""What a visible pixel counts beside a transparent one."""
_MARGINS: Final = (0, 1, 2, 3)
_PARTS: Final = 16
"""What lies in the outermost sixteenth of the crop counts a quarter, in the next two quarters, and so on: what matters
gets a margin where the picture has room for one."""
_PLACES: Final = 128
"""Steps from the first to the last position of the crop; even, so that the centre is one."""
_CLOSE: Final = 64
"""A position is as good as the best if its score is less by at most one part in so many."""
_ENDS: Final = (-2, -1)
"""The first and the last position, in order of their distance from the centre."""
_SLIVER: Final = 32
"""What reaches the picture's edge is not cut by less than the crop's size divided by this."""


def focus(image: Image.Image, width: float, height: float) -> tuple[float, float]:
    """Return where the crop of this size begins that shows the most detail.

    Of positions that are as good, it is the one nearest to the centre: for a plain picture the centre itself.
    Transparent parts do not count. Where the crop is both narrower and lower than the picture, the columns are chosen
    before the rows.

    Args:
        image: In mode L, RGB or RGBA; others are looked at as RGB.
        width: Of the crop in pixels of the image, at most that of the image.
        height: Likewise.

    Returns:
        The left and the upper edge of the crop in pixels of the image, so that it lies inside.
    """
    if width >= image.width and height >= image.height:
        return 0.0, 0.0
    step = -(-max(image.size) // _SIDE)
    scores = _scores(_small(image, step))
    columns, rows = scores.size
    left = _best([sum(scores.tobytes()[column::columns]) for column in range(columns)], step, image.width, width)
    scores = scores.crop((int(left) // step, 0, min(columns, -(-int(left + width) // step)), rows))
    content = scores.tobytes()
    totals = [sum(content[row * scores.width : (row + 1) * scores.width]) for row in range(rows)]
    return left, _best(totals, step, image.height, height)


def _small(image: Image.Image, step: int) -> Image.Image:
    """Return a copy in mode L, RGB or RGBA with one pixel for so many in either direction."""
    small = image.reduce(step) if step > 1 else image
    return small if small.mode in {"L", "RGB", "RGBA"} else small.convert("RGB")


def _scores(small: Image.Image) -> Image.Image:
    """Return how much each pixel counts, in mode L."""
    if small.mode == "L":
        return _edges(small, None)
    if small.mode == "RGB":
        return ImageChops.add(_edges(small, None), _colours(small, None))
    alpha = small.getchannel("A")
    colours = small.convert("RGB")
    seen = ImageChops.add(_edges(colours, alpha), ImageChops.multiply(_colours(colours, alpha), alpha))
    # The shape of what is visible counts, too: a plain logo has no other edges.
    shape = ImageChops.add(_edges(alpha, None), alpha.point(_SHAPE))
    return ImageChops.add(seen, shape)


def _edges(picture: Image.Image, alpha: Image.Image | None) -> Image.Image:
    """Return how much each pixel differs from its four neighbours, in the channel that differs most."""
    width, height = picture.size
    total = Image.new("L", picture.size)
    for across, down in ((1, 0), (0, 1)):
        here, there = (0, 0, width - across, height - down), (across, down, width, height)
        if 0 in (here[2], here[3]):
            continue
        pairs = ImageChops.difference(picture.crop(here), picture.crop(there))
        found = reduce(ImageChops.lighter, pairs.split()).point(_STEEPNESS)
        if alpha:
            # The colour of a transparent neighbour says nothing.
            found = ImageChops.multiply(found, ImageChops.darker(alpha.crop(here), alpha.crop(there)))
        # For both, so that an edge does not lean to one side.
        for place in (here, there):
            total.paste(ImageChops.add(total.crop(place), found), place)
    return total


def _colours(picture: Image.Image, alpha: Image.Image | None) -> Image.Image:
    """Return how much each pixel counts by its colour."""
    red, green, blue = picture.split()
    brightest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    chroma = ImageChops.subtract(brightest, ImageChops.darker(ImageChops.darker(red, green), blue))
    usual = _median(chroma.histogram(alpha))
    vivid = chroma.point(_table(lambda value: max(0, value - usual) * _VIVID // 255))
    luma, cb, cr = picture.convert("YCbCr").split()
    skin = ImageChops.darker(luma.point(_BRIGHT_ENOUGH), ImageChops.darker(cb.point(_CB), cr.point(_CR)))
    return ImageChops.add(vivid, skin)


def _median(counts: Sequence[int]) -> int:
    """Return the value that half of the pixels do not exceed."""
    half = sum(counts) // 2
    return next(value for value, below in enumerate(accumulate(counts)) if below >= half)


def _best(totals: Sequence[int], step: int, length: int, extent: float) -> float:
    """Return where the part of a line with the most detail begins, in pixels.

    Args:
        totals: The score of each so many pixels.
        step: Pixels for each of the totals; the last may have fewer.
        length: Of the line in pixels.
        extent: Of the part in pixels.
    """
    room = length - extent
    if room <= 0:
        return 0.0
    whole = max(1, int(extent))
    margins = [whole * share // _PARTS for share in _MARGINS]
    sums = [0, *accumulate(totals)]

    def until(place: int) -> int:
        index, rest = divmod(place, step)
        return sums[index] * step + (totals[index] * rest if rest else 0)

    # The nearest to the centre first.
    begins = [
        room * place / _PLACES for place in sorted(range(_PLACES + 1), key=lambda place: abs(2 * place - _PLACES))
    ]
    scores = [sum(until(int(each) + whole - gap) - until(int(each) + gap) for gap in margins) for each in begins]
    enough = max(scores) * (_CLOSE - 1)
    found = next(place for place, score in enumerate(scores) if score * _CLOSE >= enough)
    near = [place for place in _ENDS if abs(begins[place] - begins[found]) * _SLIVER <= extent]
    return begins[max([found, *near], key=lambda place: scores[place])]


def _table(count: Callable[[int], int]) -> list[int]:
    return [count(value) for value in range(256)]


_STEEPNESS: Final = _table(lambda difference: min(max(0, difference - _NOISE), _STEEPEST))
_SHAPE: Final = _table(lambda alpha: alpha * _VISIBLE // 255)
_CB: Final = _table(lambda chroma: _SKIN if chroma in _SKIN_CB else 0)
_CR: Final = _table(lambda chroma: _SKIN if chroma in _SKIN_CR else 0)
_BRIGHT_ENOUGH: Final = _table(lambda luma: _SKIN if luma >= _DARK else 0)
