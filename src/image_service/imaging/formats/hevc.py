"""HEVC: size and colours of pictures in the sequence parameter sets of a configuration box (ISO 14496-15 §8.3.3.1)."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

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
_OWN_ASPECT: Final = 255


def picture_sizes(content: Content, body: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield width and height of each sequence parameter set in a configuration box; those cut off are left out."""
    for unit in _parameter_sets(content, body, end):
        with suppress(EOFError):
            start = _read_start(_bits(unit))
            yield start.width, start.height


def colours(content: Content, body: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the code points of primaries and transfer function (ITU-T H.273) in a configuration box, where it has any.

    Parameter sets with lists or predictions that pictures hardly ever have are left out.
    """
    for unit in _parameter_sets(content, body, end):
        with suppress(EOFError):
            if found := _read_colour(_bits(unit)):
                yield found


def _parameter_sets(content: Content, body: int, end: int) -> Iterator[bytes]:
    """Yield the beginning of each sequence parameter set in a configuration box."""
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
                yield content[start : min(position, start + _LONGEST_HEAD)]


def _bits(unit: bytes) -> Bits:
    # A byte is inserted wherever the content would look like the start of a unit (§7.4.2).
    return Bits(unit[_UNIT_HEADER:].replace(b"\0\0\3", b"\0\0"))


class _Start(NamedTuple):
    """The beginning of a sequence parameter set."""

    layers: int
    """Temporal layers beside the first."""
    width: int
    height: int


def _read_start(bits: Bits) -> _Start:
    """Read a sequence parameter set up to the size of its pictures (ITU-T H.265 §7.3.2.2).

    Raises:
        EOFError: it is cut off.
    """
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
    return _Start(layers, bits.read_exp_golomb(), bits.read_exp_golomb())


def _read_colour(bits: Bits) -> tuple[int, int] | None:
    """Return the code points in a sequence parameter set; None if it has none (§7.3.2.2 and §E.2.1).

    Raises:
        EOFError: it is cut off, or has parts that are not read.
    """
    layers = _read_start(bits).layers
    if bits.read(1):  # conformance window
        _skip(bits, 4)
    _skip(bits, 2)  # bits a sample
    count_bits = bits.read_exp_golomb() + 4
    _skip(bits, 3 * (layers + 1 if bits.read(1) else 1))  # pictures that are kept
    _skip(bits, 6)  # sizes of blocks
    if bits.read(1) and bits.read(1):  # scaling lists
        raise EOFError
    bits.read(1 + 1)  # asymmetric partitions, sample adaptive offset
    if bits.read(1):  # uncompressed blocks
        bits.read(4 + 4)
        _skip(bits, 2)
        bits.read(1)
    _skip_references(bits, count_bits)
    bits.read(1 + 1)  # motion vectors, smoothing
    if not bits.read(1):  # usability information
        return None
    if bits.read(1) and bits.read(8) == _OWN_ASPECT:
        bits.read(16 + 16)
    if bits.read(1):  # overscan
        bits.read(1)
    if not bits.read(1):  # kind of signal
        return None
    bits.read(3 + 1)
    return (bits.read(8), bits.read(8)) if bits.read(1) else None


def _skip(bits: Bits, count: int) -> None:
    for _ in range(count):
        bits.read_exp_golomb()


def _skip_references(bits: Bits, count_bits: int) -> None:
    """Skip the sets of pictures that others refer to.

    Raises:
        EOFError: they are cut off, or one is predicted from another.
    """
    for index in range(bits.read_exp_golomb()):
        if index and bits.read(1):
            raise EOFError
        for _ in range(bits.read_exp_golomb() + bits.read_exp_golomb()):
            bits.read_exp_golomb()
            bits.read(1)
    if bits.read(1):
        bits.read(bits.read_exp_golomb() * (count_bits + 1))
