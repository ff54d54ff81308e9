"""Pictures of more than eight bits a sample, which Pillow reduces to eight.

PNG with kornia-rs, AVIF with libavif, HEIC with libheif.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from image_service.domain.image import ImageFormat
from image_service.imaging.decoders import heic, libavif
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
"""Larger pictures are decoded with eight bits a sample: three copies of 128 MB are in memory for this one."""


def is_decodable(content: bytes, image_format: ImageFormat, size: tuple[int, int]) -> bool:
    """Whether the file has more than eight bits a sample, and ``decode`` can be tried on it.

    Args:
        content: The file.
        image_format: Its format.
        size: Width and height in pixels.
    """
    if size[0] * size[1] > _MAX_PIXELS:
        return False
    if image_format in {ImageFormat.AVIF, ImageFormat.HEIC}:
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
    if image_format is ImageFormat.HEIC:
        with suppress(Exception):
            samples = heic.decode_samples(content)
            if samples.dtype.itemsize * 8 == _DEPTH and samples.shape[1::-1] == size:
                return samples
        return None
    # Loaded for the first file that needs it: few processes ever get one, and it takes 20 MB.
    import numpy as np  # noqa: PLC0415 — see above

    try:
        data = libavif.decode(content, size, channels := 4 if mode.endswith("A") else 3)
    except libavif.Refused:
        return None
    samples = np.frombuffer(data, np.uint16).reshape(size[1], size[0], channels)
    return samples[..., :1] if mode == "L" else samples
