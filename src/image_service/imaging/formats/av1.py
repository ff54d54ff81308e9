"""AV1: the units of a bitstream (OBUs), and the size of frames in sequence headers (AV1 specification §5.3 to §5.5)."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from image_service.imaging.formats.bits import Bits
from image_service.imaging.formats.content import Content

_SEQUENCE_HEADER: Final = 1
"""The type of a unit that holds a sequence header."""
_EXTENDED: Final = 0x04
_HAS_SIZE: Final = 0x02
"""Flags in a unit's first byte."""
_LONGEST_SIZE: Final = 8
"""Bytes that a size field can have (leb128, §4.10.5)."""
_LONGEST_HEADER: Final = 512
"""Bytes of a sequence header that are read; one of 32 operating points has less than 300."""
_TIERED_LEVEL: Final = 7
"""The last level without a tier."""


class Unit(NamedTuple):
    """An open bitstream unit, or OBU."""

    kind: int
    body: int
    """Where its content begins."""
    end: int


def units(content: Content) -> Iterator[Unit]:
    """Yield the units in a stream; the last may be cut off."""
    position, length = 0, len(content)
    while position < length:
        head = content[position : position + 2 + _LONGEST_SIZE]
        if not head:
            return
        at = 2 if head[0] & _EXTENDED else 1
        size = length - position - at
        if head[0] & _HAS_SIZE:
            size = 0
            for index, byte in enumerate(head[at : at + _LONGEST_SIZE]):
                size |= (byte & 0x7F) << (7 * index)
                at += 1
                if not byte & 0x80:
                    break
        yield Unit(head[0] >> 3 & 0x0F, position + at, position + at + size)
        position += at + size


def frame_size(content: Content, unit: Unit) -> tuple[int, int] | None:
    """Return the largest width and height that the unit allows frames to have; None if it is no sequence header.

    Nor if it is cut off: no frame can be decoded with it.
    """
    if unit.kind != _SEQUENCE_HEADER:
        return None
    try:
        return _read_size(Bits(content[unit.body : min(unit.end, unit.body + _LONGEST_HEADER)]))
    except EOFError:
        return None


def _read_size(bits: Bits) -> tuple[int, int]:
    """Return the size in a sequence header (§5.5.1).

    Raises:
        EOFError: it is cut off.
    """
    bits.read(3 + 1)  # profile, still picture
    if bits.read(1):  # reduced: a single operating point, of which only the level is given
        bits.read(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = 1 + bits.read(4), 1 + bits.read(4)
    return 1 + bits.read(width_bits), 1 + bits.read(height_bits)


def _skip_operating_points(bits: Bits) -> None:
    delay_length = 0
    if bits.read(1):  # timing information (§5.5.3)
        bits.read(32 + 32)
        if bits.read(1):
            bits.read_exp_golomb()
        if bits.read(1):  # decoder model (§5.5.4)
            delay_length = 1 + bits.read(5)
            bits.read(32 + 5 + 5)
    display_delays = bits.read(1)
    for _ in range(1 + bits.read(5)):
        bits.read(12)
        if bits.read(5) > _TIERED_LEVEL:
            bits.read(1)
        if delay_length and bits.read(1):
            bits.read(delay_length + delay_length + 1)
        if display_delays and bits.read(1):
            bits.read(4)
