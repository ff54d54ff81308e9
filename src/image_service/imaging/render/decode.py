"""From a file to pixels: opens and decodes each format with its decoder, and turns decoder errors into verdicts."""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from PIL import ExifTags, Image, ImageFile, PngImagePlugin
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile

from image_service.domain.image import ImageFormat, ImageHeader
from image_service.errors import CorruptImage, ImageTooLarge
from image_service.imaging.address_space import is_available
from image_service.imaging.decoders.gif import on_canvas
from image_service.imaging.decoders.heic import open_heic
from image_service.imaging.decoders.jpeg import Jpeg, decode_without_end
from image_service.imaging.decoders.jxl import JpegXl
from image_service.imaging.decoders.png import Png, repair_transparency
from image_service.imaging.decoders.tiff import open_tiff
from image_service.imaging.decoders.webp import open_webp
from image_service.imaging.limits import MAX_PROFILE_BYTES

_DECODERS: Final[dict[ImageFormat, Callable[[BinaryIO], ImageFile.ImageFile]]] = {
    ImageFormat.JPEG: Jpeg,
    ImageFormat.PNG: Png,
    ImageFormat.GIF: GifImageFile,
    ImageFormat.WEBP: open_webp,
    ImageFormat.AVIF: AvifImageFile,
    ImageFormat.HEIC: open_heic,
    ImageFormat.JXL: JpegXl,
    ImageFormat.TIFF: open_tiff,
    ImageFormat.BMP: BmpImageFile,
}
"""The decoder of each format, named explicitly: no other can be reached, whatever a file's content suggests."""

_FILLED: Final = frozenset({ImageFormat.JPEG, ImageFormat.PNG, ImageFormat.GIF, ImageFormat.TIFF, ImageFormat.BMP})
"""Formats whose decoders keep the decoded part of a truncated file; the others decode all of it or nothing."""

_BROKEN: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""Errors that Pillow's parsers were seen to raise on malformed files."""

# Also the limit on profiles, which are the only compressed metadata that is still there when Pillow sees the file.
PngImagePlugin.MAX_TEXT_CHUNK = MAX_PROFILE_BYTES

_BYTES_PER_PIXEL: Final = {
    ImageFormat.JPEG: 12,
    ImageFormat.WEBP: 16,
    ImageFormat.AVIF: 14,
    ImageFormat.HEIC: 8,
    ImageFormat.JXL: 22,
    ImageFormat.TIFF: 8,
}
"""What decoding takes at the most, of the formats whose decoders report a lack of memory as damage; the others tell
these apart."""
_OUT_OF_MEMORY: Final = "out of memory"
"""What Pillow's own decoders report."""


@contextmanager
def tolerance(image_format: ImageFormat, *, truncated: bool) -> Iterator[None]:
    """Let Pillow accept truncated files of the format in this process meanwhile, if ``truncated``."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = truncated and image_format in _FILLED
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def open_image(file: BinaryIO, header: ImageHeader) -> ImageFile.ImageFile:
    """Return the file's first frame, not decoded yet.

    Raises:
        CorruptImage: the decoder cannot read the file's structure.
        ImageTooLarge: the decoder refuses its size.
        MemoryError: there is too little.
    """
    with verdicts(header.width * header.height * _BYTES_PER_PIXEL.get(header.format, 0)):
        image = _DECODERS[header.format](file)
        if header.format is ImageFormat.PNG:
            repair_transparency(image)
        return image


def scale_on_load(image: ImageFile.ImageFile, width: int, height: int) -> tuple[float, float, float, float]:
    """Let the decoder skip detail that is not needed for an image of the given size, if it can.

    The decoder itself decides how much detail it keeps beyond that.

    Returns:
        The area that the picture will fill once decoded: left, upper, right and lower edge in pixels.
    """
    drafted = image.draft(None, (width, height))
    return drafted[1] if drafted else (0, 0, *image.size)


def decode(image: ImageFile.ImageFile, file: BinaryIO, image_format: ImageFormat) -> Image.Image:
    """Return the decoded first frame of an opened file.

    Raises:
        CorruptImage: the pixel data is damaged or incomplete.
        ImageTooLarge: the decoder refuses its size.
        MemoryError: there is too little.
    """
    with verdicts(image.width * image.height * _BYTES_PER_PIXEL.get(image_format, 0)):
        try:
            image.load()
        except OSError:
            if isinstance(image, JpegImageFile):
                return decode_without_end(file)
            # TIFF's decoder raises at the end, but keeps what it has decoded.
            if ImageFile.LOAD_TRUNCATED_IMAGES and not image.tile:
                return image
            raise
        return on_canvas(image) if isinstance(image, GifImageFile) else image


def orientation(image: Image.Image) -> int:
    """Return what is left of turning an AVIF, HEIC or TIFF image: 1 to 8, as in EXIF 2.32 §4.6.4; 1 for nothing.

    For AVIF, Pillow reports the file's own rotation and mirroring here, and does not apply them itself.
    """
    # Pillow would fall back to XMP where EXIF has none; browsers do not, and neither do AVIF's own rules.
    image.info.pop("xmp", None)
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except _BROKEN:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1  # noqa: PLR2004 — the eight that exist


@contextmanager
def verdicts(need: int = 0) -> Iterator[None]:
    """Turn the errors of a codec into verdicts, except a lack of memory.

    Args:
        need: The bytes of memory that it takes at the most, if it reports a lack of these as damage.

    Raises:
        CorruptImage: in place of every error that broken images cause.
        ImageTooLarge: the decoder refuses the size.
        MemoryError: there was too little.
    """
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ImageTooLarge from error
    except _BROKEN as error:
        if _OUT_OF_MEMORY in str(error) or (need and not is_available(need)):
            raise MemoryError from error
        reason = str(error) or type(error).__name__
        raise CorruptImage(
            f"The file is damaged and cannot be decoded ({reason}). Export the image again and upload the new file."
        ) from error
