"""Matrices and curves against published numbers."""

import pytest

from image_service.imaging.formats.colour import SRGB, Cicp, Gamma, Profile
from image_service.imaging.render.colour.spaces import (
    BT709,
    BT2020,
    CURVES,
    PRIMARIES,
    SRGB_CURVE,
    Chromaticities,
    Curve,
    Matrix,
    Unusable,
    apply,
    inverse,
    is_high_dynamic_range,
    multiply,
    space,
    to_d50,
)

PUBLISHED: dict[int, Matrix] = {
    # IEC 61966-2-1 under D50, as in the ICC's own sRGB profiles.
    1: ((0.4360, 0.3851, 0.1431), (0.2225, 0.7169, 0.0606), (0.0139, 0.0971, 0.7141)),
    # Apple's Display P3.
    12: ((0.5151, 0.2920, 0.1571), (0.2412, 0.6922, 0.0666), (-0.0010, 0.0419, 0.7841)),
    # BT.2020, as in the ICC's registry.
    9: ((0.6735, 0.1657, 0.1250), (0.2790, 0.6754, 0.0456), (-0.0019, 0.0300, 0.7969)),
}
D50 = (0.9642, 1.0, 0.8249)


@pytest.mark.parametrize(("primaries", "published"), PUBLISHED.items(), ids=["sRGB", "Display P3", "BT.2020"])
def test_matrices_are_the_published_ones(primaries: int, published: Matrix) -> None:
    for row, wanted in zip(to_d50(PRIMARIES[primaries]), published, strict=True):
        assert row == pytest.approx(wanted, abs=4e-4)


@pytest.mark.parametrize("points", PRIMARIES.values(), ids=PRIMARIES)
def test_white_is_that_of_profiles(points: Chromaticities) -> None:
    assert apply(to_d50(points), (1, 1, 1)) == pytest.approx(D50, abs=1e-9)


def test_inverse_undoes_a_matrix() -> None:
    matrix = to_d50(BT2020)
    for row, wanted in zip(multiply(inverse(matrix), matrix), ((1, 0, 0), (0, 1, 0), (0, 0, 1)), strict=True):
        assert row == pytest.approx(wanted, abs=1e-12)


IMPOSSIBLE = {
    "all the same": Chromaticities((0.3127, 0.3290), (0.3, 0.3), (0.3, 0.3), (0.3, 0.3)),
    "all zero": Chromaticities((0, 0), (0, 0), (0, 0), (0, 0)),
    "on a line": Chromaticities((0.3127, 0.3290), (0.2, 0.2), (0.3, 0.3), (0.4, 0.4)),
    "white without brightness": BT709._replace(white=(0.3127, 0.0)),
}


@pytest.mark.parametrize("points", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_points_make_no_matrix(points: Chromaticities) -> None:
    with pytest.raises(ValueError, match="with"):
        to_d50(points)


def test_white_that_a_cone_does_not_see_makes_no_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    bradford: Matrix = ((1.0, 0.0, -1.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    monkeypatch.setattr("image_service.imaging.render.colour.spaces._BRADFORD", bradford)
    with pytest.raises(ValueError, match="does not see"):
        to_d50(BT709._replace(white=(0.375, 0.25)))


def light(curve: Curve, sample: float) -> float:
    g, a, b, c, d, e, f = curve
    return (a * sample + b) ** g + e if sample >= d else c * sample + f


# From samples to light.
VALUES = {
    "sRGB, IEC 61966-2-1": (13, 0.5, 0.21404),
    "sRGB, below the bend": (13, 0.04, 0.0030960),
    "gamma 2.2": (4, 0.5, 0.21764),
    "gamma 2.8": (5, 0.5, 0.14359),
    "BT.1886": (1, 0.5, 0.18946),
    "SMPTE 240M, above the bend": (7, 0.5, 0.26504),
    "SMPTE 240M, below it": (7, 0.08, 0.02),
    "linear": (8, 0.5, 0.5),
    "SMPTE 428": (17, 0.5, 52.37 / 48 * 0.5**2.6),
}


@pytest.mark.parametrize(("transfer", "sample", "expected"), VALUES.values(), ids=VALUES)
def test_curves_have_the_published_values(transfer: int, sample: float, expected: float) -> None:
    assert light(CURVES[transfer], sample) == pytest.approx(expected, abs=6e-5)
    assert CURVES[transfer] == space(Cicp(1, transfer))[1]


@pytest.mark.parametrize("transfer", set(CURVES) - {17})
def test_curves_end_at_one_and_have_no_gap(transfer: int) -> None:
    curve = CURVES[transfer]
    assert light(curve, 1.0) == pytest.approx(1)
    below, above = (light(curve, curve.d + step) for step in (-1e-9, 1e-9))
    assert above == pytest.approx(max(below, 0), abs=1e-4)


def test_space_of_code_points() -> None:
    assert space(SRGB) == (BT709, SRGB_CURVE)
    for signal in (Cicp(2, 13), Cicp(1, 2), Cicp(0, 0), Cicp(255, 255), Cicp(9, 16)):
        with pytest.raises(Unusable):
            space(signal)


def test_space_of_a_gamma() -> None:
    values = (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
    assert space(Gamma(0.5, values)) == (PRIMARIES[12], Curve(2.0))
    assert space(Gamma(0.5, ())) == (BT709, Curve(2.0))
    # The steepest curve that a profile can describe.
    assert space(Gamma(1e-5, ()))[1].g == 10_000
    with pytest.raises(Unusable):
        space(Gamma(0.5, (*values[:-1], 1.00001)))


def test_high_dynamic_range() -> None:
    assert is_high_dynamic_range(Cicp(9, 16))
    assert is_high_dynamic_range(Cicp(1, 18))
    for other in (Cicp(2, 16), Cicp(9, 13), Gamma(1, ()), Profile(b"")):
        assert not is_high_dynamic_range(other)
