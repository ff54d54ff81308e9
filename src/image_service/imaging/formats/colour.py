"""What files say about the meaning of their samples: the signals that a browser reads the colours with."""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from image_service.imaging.limits import MAX_PROFILE_BYTES


class Profile(NamedTuple):
    """An ICC profile (ICC.1:2022), which may be malformed."""

    content: bytes


class Cicp(NamedTuple):
    """Coding-independent code points (ITU-T H.273); also those that are unspecified or reserved."""

    primaries: int
    """ColourPrimaries (table 2)."""
    transfer: int
    """TransferCharacteristics (table 3)."""
    peak: float = 0.0
    """Brightness in nits of the brightest pixel; zero where the file does not say it (CTA-861.3, MaxCLL)."""


class Gamma(NamedTuple):
    """The gAMA chunk of a PNG file, with its cHRM chunk (PNG, third edition, §11.3.2)."""

    exponent: float
    """Samples are light to the power of this."""
    chromaticities: tuple[float, ...]
    """x and y of the white point and of red, green and blue; empty where the file gives none."""


Signal: TypeAlias = Profile | Cicp | Gamma

SRGB: Final = Cicp(1, 13)
"""The code points of sRGB."""
PRIMARIES: Final = frozenset({1, *range(4, 13), 22})
TRANSFERS: Final = frozenset({1, *range(4, 9), 11, *range(13, 19)})
"""Code points that are used."""

_TAGS_AT: Final = 128
_TAG: Final = struct.Struct(">4sII")
"""Name, position and length."""
_MAX_TAGS: Final = 128
_CODE_POINTS: Final = struct.Struct(">4s4x4B")
"""The content of a cicp tag (ICC.1:2022 §10.5): primaries, transfer, matrix, and whether the range is full."""


def profile(content: bytes) -> Profile | Cicp | None:
    """Return what an embedded profile says; None where it is larger than any that is used, or there is none.

    Code points in it stand above its curves and primaries (ICC.1:2022 §9.2.17).
    """
    if not 0 < len(content) <= MAX_PROFILE_BYTES:
        return None
    for name, start, length in tags(content):
        body = content[start : start + _CODE_POINTS.size]
        if name == b"cicp" and length == len(body) == _CODE_POINTS.size:
            _, primaries, transfer, matrix, full_range = _CODE_POINTS.unpack(body)
            if primaries in PRIMARIES and transfer in TRANSFERS and (matrix, full_range) == (0, 1):
                return Cicp(primaries, transfer)
    return Profile(content)


def tags(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, position and length of the tags of a profile, at most 128 of them (ICC.1:2022 §7.3)."""
    count = min(int.from_bytes(content[_TAGS_AT : _TAGS_AT + 4]), _MAX_TAGS)
    table = content[_TAGS_AT + 4 : _TAGS_AT + 4 + count * _TAG.size]
    yield from _TAG.iter_unpack(table[: len(table) // _TAG.size * _TAG.size])
