"""ICC profiles of colour spaces: written for LittleCMS, and read for the curves that it does not give away.

Source: ICC.1:2022, §7 (the file) and §10 (the kinds of tags).
"""

import struct
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

from image_service.imaging.formats.colour import tags
from image_service.imaging.render.colour.spaces import Curve, Matrix, transposed

_HEADER: Final = 128
_VERSION: Final = 0x04400000
_FIXED: Final = 65536
"""By what numbers with 16 bits after the point are multiplied."""
_MAX_FIXED: Final = 32767
_MAX_TABLE: Final = 65536
"""Entries of a curve that are read; more would not fit into 16 bits."""
_CHANNELS: Final = (b"r", b"g", b"b")
_TABLES: Final = frozenset({b"A2B0", b"A2B1", b"D2B0", b"D2B1"})
"""Tags of profiles that are no matrix."""
_PARAMETERS: Final = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}
"""The number of parameters of each kind of parametric curve."""

Table: TypeAlias = tuple[int, ...]
"""Light, in units of 1/65535, at equal distances of the sample."""


class MatrixProfile(NamedTuple):
    """A profile of three primaries, or of grey."""

    to_d50: Matrix | None
    """From light to XYZ; None for grey."""
    curves: tuple[Curve | Table, ...]
    """One for each channel."""


def write(curve: Curve, to_d50: Matrix | None) -> bytes:
    """Return a profile of the space with these primaries and this curve; of grey, if there are no primaries.

    Raises:
        ValueError: a number is too large for a profile.
    """
    numbers = (*curve, *(value for row in to_d50 or () for value in row))
    if not all(abs(number) < _MAX_FIXED for number in numbers):
        raise ValueError("a colour space that no profile can describe")
    tone = b"para" + struct.pack(">4xH2x7i", 4, *(round(number * _FIXED) for number in curve))
    if to_d50 is None:
        return _file(b"GRAY", {b"kTRC": tone})
    columns = transposed(to_d50)
    tags = {name + b"XYZ": _xyz(column) for name, column in zip(_CHANNELS, columns, strict=True)}
    return _file(b"RGB ", tags | {name + b"TRC": tone for name in _CHANNELS})


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + struct.pack(">4x3i", *(round(value * _FIXED) for value in values))


def _file(space: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    position, table, bodies = _HEADER + 4 + 12 * len(tags), [], []
    for name, body in tags.items():
        table.append(struct.pack(">4sII", name, position, len(body)))
        bodies.append(body)
        position += len(body)
    head = struct.pack(">I4sI4s4s4s12x4s", position, b"", _VERSION, b"mntr", space, b"XYZ ", b"acsp")
    return b"".join((head.ljust(_HEADER, b"\0"), struct.pack(">I", len(tags)), *table, *bodies))


def read(content: bytes) -> MatrixProfile | None:
    """Return the matrix and curves of a profile; None if it works with tables of colours, or is malformed."""
    places = {name: (start, length) for name, start, length in reversed(list(tags(content)))}
    if not _TABLES.isdisjoint(places):
        return None

    def body(name: bytes) -> memoryview:
        # No copy: each tag can be the whole profile.
        start, length = places[name]
        return memoryview(content)[start : start + length]

    try:
        if content[16:20] == b"GRAY":
            return MatrixProfile(None, (_curve(body(b"kTRC")),))
        if content[16:24] == b"RGB XYZ ":
            columns = [struct.unpack_from(">8x3i", body(name + b"XYZ")) for name in _CHANNELS]
            red, green, blue = ((x / _FIXED, y / _FIXED, z / _FIXED) for x, y, z in columns)
            curves = tuple(_curve(body(name + b"TRC")) for name in _CHANNELS)
            return MatrixProfile(transposed((red, green, blue)), curves)
    except (KeyError, struct.error):
        pass
    return None


def _curve(body: memoryview) -> Curve | Table:
    """Return a tone curve (§10.6 and §10.18).

    Raises:
        KeyError: it is of another kind.
        struct.error: it is cut off.
    """
    return {b"curv": _sampled, b"para": _parametric}[bytes(body[:4])](body)


def _sampled(body: memoryview) -> Curve | Table:
    (count,) = struct.unpack_from(">8xI", body)
    if count == 0:
        return Curve(1.0)
    if count == 1:
        return Curve(struct.unpack_from(">12xH", body)[0] / 256)
    return struct.unpack_from(f">12x{min(count, _MAX_TABLE)}H", body)


def _parametric(body: memoryview) -> Curve:
    (kind,) = struct.unpack_from(">8xH", body)
    numbers = tuple(value / _FIXED for value in struct.unpack_from(f">12x{_PARAMETERS[kind]}i", body))
    return _COMPLETE[kind](*numbers)


_COMPLETE: Final[dict[int, Callable[..., Curve]]] = {
    0: Curve,
    1: lambda g, a, b: Curve(g, a, b, 0, -b / a if a else 0),
    2: lambda g, a, b, c: Curve(g, a, b, 0, -b / a if a else 0, c, c),
    3: Curve,
    4: Curve,
}
"""From the parameters of each kind of parametric curve to all seven."""
