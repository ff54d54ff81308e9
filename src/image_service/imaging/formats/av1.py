"""AV1: the units of a bitstream (OBUs), and the size of frames in sequence headers (AV1 specification §5.3 to §5.5)."""

from collections.abc import Callable, Iterator
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
_HIGH, _PROFESSIONAL = 1, 2
"""Profiles of the specification (annex A)."""
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
    return _read(content, unit, _read_size)


def colour(content: Content, unit: Unit) -> tuple[int, int] | None:
    """Return the code points of primaries and transfer function (ITU-T H.273) that the unit gives; None if none."""
    return _read(content, unit, _read_colour)


def _read(content: Content, unit: Unit, reader: Callable[[Bits], tuple[int, int] | None]) -> tuple[int, int] | None:
    """Return what the reader finds in the unit; None if that is no sequence header, or cut off."""
    if unit.kind != _SEQUENCE_HEADER:
        return None
    try:
        return reader(Bits(content[unit.body : min(unit.end, unit.body + _LONGEST_HEADER)]))
    except EOFError:
        return None


class _Start(NamedTuple):
    """The beginning of a sequence header."""

    profile: int
    reduced: int
    """Whether the stream is a single picture, described in fewer fields."""
    width: int
    height: int


def _read_start(bits: Bits) -> _Start:
    """Read a sequence header up to the size of its frames (§5.5.1).

    Raises:
        EOFError: it is cut off.
    """
    profile, _, reduced = bits.read(3), bits.read(1), bits.read(1)
    if reduced:  # a single operating point, of which only the level is given
        bits.read(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = 1 + bits.read(4), 1 + bits.read(4)
    return _Start(profile, reduced, 1 + bits.read(width_bits), 1 + bits.read(height_bits))


def _read_size(bits: Bits) -> tuple[int, int]:
    start = _read_start(bits)
    return start.width, start.height


def _read_colour(bits: Bits) -> tuple[int, int] | None:
    """Return the code points in a sequence header; None if it has no description of colours (§5.5.1 and §5.5.2).

    Raises:
        EOFError: it is cut off.
    """
    start = _read_start(bits)
    if not start.reduced and bits.read(1):  # frame numbers
        bits.read(4 + 3)
    bits.read(1 + 1 + 1)  # large superblocks, filter intra, intra edge filter
    if not start.reduced:
        _skip_inter_tools(bits)
    bits.read(1 + 1 + 1)  # super resolution, directional enhancement, loop restoration
    if bits.read(1) and start.profile == _PROFESSIONAL:  # more than eight bits
        bits.read(1)
    if start.profile != _HIGH:
        bits.read(1)  # monochrome
    return (bits.read(8), bits.read(8)) if bits.read(1) else None


def _skip_inter_tools(bits: Bits) -> None:
    bits.read(1 + 1 + 1 + 1)  # compound prediction, warped motion, dual filter
    order_hints = bits.read(1)
    if order_hints:
        bits.read(1 + 1)
    choose_tools = bits.read(1)
    # Tools for screen content are left open, or switched on.
    if (choose_tools or bits.read(1)) and not bits.read(1):
        bits.read(1)  # integer motion vectors
    if order_hints:
        bits.read(3)


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
