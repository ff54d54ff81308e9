"""From a file to pixels: the only place that meets a decoder."""

import hashlib
import io
import mmap
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
from image_service.imaging.colour import MAX_PROFILE_BYTES
from image_service.imaging.decoders.heic import open_heic
from image_service.imaging.decoders.jpeg import Jpeg
from image_service.imaging.decoders.png import Png
from image_service.imaging.decoders.tiff import open_tiff
from image_service.imaging.decoders.webp import open_webp
from image_service.imaging.scans import ends_in_scan

_DECODERS: Final[dict[ImageFormat, Callable[[BinaryIO], ImageFile.ImageFile]]] = {
    ImageFormat.JPEG: Jpeg,
    ImageFormat.PNG: Png,
    ImageFormat.GIF: GifImageFile,
    ImageFormat.WEBP: open_webp,
    ImageFormat.AVIF: AvifImageFile,
    ImageFormat.HEIC: open_heic,
    ImageFormat.TIFF: open_tiff,
    ImageFormat.BMP: BmpImageFile,
}
"""The decoder of each format, named outright: no other can ever be reached, whatever a file's content suggests."""

_FILLED: Final = frozenset({ImageFormat.JPEG, ImageFormat.PNG, ImageFormat.GIF, ImageFormat.TIFF, ImageFormat.BMP})
"""Formats whose decoders keep what they could make of a truncated file; the others make all of it or nothing."""

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
"""What Pillow's parsers were seen to raise on malformed files."""

_TRANSPARENCY_SCALE: Final[dict[str, Callable[[int], int]]] = {
    "L;2": lambda value: value * 85,
    "L;4": lambda value: value * 17,
    "RGB;16B": lambda value: value >> 8,
}
"""From a PNG's transparent sample at its own depth to the 8 bits that Pillow decodes it to, by Pillow raw mode."""

# Also the limit on profiles, which are the only compressed metadata that is still there when Pillow sees the file.
PngImagePlugin.MAX_TEXT_CHUNK = MAX_PROFILE_BYTES

_END_OF_IMAGE: Final = b"\xff\xd9"
_NOISE: Final = bytes((37 * index + 11) % 251 for index in range(512))
_STRIP: Final = 64


_BYTES_PER_PIXEL: Final = 18
"""What the hungriest format takes to decode: lossless WebP with transparency."""


@contextmanager
def tolerance(image_format: ImageFormat, *, truncated: bool) -> Iterator[None]:
    """Whether files of the format may be incomplete meanwhile, as far as the process is concerned."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = truncated and image_format in _FILLED
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def open_image(file: BinaryIO, header: ImageHeader) -> ImageFile.ImageFile:
    """The file's first frame, not decoded yet.

    Raises:
        CorruptImage: the decoder makes nothing of the file.
        ImageTooLarge: the decoder refuses its size.
        MemoryError: there is too little.
    """
    with verdicts(header.width * header.height):
        image = _DECODERS[header.format](file)
        if header.format is ImageFormat.PNG:
            _mend_transparency(image)
        return image


def shrink_on_load(image: ImageFile.ImageFile, width: int, height: int) -> tuple[float, float, float, float]:
    """Let the decoder skip detail that is not needed for an image of the given size, if it can.

    How much it has to keep beyond that is the decoder's business.

    Returns:
        The area that the picture will fill once decoded: left, upper, right and lower edge in pixels.
    """
    drafted = image.draft(None, (width, height))
    return drafted[1] if drafted else (0, 0, *image.size)


def decode(image: ImageFile.ImageFile, file: BinaryIO) -> Image.Image:
    """The decoded first frame.

    Raises:
        CorruptImage: the pixel data is damaged or incomplete.
        ImageTooLarge: the decoder refuses its size.
        MemoryError: there is too little.
    """
    with verdicts(image.width * image.height):
        try:
            image.load()
        except OSError:
            if isinstance(image, JpegImageFile):
                return _decode_without_end(file)
            # TIFF's decoder complains in the end, but leaves what it has made.
            if ImageFile.LOAD_TRUNCATED_IMAGES and not image.tile:
                return image
            raise
        return _on_canvas(image) if isinstance(image, GifImageFile) else image


def orientation(image: Image.Image) -> int:
    """How the decoded image is to be turned: 1 to 8, as in EXIF 2.32 §4.6.4; 1 where nothing sensible is said.

    For AVIF, Pillow reports the file's own rotation and mirroring here instead, and does not apply them itself.
    """
    # Pillow would ask XMP where EXIF says nothing; browsers do not, and neither do AVIF's own rules.
    image.info.pop("xmp", None)
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except _BROKEN:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1  # noqa: PLR2004 — the eight that exist


def _on_canvas(image: GifImageFile) -> Image.Image:
    """A GIF's first frame, with nothing around it: Pillow puts the palette's first colour there.

    Except where the frame has a transparent colour, which Pillow takes for the rest of the canvas too.
    """
    area = image.dispose_extent
    if area is None or area == (0, 0, *image.size) or "transparency" in image.info:
        return image
    canvas = Image.new("RGBA", image.size)
    canvas.paste(image.crop(area).convert("RGBA"), area)
    return canvas


@contextmanager
def verdicts(pixels: int) -> Iterator[None]:
    """Turns whatever a codec raises about an image of so many pixels into a verdict; running out of memory is none.

    Raises:
        CorruptImage: in place of anything that broken images cause.
        ImageTooLarge: the decoder refuses the size.
        MemoryError: there was too little.
    """
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ImageTooLarge from error
    except _BROKEN as error:
        # The WebP and AVIF decoders report a lack of memory as damage.
        if not _available(pixels * _BYTES_PER_PIXEL):
            raise MemoryError from error
        reason = str(error) or type(error).__name__
        raise CorruptImage(
            f"The file is damaged and cannot be decoded ({reason}). Export the image again and upload the new file."
        ) from error


def _available(size: int) -> bool:
    """Whether the process may have so many bytes more."""
    try:
        mmap.mmap(-1, size).close()
    except OSError:
        return False
    return True


def _mend_transparency(image: ImageFile.ImageFile) -> None:
    """Bring a PNG's transparent colour to the depth of the decoded image, which Pillow forgets to do."""
    scale = _TRANSPARENCY_SCALE.get(str(image.tile[0].args)) if image.tile else None
    match image.info.get("transparency"), scale:
        case int(value), Callable() as scaled:
            image.info["transparency"] = scaled(value)
        case tuple(values), Callable() as scaled:
            image.info["transparency"] = tuple(scaled(value) for value in values)


def _decode_without_end(file: BinaryIO) -> Image.Image:
    """A JPEG file that only lacks its end marker, at full size.

    libjpeg fills what is missing, and does not say so through Pillow. But if nothing is, whatever follows the file's
    last byte leaves the picture as it is.

    Raises:
        OSError: the picture itself is incomplete.
    """
    file.seek(0)
    data = file.read()
    if not ends_in_scan(data):
        raise OSError("the file ends between two scans")
    # One after the other: at full size, a second picture is hundreds of megabytes.
    expected = _digest(_load(data + _NOISE + _END_OF_IMAGE))
    plain = _load(data + _END_OF_IMAGE)
    if _digest(plain) != expected:
        raise OSError("the picture ends before its last row")
    return plain


def _load(data: bytes) -> Image.Image:
    image = JpegImageFile(io.BytesIO(data))
    image.load()
    return image


def _digest(image: Image.Image) -> bytes:
    """A digest of the pixels, taken in strips: the bytes of the whole would need as much memory again."""
    digest = hashlib.sha256()
    for top in range(0, image.height, _STRIP):
        digest.update(image.crop((0, top, image.width, min(top + _STRIP, image.height))).tobytes())
    return digest.digest()
