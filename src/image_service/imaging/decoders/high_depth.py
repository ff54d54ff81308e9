"""Pictures of more than eight bits a sample, which Pillow reduces to eight: PNG with kornia-rs, AVIF with libavif."""

from typing import TYPE_CHECKING, Final

from image_service.domain.image import ImageFormat
from image_service.imaging.address_space import is_available
from image_service.imaging.decoders import libavif
from image_service.imaging.decoders.png import decode_samples
from image_service.imaging.formats.heif_colour import has_high_depth
from image_service.imaging.formats.png import chunks, read_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DEPTH: Final = 16
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


def is_decodable(content: bytes, image_format: ImageFormat, size: tuple[int, int]) -> bool:
    """Whether the file has more than eight bits a sample, and there is memory to ``decode`` it.

    Args:
        content: The file.
        image_format: Its format.
        size: Width and height in pixels.
    """
    pixels = size[0] * size[1]
    if pixels > _MAX_PIXELS or max(size) > _MAX_SIDE or not _has_high_depth(content, image_format):
        return False
    return is_available(_LIBRARIES + pixels * _BYTES_PER_PIXEL)


def _has_high_depth(content: bytes, image_format: ImageFormat) -> bool:
    if image_format is ImageFormat.AVIF:
        return has_high_depth(content)
    if image_format is not ImageFormat.PNG:
        return False
    header = read_header(content)
    transparent = any(chunk.kind == b"tRNS" for chunk in chunks(content))
    return header.depth == _DEPTH and header.colour in _KINDS and not transparent


def decode(content: bytes, image_format: ImageFormat, size: tuple[int, int], mode: str) -> "NDArray[np.uint16] | None":
    """Return the samples, of shape (height, width, channels); None if the decoder is missing or refuses the file.

    Args:
        content: A file that ``is_decodable``.
        image_format: Its format.
        size: Width and height in pixels.
        mode: The mode in which Pillow would decode it.

    Raises:
        MemoryError: there is too little.
    """
    if image_format is ImageFormat.PNG:
        return decode_samples(content, size, _KINDS[read_header(content).colour], _DEPTH)
    # Loaded for the first file that needs it: few processes ever get one, and it takes 20 MB.
    import numpy as np  # noqa: PLC0415 — see above

    try:
        data = libavif.decode(content, size, channels := 4 if mode.endswith("A") else 3)
    except libavif.Refused:
        return None
    samples = np.frombuffer(data, np.uint16).reshape(size[1], size[0], channels)
    return samples[..., :1] if mode == "L" else samples
