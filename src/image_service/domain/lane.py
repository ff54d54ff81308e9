"""Lanes: separate queues, so that cheap images do not wait for expensive ones."""

from enum import StrEnum
from typing import Final

from image_service.domain.image import ImageFormat, ImageHeader
from image_service.domain.recipe import DEFAULT_RECIPE, Recipe

_EXPRESS_PIXELS: Final = 1_500_000
_EXPRESS_PIXELS_JPEG: Final = 6_000_000
"""JPEG is decoded at reduced size, and costs a quarter of what other formats do."""
_EXPRESS_BYTES: Final = 256 * 1024
_EXPRESS_BYTES_PER_PIXEL: Final = 4
"""A file may have so many bytes for its metadata, and so many for each pixel: as many as it has uncompressed. Whatever
else is in a larger one takes time, too."""


class Lane(StrEnum):
    """A separate queue; first in, first out."""

    NORMAL = "normal"
    EXPRESS = "express"
    """Images that render in some hundredths of a second; a reserved decoder keeps slower ones from delaying them."""
    BACKFILL = "backfill"
    """Images reprocessed in bulk, at low priority: processed when the other lanes are empty."""


def lane_of(header: ImageHeader, size_bytes: int, recipe: Recipe = DEFAULT_RECIPE) -> Lane:
    """Returns the lane for an image by its estimated cost: EXPRESS or NORMAL.

    Args:
        header: Its format and size.
        size_bytes: The length of its file.
        recipe: The outputs to make of it.
    """
    limit = _EXPRESS_PIXELS_JPEG if header.format is ImageFormat.JPEG else _EXPRESS_PIXELS
    pixels = header.width * header.height
    fits = recipe.quick and pixels <= limit and size_bytes <= _EXPRESS_BYTES + _EXPRESS_BYTES_PER_PIXEL * pixels
    return Lane.EXPRESS if fits else Lane.NORMAL


def lane_after_decoder_failure(lane: Lane) -> Lane:
    """Returns the lane for the next attempt on an image on which a decoder ended: never EXPRESS."""
    return Lane.NORMAL if lane is Lane.EXPRESS else lane
