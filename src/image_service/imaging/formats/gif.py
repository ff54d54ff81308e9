"""GIF: extension and image blocks (GIF89a §17 to §27)."""

import re
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from image_service.domain.image import MetadataKind
from image_service.imaging.formats.content import Content, cut_off, damaged, take, too_many
from image_service.imaging.formats.metadata import Metadata

_STEPS_TO_FRAME: Final = 4096
"""Blocks, sub-blocks and bytes of junk before the first image of a file on disk; a comment of a megabyte takes them."""
_STEPS_FOR_METADATA: Final = 10_000
_STEPS_TO_STRIP: Final = 1 << 17
"""The same in memory, where a step takes up to a microsecond; a comment of 30 MB takes as many."""

_SCREEN: Final = 6
"""Where the logical screen descriptor begins: after the signature."""
_SCREEN_LENGTH: Final = 7
_DESCRIPTOR_LENGTH: Final = 10
_HAS_COLOUR_TABLE: Final = 0x80
_COLOUR_TABLE_BITS: Final = 0x07

_EXTENSION: Final = b"!"
_IMAGE: Final = b","
_TRAILER: Final = b";"
_UNREAD: Final = b""
"""What comes last where a file has more blocks than are read."""
_BLOCK: Final = re.compile(rb"[!,;]")
"""What begins a block; viewers skip anything else between blocks."""
_PIECE: Final = 1 << 15
"""Bytes of junk that are searched for a block at a time."""

_GRAPHIC_CONTROL: Final = b"!\xf9\x04"
"""With the only length that it can have."""
_APPLICATION_LABEL: Final = 14
_KINDS: Final = {
    b"!\x01": MetadataKind.TEXT,
    b"!\xfe": MetadataKind.COMMENT,
    b"!\xff\x0bXMP DataXMP": MetadataKind.XMP,
    b"!\xff\x0bICCRGBG1012": MetadataKind.ICC,
}


class Block(NamedTuple):
    """An extension, an image, or the trailer."""

    introducer: bytes
    """``!``, ``,`` or ``;``; nothing for the rest of a file that was not read to its end."""
    start: int
    end: int
    """For an image: where its pixels begin, as they are passed only if the next block is asked for."""


class Frame(NamedTuple):
    """The first frame of a file."""

    width: int
    """In pixels."""
    height: int
    end: int
    """Where its pixels begin: after the code size."""


def blocks(content: Content, max_steps: int) -> Iterator[Block]:
    """Yield the blocks up to the trailer or the end of the file.

    Args:
        content: A GIF file.
        max_steps: Blocks, sub-blocks and bytes between blocks that are read. Beyond these, an unread rest is yielded.
    """
    position, steps = _first_block(content), 0
    while steps < max_steps:
        introducer = content[position : position + 1]
        if not introducer:
            return
        if not _BLOCK.match(introducer):
            junk = content[position : position + min(_PIECE, max_steps - steps)]
            found = _BLOCK.search(junk)
            skipped = found.start() if found else len(junk)
            position, steps = position + skipped, steps + skipped
            continue
        start, position, steps = position, position + 2, steps + 1
        if introducer == _TRAILER:
            yield Block(introducer, start, start + 1)
            return
        if introducer == _IMAGE:
            descriptor = content[start : start + _DESCRIPTOR_LENGTH]
            # One byte more: the code size of the pixels.
            position = start + _DESCRIPTOR_LENGTH + colour_table(descriptor[-1:]) + 1
            yield Block(introducer, start, position)
        while steps < max_steps and (length := content[position : position + 1]) > b"\0":
            position, steps = position + 1 + length[0], steps + 1
        position += 1
        if introducer == _EXTENSION:
            yield Block(introducer, start, position)
    yield Block(_UNREAD, position, len(content))


def _first_block(content: Content) -> int:
    """Return where blocks can begin: after the logical screen descriptor and its colour table."""
    return _SCREEN + _SCREEN_LENGTH + colour_table(content[_SCREEN + 4 : _SCREEN + 5])


def colour_table(flags: bytes) -> int:
    """Return the length in bytes of the colour table that follows a descriptor with these flags; zero if none does."""
    return 3 << (1 + (flags[0] & _COLOUR_TABLE_BITS)) if flags and flags[0] & _HAS_COLOUR_TABLE else 0


def dimensions(content: Content) -> tuple[int, int]:
    """Return width and height in pixels of the logical screen, enlarged to hold the first frame where that exceeds it.

    Where the first frame is out of reach, the screen alone counts: the decoder finds the frame, or does not.

    Raises:
        CorruptImage: the file has no frame, or ends before the first.
    """
    width, height = struct.unpack("<HH", take(content, _SCREEN, _SCREEN_LENGTH)[:4])
    for block in blocks(content, _STEPS_TO_FRAME):
        if block.introducer == _UNREAD:
            return width, height
        if block.introducer == _TRAILER:
            raise damaged("GIF", "it ends without an image")
        if block.introducer == _IMAGE:
            left, top, across, down = struct.unpack("<HHHH", take(content, block.start + 1, 8))
            return max(width, left + across), max(height, top + down)
    raise cut_off()


def first_frame(content: bytes) -> Frame | None:
    """Return the first frame of a file without extensions before it; None if there is none."""
    for block in blocks(content, _STEPS_TO_FRAME):
        if block.introducer == _IMAGE:
            width, height = struct.unpack("<HH", take(content, block.start + 5, 4))
            return Frame(width, height, block.end)
    return None


def metadata(content: bytes) -> Iterator[Metadata]:
    """Yield the metadata in the extensions, which may stand before, between and after the frames."""
    for block in blocks(content, _STEPS_FOR_METADATA):
        label = content[block.start : min(block.end, block.start + _APPLICATION_LABEL)]
        if block.introducer == _EXTENSION and (kind := _KINDS.get(label[:2]) or _KINDS.get(label)):
            yield Metadata(kind, block.start, block.end)


def strip(content: bytes) -> bytes:
    """Return the file without the extensions before its first frame, save the one that says what is transparent.

    Of a file without a frame, only the screen is left.

    Raises:
        ImageTooLarge: more than ``_STEPS_TO_STRIP`` blocks, sub-blocks and bytes of junk stand before the first frame.
    """
    screen, control = content[: _first_block(content)], b""
    for block in blocks(content, _STEPS_TO_STRIP):
        if block.introducer == _IMAGE:
            return screen + control + content[block.start :]
        if block.introducer == _UNREAD:
            raise too_many("blocks before its first frame", _STEPS_TO_STRIP)
        if content.startswith(_GRAPHIC_CONTROL, block.start):
            control = content[block.start : block.end]
    return screen
