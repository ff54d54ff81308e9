"""BMP: the information header, of Windows or of OS/2."""

import struct
from typing import Final

from image_service.imaging.headers.reader import Reader, damaged

HEADER_AT: Final = 14
"""Where the information header begins, in bytes from the start of the file."""
HEADER_LENGTHS: Final = frozenset({12, 40, 52, 56, 64, 108, 124})
"""The lengths that the information header can have; it begins with its own, in four bytes."""
_CORE_LENGTH: Final = 12


def dimensions(reader: Reader) -> tuple[int, int]:
    """Width and height in pixels. A negative height says that the rows begin at the top.

    Raises:
        CorruptImage: the width is negative.
    """
    reader.skip(HEADER_AT)
    (length,) = struct.unpack("<I", reader.take(4))
    if length == _CORE_LENGTH:
        width, height = struct.unpack("<HH", reader.take(4))
    else:
        width, height = struct.unpack("<ii", reader.take(8))
    if width < 0:
        raise damaged("BMP", "the width is negative")
    return width, abs(height)
