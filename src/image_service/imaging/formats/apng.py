"""PNG: the frames of an animation (PNG, third edition, §11.3.6)."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from image_service.imaging.formats.animation import Disposal, Frame, Place, shown_for
from image_service.imaging.formats.content import number
from image_service.imaging.formats.png import Chunk, chunks, strip

_SIGNATURE: Final = slice(0, 8)
_CONTROL_LENGTH: Final = 26
_ANIMATION_LENGTH: Final = 8
_SEQUENCE_LENGTH: Final = 4
_DISPOSALS: Final = (Disposal.KEEP, Disposal.CLEAR, Disposal.RESTORE)
_OVER: Final = 1
_HUNDREDTHS: Final = 100
"""What a delay's denominator of zero stands for."""
_SHARED: Final = (b"PLTE", b"tRNS")
"""Chunks before the pixels that all frames need. The first of each counts."""
_LONGEST_SHARED: Final = 12 + 3 * 256
"""Bytes of a palette of all colours."""


@dataclass(slots=True)
class _Control:
    """A fcTL chunk, and the pixels that belong to it."""

    place: Place
    milliseconds: float
    disposal: Disposal
    blend: bool
    pixels: list[Chunk] = field(default_factory=list)


def plays(content: bytes) -> int | None:
    """Return how many times the animation is shown, zero for ever; None if the file announces no animation."""
    for chunk in chunks(content):
        if chunk.kind == b"IDAT":
            break
        if chunk.kind == b"acTL" and chunk.body.stop - chunk.body.start == _ANIMATION_LENGTH:
            return number(content, chunk.body.start + 4, 4)
    return None


def places(content: bytes) -> Iterator[Place]:
    """Yield where the frames are drawn."""
    for control in _controls(content):
        yield control.place


def frames(content: bytes) -> Iterator[Frame]:
    """Yield the frames; a damaged chunk ends them."""
    header = next(chunks(content))
    shared = _shared(content)
    start, rest = content[_SIGNATURE], content[header.body][8:]
    for control in _controls(content):
        pixels = [_pixels(content, each) for each in control.pixels]
        if None in pixels:
            return
        size = struct.pack(">II", control.place.width, control.place.height)
        parts = [start, _chunk(b"IHDR", size + rest), shared, *filter(None, pixels), _chunk(b"IEND", b"")]
        yield Frame(
            place=control.place,
            milliseconds=control.milliseconds,
            disposal=control.disposal,
            blend=control.blend,
            still=strip(b"".join(parts)),
        )


def _shared(content: bytes) -> bytes:
    """Return the chunks that all frames need."""
    found: dict[bytes, bytes] = {}
    for chunk in chunks(content):
        if chunk.kind in {b"IDAT", b"fdAT"}:
            break
        if chunk.kind in _SHARED and chunk.end - chunk.start <= _LONGEST_SHARED:
            found.setdefault(chunk.kind, content[chunk.start : chunk.end])
    return b"".join(found[kind] for kind in _SHARED if kind in found)


def _controls(content: bytes) -> Iterator[_Control]:
    """Yield the frames' descriptions, up to one that is not in order, or that is not inside the canvas."""
    width, height = number(content, 16, 4), number(content, 20, 4)
    control, sequence = None, 0
    for chunk in chunks(content):
        if chunk.kind in {b"fcTL", b"fdAT"}:
            if chunk.end > len(content) or number(content, chunk.body.start, _SEQUENCE_LENGTH) != sequence:
                break
            sequence += 1
        if chunk.kind == b"fcTL":
            if control and control.pixels:
                yield control
            control = _read_control(content[chunk.body], width, height)
            if control is None:
                return
        elif control and chunk.kind in {b"IDAT", b"fdAT"}:
            control.pixels.append(chunk)
        elif chunk.kind == b"IEND":
            break
    if control and control.pixels:
        yield control


def _read_control(body: bytes, width: int, height: int) -> _Control | None:
    if len(body) != _CONTROL_LENGTH:
        return None
    across, down, left, top, delay, unit, disposal, blending = struct.unpack(">IIIIHHBB", body[_SEQUENCE_LENGTH:])
    if not across or not down or left + across > width or top + down > height or disposal >= len(_DISPOSALS):
        return None
    return _Control(
        place=Place(left, top, across, down),
        milliseconds=shown_for(1000 * delay / (unit or _HUNDREDTHS)),
        disposal=_DISPOSALS[disposal],
        blend=blending == _OVER,
    )


def _pixels(content: bytes, chunk: Chunk) -> bytes | None:
    """Return the pixels as an IDAT chunk; None if the chunk is damaged."""
    if chunk.kind == b"IDAT":
        # The decoder checks it.
        return content[chunk.start : chunk.end]
    body = content[chunk.body]
    if zlib.crc32(chunk.kind + body) != number(content, chunk.body.stop, 4):
        return None
    return _chunk(b"IDAT", body[_SEQUENCE_LENGTH:])


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
