"""The part of a file that makes its picture, which is all that a decoder gets to see.

Decoders parse comments, previews, text and animation data in passing, and fail on flaws there that no viewer minds,
or spend seconds and hundreds of megabytes on what is thrown away afterwards. The others keep such things apart.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from image_service.domain.image import ImageFormat
from image_service.imaging.essentials import gif, jpeg, png, tiff

_EXTRACT: Final[dict[ImageFormat, Callable[[bytes], bytes]]] = {
    ImageFormat.JPEG: jpeg.essentials,
    ImageFormat.PNG: png.essentials,
    ImageFormat.GIF: gif.essentials,
    ImageFormat.TIFF: tiff.essentials,
}


def read_essentials(source: Path, image_format: ImageFormat) -> BinaryIO:
    """The file without what its picture does not need, in memory.

    Damage stays as it is: judging it is the decoder's business.

    Args:
        source: A file whose header was inspected.
        image_format: The format it was found to have.

    Raises:
        OSError: the file cannot be read.
    """
    content = source.read_bytes()
    extract = _EXTRACT.get(image_format)
    return io.BytesIO(extract(content) if extract else content)
