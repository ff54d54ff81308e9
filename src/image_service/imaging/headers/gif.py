"""GIF: the logical screen and the first image descriptor (GIF89a §18 and §20)."""

import struct
from typing import Final

from image_service.imaging.headers.reader import Reader, damaged

_SIGNATURE_LENGTH: Final = 6
_HAS_COLOUR_TABLE: Final = 0x80
_COLOUR_TABLE_BITS: Final = 0x07
_IMAGE: Final = 0x2C
_EXTENSION: Final = 0x21
_TRAILER: Final = 0x3B
_MAX_BLOCKS: Final = 4096
"""Blocks and sub-blocks looked at before the first image; a comment of a megabyte has that many."""


def dimensions(reader: Reader) -> tuple[int, int]:
    """Width and height in pixels of the logical screen, widened to hold the first frame where that reaches beyond it.

    Raises:
        CorruptImage: the file has no frame, or ends before the first.
    """
    reader.skip(_SIGNATURE_LENGTH)
    width, height, flags = struct.unpack("<HHB", reader.take(5))
    reader.skip(2)
    if flags & _HAS_COLOUR_TABLE:
        reader.skip(3 << (1 + (flags & _COLOUR_TABLE_BITS)))
    left, top, frame_width, frame_height = _first_frame(reader)
    return max(width, left + frame_width), max(height, top + frame_height)


def _first_frame(reader: Reader) -> tuple[int, int, int, int]:
    """Left and upper edge, width and height of the first frame; all zero where it lies beyond reach.

    Then the decoder finds it, or does not: it skips bytes between blocks too.
    """
    in_extension = False
    for _ in range(_MAX_BLOCKS):
        byte = reader.number(1)
        if in_extension:
            in_extension = byte > 0
            reader.skip(byte)
        elif byte == _EXTENSION:
            in_extension = True
            reader.skip(1)
        elif byte == _IMAGE:
            left, top, width, height = struct.unpack("<HHHH", reader.take(8))
            return left, top, width, height
        elif byte == _TRAILER:
            raise damaged("GIF", "it ends without an image")
    return 0, 0, 0, 0
