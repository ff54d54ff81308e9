"""PNG: the IHDR chunk (PNG specification §11.2.1)."""

import struct
import zlib
from typing import Final

from image_service.imaging.headers.reader import Reader, damaged

_SIGNATURE_LENGTH: Final = 8
_IHDR_LENGTH: Final = 13
_MAX_SIDE: Final = 2**31 - 1
_DEPTHS: Final = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
"""Bit depths allowed for each colour type (table 12)."""


def dimensions(reader: Reader) -> tuple[int, int]:
    """Width and height in pixels.

    Raises:
        CorruptImage: IHDR is not the first chunk, or breaks a rule that every decoder relies on.
    """
    reader.skip(_SIGNATURE_LENGTH)
    if reader.number(4) != _IHDR_LENGTH or (kind := reader.take(4)) != b"IHDR":
        raise damaged("PNG", "it does not begin with IHDR")
    content = reader.take(_IHDR_LENGTH)
    if zlib.crc32(kind + content) != reader.number(4):
        raise damaged("PNG", "the checksum of IHDR is wrong")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", content)
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise damaged("PNG", "IHDR names a kind of image that does not exist")
    if max(width, height) > _MAX_SIDE:
        raise damaged("PNG", "IHDR gives an impossible size")
    return width, height
