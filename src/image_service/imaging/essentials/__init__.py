"""The part of a file that makes its picture, which is all that a decoder gets to see.

Decoders parse comments, previews, text and animation data in passing, and fail on flaws there that no viewer minds,
or spend seconds and hundreds of megabytes on what is thrown away afterwards. The others keep such things apart.
"""

from collections.abc import Callable
from typing import Final

from image_service.domain.image import ImageFormat
from image_service.imaging.essentials import gif, jpeg, png, tiff

_EXTRACT: Final[dict[ImageFormat, Callable[[bytes], bytes]]] = {
    ImageFormat.JPEG: jpeg.essentials,
    ImageFormat.PNG: png.essentials,
    ImageFormat.GIF: gif.essentials,
    ImageFormat.TIFF: tiff.essentials,
}


def essentials(content: bytes, image_format: ImageFormat) -> bytes:
    """The file without what its picture does not need.

    Damage stays as it is: judging it is the decoder's business.

    Args:
        content: A file whose header was inspected.
        image_format: The format it was found to have.
    """
    extract = _EXTRACT.get(image_format)
    return extract(content) if extract else content
