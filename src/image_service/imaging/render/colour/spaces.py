"""Colour spaces of three primaries: their matrices, and the curves between samples and light.

Sources: ITU-T H.273 (code points), ICC.1:2022 §10.18 (parametric curves) and annex E (adaptation to D50).
"""

from typing import Final, NamedTuple, TypeAlias

from image_service.imaging.formats.colour import Cicp, Gamma, Signal

Vector: TypeAlias = tuple[float, float, float]
Matrix: TypeAlias = tuple[Vector, Vector, Vector]
"""Three rows."""


class Unusable(Exception):
    """A signal that is malformed, or for another kind of picture: it is ignored, as browsers do."""


class Curve(NamedTuple):
    """The light of a sample x: (a x + b)^g + e from d on, and c x + f below; both between 0 and 1."""

    g: float
    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0
    e: float = 0.0
    f: float = 0.0


class Chromaticities(NamedTuple):
    """x and y of a white point and three primaries."""

    white: tuple[float, float]
    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]


_D50: Final = (0.9642, 1.0, 0.8249)
_D65 = (0.3127, 0.3290)
_C = (0.310, 0.316)
_BRADFORD: Final[Matrix] = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_LEAST_DETERMINANT: Final = 1e-9
_STEEPEST: Final = 10_000.0
"""The largest exponent of a curve: everything is black but for the brightest samples."""
_LEAST_Y: Final = 1e-4
"""Below this, a point's y makes no colour."""

BT709: Final = Chromaticities(_D65, (0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
BT2020: Final = Chromaticities(_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
PRIMARIES: Final = {
    1: BT709,
    4: Chromaticities(_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: Chromaticities(_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: Chromaticities(_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: Chromaticities(_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    8: Chromaticities(_C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: BT2020,
    10: Chromaticities((1 / 3, 1 / 3), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)),
    11: Chromaticities((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: Chromaticities(_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: Chromaticities(_D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
"""ColourPrimaries (H.273 table 2)."""

SRGB_CURVE: Final = Curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_DISPLAY: Final = Curve(2.4)
"""How displays show what was recorded with the curves of BT.601, BT.709 and BT.2020 (ITU-R BT.1886)."""
CURVES: Final = {
    1: _DISPLAY,
    4: Curve(2.2),
    5: Curve(2.8),
    6: _DISPLAY,
    7: Curve(1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4.0, 0.0913),
    8: Curve(1.0),
    11: _DISPLAY,
    13: SRGB_CURVE,
    14: _DISPLAY,
    15: _DISPLAY,
    17: Curve(2.6, (52.37 / 48) ** (1 / 2.6)),
}
"""TransferCharacteristics (H.273 table 3) of pictures for displays of the usual brightness."""
PQ, HLG = 16, 18
"""TransferCharacteristics of pictures for displays of high dynamic range."""


def space(signal: Cicp | Gamma) -> tuple[Chromaticities, Curve]:
    """Return the primaries and the curve that the signal names.

    Raises:
        Unusable: it names none, or none that is known.
    """
    if isinstance(signal, Gamma):
        return _chromaticities(signal.chromaticities), Curve(min(1 / signal.exponent, _STEEPEST))
    try:
        return PRIMARIES[signal.primaries], CURVES[signal.transfer]
    except KeyError:
        raise Unusable from None


def is_high_dynamic_range(signal: Signal) -> bool:
    """Whether pictures with this signal can be brighter than white paper."""
    return isinstance(signal, Cicp) and signal.transfer in {PQ, HLG} and signal.primaries in PRIMARIES


def _chromaticities(values: tuple[float, ...]) -> Chromaticities:
    if not values:
        return BT709
    if max(values) > 1:
        raise Unusable
    white, red, green, blue = ((values[at], values[at + 1]) for at in range(0, len(values), 2))
    return Chromaticities(white, red, green, blue)


def to_d50(points: Chromaticities) -> Matrix:
    """Return the matrix from light in the primaries to XYZ as seen under D50 (ICC.1:2022 annex E.2).

    Raises:
        ValueError: the points make no colour space.
    """
    white = _xyz(points.white)
    primaries = transposed((_direction(points.red), _direction(points.green), _direction(points.blue)))
    scales = apply(inverse(primaries), white)
    to_xyz = _scaled_columns(primaries, scales)
    seen, wanted = apply(_BRADFORD, white), apply(_BRADFORD, _D50)
    if not all(seen):
        raise ValueError("a white point that one kind of cone does not see")
    gains = (wanted[0] / seen[0], wanted[1] / seen[1], wanted[2] / seen[2])
    adapted = multiply(inverse(_BRADFORD), _scaled_rows(_BRADFORD, gains))
    return multiply(adapted, to_xyz)


def _xyz(point: tuple[float, float]) -> Vector:
    x, y = point
    if y < _LEAST_Y:
        raise ValueError("a white point without brightness")
    return x / y, 1.0, (1 - x - y) / y


def _direction(point: tuple[float, float]) -> Vector:
    x, y = point
    return x, y, 1 - x - y


def apply(matrix: Matrix, vector: Vector) -> Vector:
    """Return the product of the matrix and the vector."""
    a, b, c = (sum(x * y for x, y in zip(row, vector, strict=True)) for row in matrix)
    return a, b, c


def multiply(left: Matrix, right: Matrix) -> Matrix:
    """Return the product of two matrices."""
    a, b, c = (apply(left, column) for column in transposed(right))
    return transposed((a, b, c))


def inverse(matrix: Matrix) -> Matrix:
    """Return the inverse.

    Raises:
        ValueError: there is none.
    """
    (a, b, c), (d, e, f), (g, h, i) = matrix
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if abs(determinant) < _LEAST_DETERMINANT:
        raise ValueError("a matrix without an inverse")
    k = 1 / determinant
    return (
        ((e * i - f * h) * k, (c * h - b * i) * k, (b * f - c * e) * k),
        ((f * g - d * i) * k, (a * i - c * g) * k, (c * d - a * f) * k),
        ((d * h - e * g) * k, (b * g - a * h) * k, (a * e - b * d) * k),
    )


def transposed(matrix: Matrix) -> Matrix:
    """Return the matrix with rows and columns swapped."""
    a, b, c = zip(*matrix, strict=True)
    return a, b, c


def _scaled_columns(matrix: Matrix, gains: Vector) -> Matrix:
    return transposed(_scaled_rows(transposed(matrix), gains))


def _scaled_rows(matrix: Matrix, gains: Vector) -> Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    x, y, z = gains
    return (a * x, b * x, c * x), (d * y, e * y, f * y), (g * z, h * z, i * z)
