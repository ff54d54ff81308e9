"""Lanes: separate queues, so that cheap images do not wait for expensive ones."""

from enum import StrEnum
from typing import Final

from image_service.domain.image import ImageFormat, ImageHeader

_EXPRESS_PIXELS: Final = 1_500_000
_EXPRESS_PIXELS_JPEG: Final = 6_000_000
"""JPEG is decoded at reduced size, and costs a quarter of what other formats do."""


class Lane(StrEnum):
    """A separate queue; first in, first out."""

    NORMAL = "normal"
    EXPRESS = "express"
    """Images that render in some hundredths of a second; a reserved decoder keeps slower ones from delaying them."""
    BACKFILL = "backfill"
    """Images reprocessed in bulk, at low priority: processed when the other lanes are empty."""


def lane_of(header: ImageHeader) -> Lane:
    """Returns the lane for an image by its estimated cost: EXPRESS or NORMAL."""
    limit = _EXPRESS_PIXELS_JPEG if header.format is ImageFormat.JPEG else _EXPRESS_PIXELS
    return Lane.EXPRESS if header.width * header.height <= limit else Lane.NORMAL
