"""Converts pictures from an embedded colour profile to sRGB."""

import io
import math
from functools import lru_cache
from typing import Final

from PIL import Image, ImageCms

from image_service.imaging.limits import MAX_PROFILE_BYTES

_SPACES: Final = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
"""The colour space that a profile must be for, by Pillow mode (ICC.1 §7.2.6)."""
_SPACE: Final = slice(16, 20)
"""Where a profile's header names the colour space that it is for."""
_SRGB: Final = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_SAME: Final = 0.002
"""By how much the primaries of profiles for the same space differ: their makers round differently."""


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return the image in grey or RGB, in the sRGB colour space, with its transparency.

    A profile that is malformed, or made for another colour space than the image's, is ignored, as browsers do.

    Args:
        image: In mode L, RGB, RGBA or CMYK.
        profile: The ICC profile embedded in the file.
    """
    opaque = _opaque(image, grey=profile is not None and profile[_SPACE] == b"GRAY")
    transform = _transform(profile, opaque.mode) if profile and len(profile) <= MAX_PROFILE_BYTES else None
    if transform is None:
        return image.convert("RGB") if image.mode == "CMYK" else image
    converted = transform.apply(opaque)
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return converted


def _opaque(image: Image.Image, *, grey: bool) -> Image.Image:
    """Return the image without alpha; in one channel if it has only greys and ``grey`` is set."""
    if image.mode != "RGBA":
        return image
    # Grey with alpha is decoded as RGBA too, and its profile is for one channel.
    if grey and image.getchannel("R") == image.getchannel("G") == image.getchannel("B"):
        return image.getchannel("R")
    return image.convert("RGB")


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion to sRGB, which takes milliseconds to prepare; None where none is needed or possible."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode] or _is_srgb(source):
            return None
        return ImageCms.buildTransform(
            source,
            _SRGB,
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    # The name alone is not enough: "Display P3 Gamut with sRGB Transfer" is a common one.
    core, srgb = profile.profile, _SRGB.profile
    if "sRGB" not in (core.profile_description or ""):
        return False
    pairs = (
        (core.red_colorant, srgb.red_colorant),
        (core.green_colorant, srgb.green_colorant),
        (core.blue_colorant, srgb.blue_colorant),
    )
    return all(
        found and wanted and all(math.isclose(a, b, abs_tol=_SAME) for a, b in zip(found[0], wanted[0], strict=True))
        for found, wanted in pairs
    )
