"""Converts samples to sRGB in floating point: of pictures of high dynamic range, and of more than eight bits a sample.

Sources: ITU-R BT.2100 (PQ and HLG), ITU-R BT.2408 (reference white), SMPTE ST 2094-50 (the tone curve).
"""

import math
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image_service.imaging.formats.colour import Cicp, Profile, Signal
from image_service.imaging.render.colour import icc
from image_service.imaging.render.colour.spaces import (
    BT709,
    BT2020,
    HLG,
    PQ,
    PRIMARIES,
    Curve,
    Matrix,
    Unusable,
    inverse,
    is_high_dynamic_range,
    multiply,
    space,
    to_d50,
)

Samples: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""Rows of pixels of one channel for grey, or three."""
_Light: TypeAlias = NDArray[np.float32]

_ROWS: Final = 64
"""Rows that are converted at a time, so that floating-point copies stay small."""
_FROM_D50: Final = inverse(to_d50(BT709))
_REFERENCE_WHITE: Final = 203.0
"""Brightness of white paper in nits (BT.2408 §2.1), which becomes 1."""
_PQ_PEAK: Final = 10_000.0
_HLG_PEAK: Final = 1000.0
_HLG_GAMMA: Final = 1.2
"""For a display with this peak (BT.2100 table 5)."""
_LUMINANCE: Final = (0.2627, 0.6780, 0.0593)
"""Of the primaries of BT.2020."""
_USUAL_PEAK: Final = 1000.0
"""Brightness in nits of the brightest pixel, where the file does not say it."""
_BEND: Final = 0.65
"""How soon the curve leaves the straight line above reference white; kappa in ST 2094-50."""
_CURVE_POINTS: Final = 1024
_FINEST: Final = 65535
"""Steps of light in tables."""
_DARKEST: Final = 1e-6
"""Light below which the gain is of no importance."""


class _Decoding(NamedTuple):
    """How samples of one picture become light."""

    tables: tuple[_Light, ...]
    """The light of each sample, by channel, or one for all."""
    to_srgb: Matrix | None
    """From light to that of sRGB; None for grey."""
    transfer: int | None = None
    """The code point, for high dynamic range; the matrix then begins with BT.2020."""
    to_bt2020: Matrix | None = None
    """From light to that of BT.2020, where the primaries are others and the range is high."""
    peak: float = 1.0
    """Light of the brightest pixel."""


def to_srgb(samples: Samples, signal: Signal) -> NDArray[np.uint8]:
    """Return the samples in sRGB with eight bits.

    Colours outside sRGB are clipped, as in browsers; what is brighter than white paper is compressed before.

    Args:
        samples: Of shape (height, width, channels).
        signal: What their file says about the colours.

    Raises:
        Unusable: the signal describes no space of three primaries, or one for another number of channels.
    """
    height, _, channels = samples.shape
    decoding = _decoding(signal, np.iinfo(samples.dtype).max + 1, channels)
    made = np.empty(samples.shape, np.uint8)
    for top in range(0, height, _ROWS):
        made[top : top + _ROWS] = _encode(_linear(samples[top : top + _ROWS], decoding))
    return made


def samples_of(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels of an image in mode L or RGB."""
    return np.asarray(image).reshape(image.height, image.width, -1)


def to_image(samples: NDArray[np.uint8]) -> Image.Image:
    """Return the samples as an image in mode L, RGB or RGBA, by their number of channels."""
    return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)


def to_eight_bits(samples: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return samples of sixteen bits that are no colours with eight."""
    return (samples >> 8).astype(np.uint8)


def _decoding(signal: Signal, levels: int, channels: int) -> _Decoding:
    values = np.linspace(0, 1, levels, dtype=np.float64)
    if isinstance(signal, Profile):
        profile = icc.read(signal.content)
        if profile is None or (profile.to_d50 is None and channels > 1):
            raise Unusable
        tables = tuple(_table(curve, values) for curve in profile.curves)
        # Where a grey picture has a profile for colours, its greys count.
        return _Decoding(tables, profile.to_d50 and multiply(_FROM_D50, profile.to_d50))
    if is_high_dynamic_range(signal):
        assert isinstance(signal, Cicp)  # noqa: S101 — for the type checker
        decode, peak = (_pq, _USUAL_PEAK) if signal.transfer == PQ else (_hlg, _HLG_PEAK)
        light = decode(values).astype(np.float32)
        bt2020, own = to_d50(BT2020), to_d50(PRIMARIES[signal.primaries])
        return _Decoding(
            (light,),
            multiply(_FROM_D50, bt2020),
            signal.transfer,
            None if own == bt2020 else multiply(inverse(bt2020), own),
            max((signal.peak or peak) / _REFERENCE_WHITE, 1),
        )
    points, curve = space(signal)
    try:
        return _Decoding((_table(curve, values),), multiply(_FROM_D50, to_d50(points)))
    except ValueError as error:
        raise Unusable from error


def _table(curve: Curve | icc.Table, values: NDArray[np.float64]) -> _Light:
    """Return the light of each value."""
    if not isinstance(curve, Curve):
        light = np.interp(values, np.linspace(0, 1, len(curve)), np.array(curve) / 65535)
        return np.asarray(light, np.float32)
    g, a, b, c, d, e, f = curve
    with np.errstate(all="ignore"):
        light = np.where(values >= d, np.maximum(a * values + b, 0) ** g + e, c * values + f)
    return np.asarray(np.nan_to_num(np.clip(light, 0, 1)), np.float32)


def _pq(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return light, where reference white is 1, of PQ values (BT.2100 table 4)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = values ** (1 / m2)
    return (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) * (_PQ_PEAK / _REFERENCE_WHITE)


def _hlg(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the light of the scene, between 0 and 1, of HLG values (BT.2100 table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)  # noqa: PLR2004 — see table 5
    return np.asarray(light)


def _linear(samples: Samples, decoding: _Decoding) -> _Light:
    """Return light in the primaries of sRGB; below 0 or above 1 outside its gamut."""
    channels, tables = samples.shape[2], decoding.tables
    if len(tables) == 1:
        light = tables[0][samples]
    else:
        # A grey picture has the sample for each of the three channels.
        light = np.stack([table[samples[..., min(index, channels - 1)]] for index, table in enumerate(tables)], axis=-1)
    if decoding.transfer is not None:
        light = _tone_mapped(light, decoding)
    if decoding.to_srgb is None or light.shape[2] == 1:
        return light
    linear = _apply(decoding.to_srgb, light)
    return linear if channels > 1 else linear[..., 1:2]


def _apply(matrix: Matrix, light: _Light) -> _Light:
    return light @ np.array(matrix, np.float32).T


def _tone_mapped(light: _Light, decoding: _Decoding) -> _Light:
    """Return the light of a picture of high dynamic range in the primaries of BT.2020, with the brightest pixel at 1.

    All channels are multiplied with the same number, which depends on the largest: hues stay.
    """
    if decoding.to_bt2020 and light.shape[2] > 1:
        light = np.maximum(_apply(decoding.to_bt2020, light), 0)
    if decoding.transfer == HLG:
        luminance = light @ np.array(_LUMINANCE, np.float32)[:, None] if light.shape[2] > 1 else light
        light = light * (luminance ** (_HLG_GAMMA - 1) * np.float32(_HLG_PEAK / _REFERENCE_WHITE))
    relative = light.max(axis=2, keepdims=True) / np.float32(decoding.peak)
    places = np.sqrt(np.minimum(relative, 1)) * _FINEST + np.float32(0.5)
    # What is brighter than the peak becomes as bright.
    gains = _gains(decoding.peak)[places.astype(np.uint16)] / np.maximum(relative, 1)
    return np.asarray(light * gains, np.float32)


@lru_cache(maxsize=4)
def _gains(peak: float) -> _Light:
    """Return by what light is multiplied, for the squares of equal steps up to the peak."""
    light = np.maximum(np.linspace(0, 1, _FINEST + 1) ** 2 * peak, _DARKEST)
    return np.asarray(np.interp(light, *_tone_curve(peak)) / light, np.float32)


def _tone_curve(peak: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points on the curve of ST 2094-50 for displays without headroom: light, and what it becomes.

    It is straight up to reference white, which becomes half for a peak of 1000 nits or more, and stays the same for
    pictures that are not brighter. From there on a quadratic Bézier curve leads to the peak, which becomes 1.
    """
    if peak <= 1:
        return np.array((0.0, 1.0)), np.array((0.0, 1.0))
    white = 1 - 0.5 * min(math.log2(peak) / math.log2(_USUAL_PEAK / _REFERENCE_WHITE), 1)
    middle = (1 - _BEND) + _BEND / white, (1 - _BEND) * white + _BEND
    t = np.linspace(0, 1, _CURVE_POINTS)
    x = (1 - t) ** 2 + 2 * t * (1 - t) * middle[0] + t**2 * peak
    y = (1 - t) ** 2 * white + 2 * t * (1 - t) * middle[1] + t**2
    return np.concatenate(((0.0,), x)), np.concatenate(((0.0,), y))


def _encode(linear: _Light) -> NDArray[np.uint8]:
    """Return the light as sRGB with eight bits."""
    return _SRGB_LEVELS[(np.clip(linear, 0, 1) * _FINEST + np.float32(0.5)).astype(np.uint16)]


def _srgb_levels() -> NDArray[np.uint8]:
    """Return the level of sRGB (IEC 61966-2-1) for light in steps of 1/65535: 20 of them are the first level."""
    light = np.linspace(0, 1, _FINEST + 1)
    encoded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)  # noqa: PLR2004 — see above
    return np.asarray(encoded * 255 + 0.5).astype(np.uint8)


_SRGB_LEVELS: Final = _srgb_levels()
