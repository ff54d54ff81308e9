"""Placeholders to show while a picture loads: a blurred version of it, and its dominant colour."""

from base64 import b64encode
from typing import Final

from PIL import Image

from image_service.domain.geometry import fit_inside
from image_service.imaging.render.thumbhash import thumbhash

_SIDE: Final = 20
"""Longest side of the picture that is hashed, in pixels: more takes longer and adds no detail. A thumbnail of 100
pixels is reduced by exactly five, which changes fewer digits than 32 pixels do, where its rows weigh unequally."""
_GROUPS: Final = 8


def describe(thumbnail: Image.Image) -> tuple[str, str | None]:
    """Return the ThumbHash of a small picture in base64, and its dominant colour as #rrggbb; None if all is invisible.

    Args:
        thumbnail: In mode L, RGB or RGBA.
    """
    # Pillow premultiplies for this, so that invisible colours have no influence.
    small = thumbnail.resize(fit_inside(*thumbnail.size, _SIDE, _SIDE), Image.Resampling.BOX)
    return b64encode(thumbhash(small)).decode(), _dominant_colour(small)


def _dominant_colour(image: Image.Image) -> str | None:
    """Return the mean of the largest of a few groups of similar colours; the mean of all often occurs nowhere."""
    visible = _visible(image)
    if not visible:
        return None
    grouped = Image.frombytes("RGB", (len(visible) // 3, 1), visible).quantize(_GROUPS, Image.Quantize.MEDIANCUT)
    sizes = grouped.histogram()
    largest = sizes.index(max(sizes))
    red, green, blue = (grouped.getpalette() or [])[3 * largest : 3 * largest + 3]
    return f"#{red:02x}{green:02x}{blue:02x}"


def _visible(image: Image.Image) -> bytes:
    """Return the colours of all pixels that are at least half as opaque as the most opaque one."""
    if image.mode != "RGBA":
        return image.convert("RGB").tobytes()
    pixels = image.tobytes()
    least = max(1, max(pixels[3::4]) // 2)
    return b"".join(pixels[at : at + 3] for at in range(0, len(pixels), 4) if pixels[at + 3] >= least)
