"""HEVC: the size of pictures in the sequence parameter sets of a configuration box (ISO 14496-15 §8.3.3.1)."""

from collections.abc import Iterator
from typing import Final

from image_service.imaging.formats.bits import Bits
from image_service.imaging.formats.content import Content, number

_ARRAYS_AT: Final = 22
"""Where in the box the number of arrays stands."""
_PARAMETER_SET: Final = 33
"""The type of a unit that holds a sequence parameter set (ITU-T H.265 table 7-1)."""
_MAX_UNITS: Final = 64
"""Units that are read in all; a box has one of each of three kinds, as a rule."""
_LONGEST_HEAD: Final = 256
"""Bytes of a parameter set that are read: the size stands within the first hundred."""
_UNIT_HEADER: Final = 2
_PROFILE_BITS: Final = 88
_LEVEL_BITS: Final = 8
_SEPARATE_PLANES: Final = 3
"""The chroma format for which one more flag follows."""
_LAYERS: Final = 8


def picture_sizes(content: Content, body: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield width and height of each sequence parameter set in a configuration box; those cut off are left out."""
    position, left = body + _ARRAYS_AT + 1, _MAX_UNITS
    for _ in range(number(content, body + _ARRAYS_AT, 1)):
        kind, count = number(content, position, 1) & 0x3F, number(content, position + 1, 2)
        position += 3
        for _ in range(count):
            start = position + 2
            position = start + number(content, position, 2)
            left -= 1
            if position > end or left < 0:
                return
            if kind == _PARAMETER_SET:
                try:
                    yield _picture_size(content[start : min(position, start + _LONGEST_HEAD)])
                except EOFError:
                    continue


def _picture_size(unit: bytes) -> tuple[int, int]:
    """Return the size in a sequence parameter set (ITU-T H.265 §7.3.2.2).

    Raises:
        EOFError: it is cut off.
    """
    # A byte is inserted wherever the content would look like the start of a unit (§7.4.2).
    bits = Bits(unit[_UNIT_HEADER:].replace(b"\0\0\3", b"\0\0"))
    bits.read(4)
    layers = bits.read(3)
    bits.read(1 + _PROFILE_BITS + _LEVEL_BITS)
    present = [(bits.read(1), bits.read(1)) for _ in range(layers)]
    if layers:
        bits.read(2 * (_LAYERS - layers))
    for profile, level in present:
        bits.read(profile * _PROFILE_BITS + level * _LEVEL_BITS)
    bits.read_exp_golomb()
    if bits.read_exp_golomb() == _SEPARATE_PLANES:
        bits.read(1)
    return bits.read_exp_golomb(), bits.read_exp_golomb()
