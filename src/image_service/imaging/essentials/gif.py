"""GIF: the first frame with its colours and transparency (GIF89a §17 to §24)."""

import re
from typing import Final

_SCREEN_LENGTH: Final = 13
"""Signature and logical screen descriptor."""
_FLAGS: Final = 10
_HAS_COLOUR_TABLE: Final = 0x80
_COLOUR_TABLE_BITS: Final = 0x07
_BLOCK: Final = re.compile(rb"[!,;]")
"""What begins a block; viewers skip anything else between blocks."""
_EXTENSION: Final = b"!"
_IMAGE: Final = b","
_GRAPHIC_CONTROL: Final = b"!\xf9\x04"
"""With the only length that it can have."""


def essentials(content: bytes) -> bytes:
    """The file without the extensions before its first frame, save the one that says what is transparent."""
    flags = content[_FLAGS]
    position = _SCREEN_LENGTH + (3 << (1 + (flags & _COLOUR_TABLE_BITS)) if flags & _HAS_COLOUR_TABLE else 0)
    screen, control = content[:position], b""
    while block := _BLOCK.search(content, position):
        start = block.start()
        if block[0] == _IMAGE:
            return screen + control + content[start:]
        if block[0] != _EXTENSION:
            break
        position = _end_of_sub_blocks(content, start + 2)
        if content.startswith(_GRAPHIC_CONTROL, start):
            control = content[start:position]
    return screen


def _end_of_sub_blocks(content: bytes, position: int) -> int:
    """Where the block goes on that follows the sub-blocks at ``position``, and the empty one that ends them."""
    while position < len(content) and content[position]:
        position += 1 + content[position]
    return position + 1
