"""ThumbHash: a picture in some 25 bytes, to be shown blurred while the real one loads (evanw.github.io/thumbhash)."""

from collections.abc import Iterator, Sequence
from math import cos, floor, pi
from operator import mul
from typing import Final, NamedTuple

from PIL import Image

_LONGEST_SIDE: Final = 100
"""Larger pictures would take longer and look the same."""


class _Waves(NamedTuple):
    """A channel as a sum of cosine waves."""

    mean: float
    scale: float
    """The largest of the amplitudes."""
    amplitudes: list[float]
    """From 0 to 1 in units of twice the scale; a half is nothing."""


def thumbhash(image: Image.Image) -> bytes:
    """The ThumbHash of a picture with sides of up to 100 pixels.

    It takes time in proportion to the pixels: under 1 ms for 32x32, which tells as much as 100x100, and 5 ms for that.
    """
    width, height = image.size
    if max(width, height) > _LONGEST_SIDE:
        raise ValueError(f"{width}x{height} pixels are too many: no side may be longer than {_LONGEST_SIDE}")
    pixels = image.convert("RGBA").tobytes()
    alpha = [value / 255 for value in pixels[3::4]]
    transparent = min(alpha) < 1
    red, green, blue = (_on_mean(pixels[channel::4], alpha) for channel in range(3))

    longest = 5 if transparent else 7
    across, down = (max(1, _rounded(longest * side / max(width, height))) for side in (width, height))
    colours = list(zip(red, green, blue, strict=True))
    light = _waves([(r + g + b) / 3 for r, g, b in colours], width, max(3, across), max(3, down))
    yellow = _waves([(r + g) / 2 - b for r, g, b in colours], width, 3, 3)
    reddish = _waves([r - g for r, g, _ in colours], width, 3, 3)
    opacity = _waves(alpha, width, 5, 5) if transparent else None

    landscape = width > height
    first = (
        _rounded(63 * light.mean)
        | _rounded(31.5 + 31.5 * yellow.mean) << 6
        | _rounded(31.5 + 31.5 * reddish.mean) << 12
        | _rounded(31 * light.scale) << 18
        | transparent << 23
    )
    second = (
        (down if landscape else across)
        | _rounded(63 * yellow.scale) << 3
        | _rounded(63 * reddish.scale) << 9
        | landscape << 15
    )
    third = bytes([_rounded(15 * opacity.mean) | _rounded(15 * opacity.scale) << 4]) if opacity else b""
    channels = (light, yellow, reddish, *([opacity] if opacity else []))
    return first.to_bytes(3, "little") + second.to_bytes(2, "little") + third + bytes(_packed(channels))


def _on_mean(channel: bytes, alpha: Sequence[float]) -> list[float]:
    """The channel from 0 to 1, on a background of its own mean."""
    visible = sum(alpha)
    mean = sum(map(mul, channel, alpha)) / 255 / visible if visible else 0.0
    return [mean * (1 - opacity) + value / 255 * opacity for value, opacity in zip(channel, alpha, strict=True)]


def _waves(values: Sequence[float], width: int, across: int, down: int) -> _Waves:
    """The lower half of a discrete cosine transform with so many waves across and down."""
    height = len(values) // width
    rows = [values[start : start + width] for start in range(0, len(values), width)]
    along = [[sum(map(mul, row, wave)) for row in rows] for wave in _cosines(width, across)]
    terms = [
        sum(map(mul, along[x], wave)) / (width * height)
        for y, wave in enumerate(_cosines(height, down))
        for x in range(across)
        if x * down < across * (down - y)
    ]
    mean, rest = terms[0], terms[1:]
    scale = max(map(abs, rest))
    return _Waves(mean, scale, [0.5 + 0.5 / scale * term for term in rest] if scale else rest)


def _cosines(length: int, count: int) -> list[list[float]]:
    return [[cos(pi / length * wave * (at + 0.5)) for at in range(length)] for wave in range(count)]


def _packed(channels: Sequence[_Waves]) -> Iterator[int]:
    """Every amplitude in four bits, two a byte, the first one low."""
    digits = [_rounded(15 * amplitude) for channel in channels for amplitude in channel.amplitudes]
    for low, high in zip(digits[::2], [*digits[1::2], 0], strict=False):
        yield low | high << 4


def _rounded(value: float) -> int:
    # Half up, as the reference does; Python's own rounds to even.
    return floor(value + 0.5)
