"""ThumbHash: a blurred picture in some 25 bytes, shown while the real one loads (evanw.github.io/thumbhash)."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import cos, floor, pi
from operator import add, mul, sub
from typing import Final, NamedTuple

from PIL import Image

_LONGEST_SIDE: Final = 100
"""Larger pictures take longer and give the same hash."""
_OPAQUE: Final = 255


class _Waves(NamedTuple):
    """A channel as a sum of cosine waves."""

    mean: float
    scale: float
    """The largest of the amplitudes."""
    amplitudes: list[float]
    """From 0 to 1 in units of twice the scale; a half is zero."""


def thumbhash(image: Image.Image) -> bytes:
    """Return the ThumbHash of a picture with sides of up to 100 pixels.

    It takes time in proportion to the pixels: 0.3 ms for 32x24, and 3 ms for 100x75, which gives no more detail.
    """
    width, height = image.size
    if max(width, height) > _LONGEST_SIDE:
        raise ValueError(f"{width}x{height} pixels are too many: no side may be longer than {_LONGEST_SIDE}")
    pixels = image.convert("RGBA").tobytes()
    *colours, alpha = (pixels[channel::4] for channel in range(4))
    transparent = alpha.count(_OPAQUE) < len(alpha)
    red, green, blue = (_on_mean(channel, alpha) if transparent else channel for channel in colours)

    longest = 5 if transparent else 7
    across, down = (max(1, _rounded(longest * side / max(width, height))) for side in (width, height))
    # Mapped C functions: Python expressions take three times as long.
    both = list(map(add, red, green))
    light = _waves(list(map(add, both, blue)), 3 * _OPAQUE, width, max(3, across), max(3, down))
    yellow = _waves(list(map(sub, map(sub, both, blue), blue)), 2 * _OPAQUE, width, 3, 3)
    reddish = _waves(list(map(sub, red, green)), _OPAQUE, width, 3, 3)
    opacity = _waves(alpha, _OPAQUE, width, 5, 5) if transparent else None

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


def _on_mean(channel: bytes, alpha: bytes) -> list[float]:
    """Return the channel on a background of its own mean."""
    visible = sum(alpha)
    mean = sum(map(mul, channel, alpha)) / visible if visible else 0.0
    return [mean + (value - mean) * opacity / _OPAQUE for value, opacity in zip(channel, alpha, strict=True)]


def _waves(values: Sequence[float], unit: int, width: int, across: int, down: int) -> _Waves:
    """Return the lower half of a discrete cosine transform with so many waves across and down."""
    columns = [values[at::width] for at in range(width)]
    height = len(columns[0])
    # The first wave is flat.
    along = [list(map(sum, columns))]
    along += [[sum(map(mul, column, wave)) for column in columns] for wave in _cosines(height, down)[1:]]
    terms = [
        sum(map(mul, along[y], wave)) / (width * height * unit)
        for y in range(down)
        for x, wave in enumerate(_cosines(width, across))
        if x * down < across * (down - y)
    ]
    mean, rest = terms[0], terms[1:]
    scale = max(map(abs, rest))
    return _Waves(mean, scale, [0.5 + 0.5 / scale * term for term in rest] if scale else rest)


@lru_cache(maxsize=64)
def _cosines(length: int, count: int) -> list[list[float]]:
    return [[cos(pi / length * wave * (at + 0.5)) for at in range(length)] for wave in range(count)]


def _packed(channels: Sequence[_Waves]) -> Iterator[int]:
    """Yield every amplitude in four bits, two a byte, the first one low."""
    digits = [_rounded(15 * amplitude) for channel in channels for amplitude in channel.amplitudes]
    for low, high in zip(digits[::2], [*digits[1::2], 0], strict=False):
        yield low | high << 4


def _rounded(value: float) -> int:
    # Half up, as the reference does; Python's own function rounds to even.
    return floor(value + 0.5)
