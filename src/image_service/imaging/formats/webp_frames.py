"""WebP: the frames of an animation (RFC 9649 §2.7.1.1)."""

import struct
from collections.abc import Iterator
from typing import Final

from image_service.imaging.formats.animation import Disposal, Frame, Place, shown_for
from image_service.imaging.formats.webp import ALPHA, Chunk, chunks

_HEAD: Final = 16
"""Bytes of an ANMF chunk before the frame's own chunks."""
_PARTS: Final = (b"ALPH", b"VP8 ", b"VP8L")
_CLEAR, _REPLACE = 1, 2
"""Flags."""
_COUNT: Final = slice(4, 6)


def plays(content: bytes) -> int | None:
    """Return how many times the animation is shown, zero for ever; None if the file announces no animation."""
    for chunk in chunks(content):
        if chunk.kind == b"ANIM":
            return int.from_bytes(content[chunk.body : chunk.end][_COUNT], "little")
    return None


def places(content: bytes) -> Iterator[Place]:
    """Yield where the frames are drawn."""
    for chunk in _frame_chunks(content):
        yield _place(content, chunk)


def frames(content: bytes) -> Iterator[Frame]:
    """Yield the frames; one that is cut off ends them."""
    for chunk in _frame_chunks(content):
        flags = content[chunk.body + _HEAD - 1]
        place = _place(content, chunk)
        yield Frame(
            place=place,
            milliseconds=shown_for(int.from_bytes(content[chunk.body + 12 : chunk.body + 15], "little")),
            disposal=Disposal.CLEAR if flags & _CLEAR else Disposal.KEEP,
            blend=not flags & _REPLACE,
            still=_still(content[chunk.body + _HEAD : chunk.end], place),
        )


def _frame_chunks(content: bytes) -> Iterator[Chunk]:
    for chunk in chunks(content):
        if chunk.kind == b"ANMF" and chunk.body + _HEAD <= chunk.end <= len(content):
            yield chunk


def _place(content: bytes, chunk: Chunk) -> Place:
    numbers = (int.from_bytes(content[at : at + 3], "little") for at in range(chunk.body, chunk.body + 12, 3))
    left, top, width, height = numbers
    return Place(2 * left, 2 * top, width + 1, height + 1)


def _still(parts: bytes, place: Place) -> bytes:
    """Return the chunks of a frame as a file."""
    # The reader of chunks begins behind a header.
    shifted = bytes(12) + parts
    wanted = [each for each in chunks(shifted) if each.kind in _PARTS and each.next <= len(shifted)]
    body = b"".join(shifted[each.start : each.next] for each in wanted)
    if any(each.kind == b"ALPH" for each in wanted):
        sides = (place.width - 1).to_bytes(3, "little") + (place.height - 1).to_bytes(3, "little")
        body = b"VP8X" + struct.pack("<IB3x", 10, ALPHA) + sides + body
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
