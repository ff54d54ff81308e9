"""Computes the size of an output."""

from typing import Final

from image_service.domain.recipe import Fit, Output


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


def scaled_size(width: int, height: int, output: Output) -> tuple[int, int]:
    """Returns the size that the whole image is scaled to, before anything is cut off or added.

    Args:
        width: Width of the upright image in pixels, at least 1.
        height: Height of the upright image in pixels, at least 1.
        output: The output to make of it.

    Returns:
        Width and height in pixels.
    """
    box_width, box_height = output.width, output.height
    if box_width is None or box_height is None:
        wide, high = (box_width or _ANY, box_height or _ANY)
        return _grown(width, height, wide, high) if output.enlarge else fit_inside(width, height, wide, high)
    if output.fit in {Fit.COVER, Fit.OUTSIDE}:
        if not output.enlarge and (width <= box_width or height <= box_height):
            return width, height
        # The side that decides is the other one than inside the box.
        if width * box_height >= height * box_width:
            return max(box_width, _rounded(width * box_height, height)), box_height
        return box_width, max(box_height, _rounded(height * box_width, width))
    if output.enlarge:
        return _grown(width, height, box_width, box_height)
    return fit_inside(width, height, box_width, box_height)


def output_size(width: int, height: int, output: Output) -> tuple[int, int]:
    """Returns the size of the file that is made of an image.

    ``cover`` of an image smaller than the box, if it may not be enlarged, is the largest part of it that has the box's
    aspect ratio; ``pad`` always fills the box.

    Args:
        width: Width of the upright image in pixels, at least 1.
        height: Height of the upright image in pixels, at least 1.
        output: The output to make of it.

    Returns:
        Width and height in pixels.
    """
    if output.width is None or output.height is None or output.fit in {Fit.INSIDE, Fit.OUTSIDE}:
        return scaled_size(width, height, output)
    if output.fit is Fit.PAD or output.enlarge:
        return output.width, output.height
    return fit_inside(output.width, output.height, width, height)


_ANY: Final = 1 << 40
"""A side of a box that does not limit."""


def _grown(width: int, height: int, box_width: int, box_height: int) -> tuple[int, int]:
    """Returns the largest size with this aspect ratio that fits the box."""
    if width * box_height >= height * box_width:
        return box_width, max(1, _rounded(height * box_width, width))
    return max(1, _rounded(width * box_height, height)), box_height


def _rounded(dividend: int, divisor: int) -> int:
    # Integer arithmetic rounds half up exactly; floating point would be off for extreme ratios such as 20000x1.
    return (2 * dividend + divisor) // (2 * divisor)
