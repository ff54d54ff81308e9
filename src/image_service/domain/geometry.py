"""Computes what is shown of an image, and in which size."""

from math import isqrt
from typing import Final, TypeAlias

from image_service.domain.recipe import Fit, Gravity, Output

Box: TypeAlias = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels."""

MAX_SIDE: Final = 16_383
"""Pixels of an output's longer side at the most: WebP can have no more. See ``output_size``."""
MAX_OUTPUT_PIXELS: Final = 16_000_000
"""Width times height of an output at the most: the largest PNG of it has 64 MB."""

_ANY: Final = 1 << 40
"""A side of a box that does not limit."""
_HALVES: Final = {
    Gravity.NORTH: (1, 0),
    Gravity.NORTH_EAST: (2, 0),
    Gravity.EAST: (2, 1),
    Gravity.SOUTH_EAST: (2, 2),
    Gravity.SOUTH: (1, 2),
    Gravity.SOUTH_WEST: (0, 2),
    Gravity.WEST: (0, 1),
    Gravity.NORTH_WEST: (0, 0),
}
"""How many halves of what is cut off are cut off at the left and at the top."""
_CENTRE: Final = (1, 1)


def fit_inside(width: int, height: int, box_width: int, box_height: int) -> tuple[int, int]:
    """Returns the largest size with the aspect ratio of ``width``x``height`` that fits the box without enlarging.

    Rounded to the nearest pixel; a side never falls below one pixel, however thin the image.

    Args:
        width: Width of the image in pixels, at least 1.
        height: Height of the image in pixels, at least 1.
        box_width: Width of the box in pixels, at least 1.
        box_height: Height of the box in pixels, at least 1.

    Returns:
        Width and height in pixels.
    """
    if width <= box_width and height <= box_height:
        return width, height
    return _grown(width, height, box_width, box_height)


def output_size(width: int, height: int, output: Output) -> tuple[int, int]:
    """Returns the size of the file that is made of an image.

    A box of one side is fitted as by ``inside``, whatever the fit. ``cover`` of an image smaller than the box, if it
    may not be enlarged, is the largest part of it that has the box's aspect ratio; ``pad`` always fills the box.

    Where a side would exceed ``MAX_SIDE``, as that of a thin image which covers a box, or the size exceed
    ``MAX_OUTPUT_PIXELS``, it is the largest size with the same aspect ratio that does not.

    Args:
        width: Width of the upright image in pixels, at least 1.
        height: Height of the upright image in pixels, at least 1.
        output: The output to make of it.

    Returns:
        Width and height in pixels.
    """
    box_width, box_height = output.width or _ANY, output.height or _ANY
    fit = fit_of(output)
    if fit is Fit.PAD or (fit is Fit.COVER and output.enlarge):
        return _bounded(box_width, box_height)
    if fit is Fit.COVER:
        return _bounded(*fit_inside(box_width, box_height, width, height))
    if fit is Fit.OUTSIDE:
        covers = width > box_width and height > box_height
        return _bounded(*_around(width, height, box_width, box_height) if covers or output.enlarge else (width, height))
    return _bounded(*(_grown if output.enlarge else fit_inside)(width, height, box_width, box_height))


def scaled_size(width: int, height: int, output: Output) -> tuple[int, int]:
    """Returns the size that the whole image is scaled to, before anything is cut off or added.

    For ``cover`` of a thin image it may have any number of pixels: nothing of that size is made.

    Args:
        width: Width of the upright image in pixels, at least 1.
        height: Height of the upright image in pixels, at least 1.
        output: The output to make of it.

    Returns:
        Width and height in pixels.
    """
    size = output_size(width, height, output)
    match fit_of(output):
        case Fit.COVER:
            return _around(width, height, *size)
        case Fit.PAD:
            return (_grown if output.enlarge else fit_inside)(width, height, *size)
        case _:
            return size


def needed_size(width: int, height: int, output: Output) -> tuple[int, int]:
    """Returns the size that the whole image can be reduced to without a loss for the output; never enlarged.

    Args:
        width: Width of the upright image in pixels, at least 1.
        height: Height of the upright image in pixels, at least 1.
        output: The output to make of it.

    Returns:
        Width and height in pixels.
    """
    scaled = scaled_size(width, height, output)
    return min(width, scaled[0]), min(height, scaled[1])


def crop_box(
    width: int,
    height: int,
    output: Output,
    picture: tuple[int, int] | None = None,
    corner: tuple[float, float] | None = None,
) -> Box:
    """Returns the part of the upright image that the output shows: all of it, unless the fit is ``cover``.

    The image as scaled for the output is cut between two pixels.

    Args:
        width: Width of the upright image in pixels, at least 1.
        height: Height of the upright image in pixels, at least 1.
        output: The output to make of it.
        picture: The size of a picture of the whole image, in whose pixels the part is returned; the image's own if left
            out.
        corner: The left and upper edge to choose, in the same pixels; by gravity if left out. ``attention`` counts as
            the centre then, because it depends on the picture.
    """
    (across, down), size = scaled_size(width, height, output), output_size(width, height, output)
    wide, high = picture or (width, height)
    if fit_of(output) is not Fit.COVER:
        return 0, 0, wide, high
    spare = across - size[0], down - size[1]
    if corner is None:
        halves = _HALVES.get(output.gravity, _CENTRE)
        left, top = (each * half // 2 for each, half in zip(spare, halves, strict=True))
    else:
        left = min(max(0, round(corner[0] * across / wide)), spare[0])
        top = min(max(0, round(corner[1] * down / high)), spare[1])
    return left * wide / across, top * high / down, (left + size[0]) * wide / across, (top + size[1]) * high / down


def pad_offset(width: int, height: int, output: Output) -> tuple[int, int]:
    """Returns the pixels of background at the left of the scaled image and above it; the rest is opposite.

    Args:
        width: Width of the upright image in pixels, at least 1.
        height: Height of the upright image in pixels, at least 1.
        output: The output to make of it, with a fit of ``pad``.
    """
    (across, down), size = scaled_size(width, height, output), output_size(width, height, output)
    return (size[0] - across) // 2, (size[1] - down) // 2


def fit_of(output: Output) -> Fit:
    """Returns how an image is fitted: in a box of one side, nothing can be cut off or added."""
    return Fit.INSIDE if output.width is None or output.height is None else output.fit


def _grown(width: int, height: int, box_width: int, box_height: int) -> tuple[int, int]:
    """Returns the largest size with this aspect ratio that fits the box."""
    if width * box_height >= height * box_width:
        return box_width, max(1, _rounded(height * box_width, width))
    return max(1, _rounded(width * box_height, height)), box_height


def _around(width: int, height: int, box_width: int, box_height: int) -> tuple[int, int]:
    """Returns the smallest size with this aspect ratio that covers the box."""
    if width * box_height >= height * box_width:
        return max(box_width, _rounded(width * box_height, height)), box_height
    return box_width, max(box_height, _rounded(height * box_width, width))


def _bounded(width: int, height: int) -> tuple[int, int]:
    width, height = fit_inside(width, height, MAX_SIDE, MAX_SIDE)
    if width * height <= MAX_OUTPUT_PIXELS:
        return width, height
    longest = isqrt(MAX_OUTPUT_PIXELS * width // height), isqrt(MAX_OUTPUT_PIXELS * height // width)
    return fit_inside(width, height, *longest)


def _rounded(dividend: int, divisor: int) -> int:
    # Integer arithmetic rounds half up exactly; floating point would be off for extreme ratios such as 20000x1.
    return (2 * dividend + divisor) // (2 * divisor)
