"""Pictures of more than eight bits a sample, which Pillow reduces to eight.

PNG with kornia-rs, AVIF with libavif, HEIC with libheif, JPEG XL with libjxl.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from PIL import Image

from image_service.domain.image import ImageFormat
from image_service.imaging.address_space import is_available
from image_service.imaging.decoders import heic, libavif, libjxl
from image_service.imaging.decoders.jxl import JpegXl
from image_service.imaging.decoders.png import decode_samples
from image_service.imaging.formats.heif_colour import has_high_depth
from image_service.imaging.formats.png import chunks, read_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_EIGHT, _DEPTH = 8, 16
"""Bits."""
_KINDS: Final = {0: "mono", 2: "rgb", 6: "rgba"}
"""Image kinds of kornia-rs, which knows no grey with alpha, by PNG colour type."""
_MAX_PIXELS: Final = 16_000_000
"""Larger pictures are decoded with eight bits a sample."""
_MAX_SIDE: Final = 1 << 16
"""So are longer ones: resizing takes 48 bytes for each pixel of a column or row."""
_BYTES_PER_PIXEL: Final = 36
"""What decoding and resizing take: measured were 32 for AVIF with alpha and 30 for PNG. Libraries that do not get as
much end the process, where eight bits a sample take a third."""
_LIBRARIES: Final = 64 << 20
"""What they themselves and NumPy take."""


def is_decodable(opened: Image.Image, content: bytes, image_format: ImageFormat) -> bool:
    """Whether the file has more than eight bits a sample, and there is memory to ``decode`` it.

    Args:
        opened: The file as opened by its decoder.
        content: The file.
        image_format: Its format.
    """
    pixels = opened.width * opened.height
    if pixels > _MAX_PIXELS or max(opened.size) > _MAX_SIDE or not _has_high_depth(opened, content, image_format):
        return False
    return is_available(_LIBRARIES + pixels * _BYTES_PER_PIXEL)


def _has_high_depth(opened: Image.Image, content: bytes, image_format: ImageFormat) -> bool:
    match image_format:
        case ImageFormat.AVIF | ImageFormat.HEIC:
            return has_high_depth(content)
        case ImageFormat.JXL:
            return isinstance(opened, JpegXl) and opened.bits > _EIGHT
        case ImageFormat.PNG:
            header = read_header(content)
            transparent = any(chunk.kind == b"tRNS" for chunk in chunks(content))
            return header.depth == _DEPTH and header.colour in _KINDS and not transparent
        case _:
            return False


def decode(opened: Image.Image, content: bytes, image_format: ImageFormat) -> "NDArray[np.uint16] | None":
    """Return the samples, of shape (height, width, channels); None if the decoder is missing or refuses the file.

    Args:
        opened: A file that ``is_decodable``.
        content: The file.
        image_format: Its format.

    Raises:
        MemoryError: there is too little.
    """
    size, mode = opened.size, opened.mode
    with suppress(libavif.Refused, libjxl.Refused):
        match image_format:
            case ImageFormat.PNG:
                return decode_samples(content, size, _KINDS[read_header(content).colour], _DEPTH)
            case ImageFormat.HEIC:
                return _heic(content, size)
            case ImageFormat.AVIF:
                # Of grey, too: libavif makes no single channel.
                data = libavif.decode(content, size, 4 if mode.endswith("A") else 3)
                return _shaped(data, size)[..., : 1 if mode == "L" else None]
            case _:
                return _shaped(libjxl.decode(content, _DEPTH), size)
    return None


def _heic(content: bytes, size: tuple[int, int]) -> "NDArray[np.uint16] | None":
    with suppress(Exception):
        samples = heic.decode_samples(content)
        if samples.dtype.itemsize * _EIGHT == _DEPTH and samples.shape[1::-1] == size:
            return samples
    return None


def _shaped(data: bytearray, size: tuple[int, int]) -> "NDArray[np.uint16]":
    # Loaded for the first file that needs it: few processes ever get one, and it takes 20 MB.
    import numpy as np  # noqa: PLC0415 — see above

    return np.frombuffer(data, np.uint16).reshape(size[1], size[0], -1)
