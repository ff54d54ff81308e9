"""Which line an image waits in, so that a thumbnail of a photo need not wait for those of a poster."""

from enum import StrEnum
from typing import Final

from image_service.domain.image import ImageFormat, ImageHeader

_EXPRESS_PIXELS: Final = 1_500_000
_EXPRESS_PIXELS_JPEG: Final = 6_000_000
"""JPEG is decoded at a fraction of its size, and costs a quarter of what the others do."""


class Lane(StrEnum):
    """A line of its own in the queue; within one, first come, first served."""

    NORMAL = "normal"
    EXPRESS = "express"
    """Images that take some hundredths of a second, and are never kept waiting by others for longer than that."""
    BACKFILL = "backfill"
    """Images that are rendered again in bulk: they wait for as long as there is anything new to do."""


def lane_of(header: ImageHeader) -> Lane:
    """The lane for a new image, by what its header says it will cost; never the one for those rendered again."""
    limit = _EXPRESS_PIXELS_JPEG if header.format is ImageFormat.JPEG else _EXPRESS_PIXELS
    return Lane.EXPRESS if header.width * header.height <= limit else Lane.NORMAL
