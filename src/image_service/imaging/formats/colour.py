"""What files say about the meaning of their samples: the signals that a browser reads the colours with."""

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
MAX_SIGNALS: Final = 8
"""Signals of one file that are considered: no format has more kinds of them."""


def profile(content: bytes) -> Profile | None:
    """Return the profile; None where it is larger than any that is used, or there is none."""
    return Profile(content) if 0 < len(content) <= MAX_PROFILE_BYTES else None
