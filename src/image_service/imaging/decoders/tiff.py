"""TIFF: libtiff and raw pixels through Pillow, bounded."""

from typing import BinaryIO, Final

from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from image_service.errors import ImageTooLarge

_MAX_LAYERS: Final = 8
"""How often the strips may cover the image: once a channel, where the channels are stored separately."""
_UNSCALED: Final = frozenset({"I", "F"})
"""Modes of Pillow for samples whose range, and so the value of white, the file does not define."""
_RAW_BITS: Final = (12,)
"""A depth that Pillow does not scale to 8 bits, so that pictures are nearly black."""


def open_tiff(file: BinaryIO) -> TiffImageFile:
    """Return the first page.

    Raises:
        ImageTooLarge: overlapping strips would be decoded over and over.
        SyntaxError: its samples are of a kind that would be shown wrongly.
    """
    image = TiffImageFile(file)
    if image.mode in _UNSCALED or image.tag_v2.get(BITSPERSAMPLE) == _RAW_BITS:
        raise SyntaxError("samples of 12 or 32 bits, signed ones and fractions are not supported")
    places = [tile.extents for tile in image.tile if tile.extents]
    covered = sum((right - left) * (lower - upper) for left, upper, right, lower in places)
    if covered > _MAX_LAYERS * image.width * image.height:
        raise ImageTooLarge(
            "The pieces of the TIFF image lie on top of each other, which takes too long to put together. Export the "
            "image again and upload the new file."
        )
    return image
