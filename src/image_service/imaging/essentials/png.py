"""PNG: pixels, palette and transparency, colour profile and orientation (PNG specification §5.3 and §11)."""

import re
import zlib
from collections.abc import Iterator
from typing import Final

from image_service.imaging.colour import MAX_PROFILE_BYTES

_FIRST_CHUNK: Final = 8
"""After the signature."""
_COLOUR_TYPE: Final = 25
"""Where IHDR, the first chunk, gives it."""
_LENGTH_AND_KIND: Final = 8
_CHECKSUM: Final = 4
_KIND: Final = re.compile(rb"[A-Za-z]{4}")
_BEFORE_PIXELS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"IDAT", b"IEND"})
_AFTER_PIXELS: Final = frozenset({b"eXIf", b"IEND"})
_GREY, _RGB, _PALETTE = 0, 2, 3
_TRANSPARENCY_LENGTHS: Final = {_GREY: range(2, 3), _RGB: range(6, 7), _PALETTE: range(1, 257)}
"""Lengths that tRNS can have, by colour type."""


def essentials(content: bytes) -> bytes:
    """The file without text, animation, and whatever is optional and flawed, as viewers see it.

    Of animations the default image stays; scattered pixel chunks are cut off after the first run.
    """
    colour = content[_COLOUR_TYPE]
    kept, wanted, in_pixels = [memoryview(content)[:_FIRST_CHUNK]], _BEFORE_PIXELS, False
    for kind, chunk in chunks(content):
        if kind == b"IDAT":
            in_pixels = True
        elif in_pixels:
            wanted = _AFTER_PIXELS
        if kind in wanted and (_is_critical(kind) or _is_sound(kind, chunk, colour)):
            kept.append(chunk)
    return b"".join(kept)


def chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """The kind and the whole of every chunk, until one has an impossible name; the last may be cut off."""
    position, view = _FIRST_CHUNK, memoryview(content)
    while kind := _KIND.match(content, position + 4):
        end = position + _LENGTH_AND_KIND + int.from_bytes(content[position : position + 4]) + _CHECKSUM
        yield kind[0], view[position:end]
        position = end


def _is_critical(kind: bytes) -> bool:
    """Whether the picture cannot be shown without it, so that its flaws are for the decoder to judge (§5.4)."""
    return kind[:1].isupper()


def _is_sound(kind: bytes, chunk: memoryview, colour: int) -> bool:
    """Whether an optional chunk is complete and makes sense."""
    content, checksum = chunk[_LENGTH_AND_KIND:-_CHECKSUM], int.from_bytes(chunk[-_CHECKSUM:])
    if zlib.crc32(content, zlib.crc32(kind)) != checksum:
        return False
    if kind == b"tRNS":
        return len(content) in _TRANSPARENCY_LENGTHS.get(colour, ())
    return kind != b"iCCP" or _holds_profile(bytes(content))


def _holds_profile(content: bytes) -> bool:
    """Whether an iCCP chunk inflates to a profile of a size that is used."""
    _, _, compressed = content.partition(b"\0")
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(compressed[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return False
    # The byte before names the compression method; there is only one.
    return compressed.startswith(b"\0") and not inflater.unconsumed_tail
