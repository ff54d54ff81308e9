"""Colour profiles written byte by byte (ICC.1:2022), each with the function that it describes."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from tests.golden.reference import D50, D65, SRGB, Curve, Pixels, colorants, srgb_to_linear, xyz_to_lab, xyz_to_srgb

_V2, _V4 = 0x02400000, 0x04400000
_OWN_WHITE: Final = np.array((0.9505, 1.0, 1.0891))


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A colour space for files."""

    name: str
    content: bytes
    to_xyz: Callable[[Pixels], Pixels]
    """Converts stored values to XYZ under D50."""

    def to_srgb(self, stored: Pixels) -> Pixels:
        """Convert stored values to sRGB."""
        return xyz_to_srgb(self.to_xyz(stored))


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixProfile(Profile):
    """A profile of three primaries and their tone curves."""

    from_srgb: Callable[[Pixels], Pixels]
    """Converts colours of the sRGB gamut to stored values."""


def _matrix(
    name: str,
    primaries: tuple[tuple[float, float], ...],
    white: tuple[float, float],
    curves: tuple[bytes, Curve, Curve],
    version: int = _V2,
) -> MatrixProfile:
    matrix = colorants(primaries, white)
    tag, decode, encode = curves
    tags = {kind + b"XYZ": _xyz(matrix[:, at]) for at, kind in enumerate((b"r", b"g", b"b"))}
    tags |= {kind + b"TRC": tag for kind in (b"r", b"g", b"b")}
    return MatrixProfile(
        name=name,
        content=_profile(name, b"RGB ", tags, version=version),
        to_xyz=lambda stored: np.asarray(decode(stored) @ matrix.T),
        from_srgb=lambda srgb: encode(np.clip(srgb_to_linear(srgb) @ (np.linalg.inv(matrix) @ SRGB).T, 0, 1)),
    )


def _profile(
    name: str,
    space: bytes,
    tags: dict[bytes, bytes],
    *,
    kind: bytes = b"mntr",
    pcs: bytes = b"XYZ ",
    version: int = _V2,
) -> bytes:
    tags = {b"desc": _text(name, version), b"cprt": _text("CC0", version), b"wtpt": _xyz(D50), **tags}
    if version < _V4:
        # The media white point, which only absolute colorimetric conversion uses.
        tags[b"wtpt"] = _xyz(_OWN_WHITE)
        tags[b"cprt"] = b"text\0\0\0\0CC0\0"
    start = 128 + 4 + 12 * len(tags)
    table, body = b"", b""
    for tag, content in tags.items():
        table += struct.pack(">4sII", tag, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    length = start + len(body)
    header = struct.pack(">I4xI4s4s4s12x4s28x", length, version, kind, space, pcs, b"acsp") + _xyz(D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _text(text: str, version: int) -> bytes:
    if version < _V4:
        plain = text.encode() + b"\0"
        return b"desc\0\0\0\0" + struct.pack(">I", len(plain)) + plain + bytes(78)
    wide = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(wide), 28) + wide


def _xyz(values: Pixels) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(_fixed(value) for value in values)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _gamma(value: float) -> tuple[bytes, Curve, Curve]:
    tag = b"curv\0\0\0\0" + struct.pack(">IH2x", 1, round(value * 256))
    return tag, lambda stored: stored**value, lambda light: light ** (1 / value)


def _sampled(decode: Curve, encode: Curve, length: int = 1024) -> tuple[bytes, Curve, Curve]:
    return b"curv\0\0\0\0" + struct.pack(">I", length) + _words(decode(np.linspace(0, 1, length))), decode, encode


def _parametric_srgb() -> tuple[bytes, Curve, Curve]:
    parameters = b"".join(_fixed(value) for value in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
    return b"para\0\0\0\0\0\3\0\0" + parameters, srgb_to_linear, _encode_srgb


def _encode_srgb(light: Pixels) -> Pixels:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _words(values: Pixels) -> bytes:
    return np.round(np.clip(values, 0, 1) * 65535).astype(">u2").tobytes()


def _inverse_of_sampled(light: Pixels) -> Pixels:
    stored = np.linspace(0, 1, 4096)
    return np.interp(light, 0.3 * stored + 0.7 * stored**3, stored)


_SRGB_PRIMARIES: Final = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_P3_PRIMARIES: Final = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))

DISPLAY_P3: Final = _matrix("Display P3", _P3_PRIMARIES, D65, _parametric_srgb(), _V4)
P3_NAMED_AFTER_ITS_CURVE: Final = _matrix("Display P3 Gamut with sRGB Transfer", _P3_PRIMARIES, D65, _parametric_srgb())
"""The description that a widespread graphics library writes."""
ADOBE_RGB: Final = _matrix("Adobe RGB (1998)", ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), D65, _gamma(2.19921875))
PROPHOTO: Final = _matrix(
    "ProPhoto RGB", ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), (0.3457, 0.3585), _gamma(1.80078125)
)
SAMPLED_CURVE: Final = _matrix(
    "Curves from tables",
    ((0.66, 0.34), (0.25, 0.68), (0.15, 0.07)),
    D65,
    _sampled(lambda stored: 0.3 * stored + 0.7 * stored**3, _inverse_of_sampled),
)
SRGB_PROFILE: Final = _matrix("sRGB IEC61966-2.1", _SRGB_PRIMARIES, D65, _parametric_srgb(), _V4)
LINEAR_NAMED_SRGB: Final = _matrix("GIMP built-in Linear sRGB", _SRGB_PRIMARIES, D65, _gamma(1.0), _V4)
MATRIX_PROFILES: Final = (DISPLAY_P3, P3_NAMED_AFTER_ITS_CURVE, ADOBE_RGB, PROPHOTO, SAMPLED_CURVE)


def _table_of_colours() -> Profile:
    """Return a profile with a three-dimensional table, as for cameras and scanners (lutAToBType)."""
    grid = 25
    axes = np.meshgrid(*[np.linspace(0, 1, grid)] * 3, indexing="ij")
    lab = xyz_to_lab(ADOBE_RGB.to_xyz(np.stack(axes, axis=-1)))
    encoded = np.stack((lab[..., 0] / 100, (lab[..., 1] + 128) / 255, (lab[..., 2] + 128) / 255), axis=-1)
    linear = b"curv" + bytes(8)
    table = bytes((grid,) * 3) + bytes(13) + b"\2\0\0\0" + _words(encoded)
    table += bytes(-len(table) % 4)
    at_table = 32 + 3 * len(linear)
    offsets = struct.pack(">5I", 32, 0, 0, at_table, at_table + len(table))
    tag = b"mAB \0\0\0\0\3\3\0\0" + offsets + 3 * linear + table + 3 * linear
    return Profile(
        name="Table of colours",
        content=_profile("Table of colours", b"RGB ", {b"A2B0": tag}, kind=b"scnr", pcs=b"Lab ", version=_V4),
        to_xyz=ADOBE_RGB.to_xyz,
    )


TABLE_OF_COLOURS: Final = _table_of_colours()


def _grey(name: str, curve: tuple[bytes, Curve, Curve]) -> Profile:
    tag, decode, _ = curve
    return Profile(
        name=name,
        content=_profile(name, b"GRAY", {b"kTRC": tag}),
        to_xyz=lambda stored: np.asarray(decode(stored)[..., None] * D50),
    )


GREY_PROFILES: Final = (
    _grey("Gamma 1.8", _gamma(1.80078125)),
    _grey("Linear", _gamma(1.0)),
    _grey("Dot gain", _sampled(lambda stored: stored**1.5 * (0.6 + 0.4 * stored), lambda light: light, 256)),
)

GREY_2_2: Final = _grey("Gamma 2.2", _gamma(2.19921875))

_ABSORBED: Final = np.array(((0.98, 0.25, 0.03), (0.30, 0.92, 0.35), (0.08, 0.12, 0.95)))
"""The share of each primary's light that the full ink absorbs, by primary and ink: no ink is pure."""


def _printed(inks: Pixels) -> Pixels:
    """Return XYZ of cyan, magenta, yellow and black ink on white paper; black covers completely."""
    left = np.prod(1 - _ABSORBED * inks[..., None, :3], axis=-1) * (1 - inks[..., 3:])
    return np.asarray(left**2.2 @ SRGB.T)


def _press() -> Profile:
    """Return a CMYK profile with a four-dimensional table (lut16Type)."""
    grid = 11
    axes = np.meshgrid(*[np.linspace(0, 1, grid)] * 4, indexing="ij")
    lab = xyz_to_lab(_printed(np.stack(axes, axis=-1)))
    encoded = np.stack((lab[..., 0] * 652.8, (lab[..., 1] + 128) * 256, (lab[..., 2] + 128) * 256), axis=-1) / 65535
    identity = b"".join(_fixed(value) for value in np.eye(3).flat)
    linear = struct.pack(">HH", 0, 65535)
    tag = b"mft2\0\0\0\0" + bytes((4, 3, grid, 0)) + identity + struct.pack(">HH", 2, 2)
    tag += 4 * linear + _words(encoded) + 3 * linear
    return Profile(
        name="Press",
        content=_profile("Press", b"CMYK", {b"A2B0": tag}, kind=b"prtr", pcs=b"Lab "),
        to_xyz=_printed,
    )


PRESS: Final = _press()


def with_numbers(profile: bytes, primaries: int, transfer: int) -> bytes:
    """Return the profile with a cicp tag: primaries and transfer of ITU-T H.273 (ICC.1:2022 §9.2.17)."""
    (count,) = struct.unpack_from(">I", profile, 128)
    tags = struct.iter_unpack(">4sII", profile[132 : 132 + 12 * count])
    body = profile[132 + 12 * count :]
    content = b"cicp\0\0\0\0" + bytes((primaries, transfer, 0, 1))
    table = b"".join(struct.pack(">4sII", tag, start + 12, length) for tag, start, length in tags)
    table += struct.pack(">4sII", b"cicp", 132 + 12 * (count + 1) + len(body), len(content))
    whole = profile[:128] + struct.pack(">I", count + 1) + table + body + content
    return struct.pack(">I", len(whole)) + whole[4:]
