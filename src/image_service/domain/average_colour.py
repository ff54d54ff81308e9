"""The average colour of an image, which its ThumbHash contains (evanw.github.io/thumbhash)."""

from base64 import b64decode
from typing import Final

_LENGTH: Final = 4
"""Base64 digits of the part that is read: three bytes."""


def average_colour(placeholder: str) -> str | None:
    """Returns the average colour of an opaque image as #rrggbb; None if the image has transparency.

    Args:
        placeholder: A ThumbHash in base64, well-formed.
    """
    header = int.from_bytes(b64decode(placeholder[:_LENGTH]), "little")
    if header >> 23:
        return None
    light, yellow, reddish = (header & 63) / 63, (header >> 6 & 63) / 31.5 - 1, (header >> 12 & 63) / 31.5 - 1
    blue = light - 2 / 3 * yellow
    red = (3 * light - blue + reddish) / 2
    return f"#{_byte(red):02x}{_byte(red - reddish):02x}{_byte(blue):02x}"


def _byte(share: float) -> int:
    return round(255 * max(0.0, min(1.0, share)))
