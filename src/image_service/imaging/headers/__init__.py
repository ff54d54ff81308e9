"""Dimensions from the headers of each format, read in bounded time without decoding anything."""

from collections.abc import Callable
from typing import Final

from image_service.domain.image import ImageFormat
from image_service.imaging.headers import bmp, gif, heif, jpeg, png, tiff, webp
from image_service.imaging.headers.reader import Reader

DIMENSIONS: Final[dict[ImageFormat, Callable[[Reader], tuple[int, int]]]] = {
    ImageFormat.JPEG: jpeg.dimensions,
    ImageFormat.PNG: png.dimensions,
    ImageFormat.GIF: gif.dimensions,
    ImageFormat.WEBP: webp.dimensions,
    ImageFormat.AVIF: heif.dimensions,
    ImageFormat.HEIC: heif.dimensions,
    ImageFormat.TIFF: tiff.dimensions,
    ImageFormat.BMP: bmp.dimensions,
}
"""Width and height in pixels, as stored, of a file already known to have the format. Raises ``CorruptImage``."""
