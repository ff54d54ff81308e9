"""From an embedded colour profile to sRGB."""

import io
from functools import lru_cache
from typing import Final

from PIL import Image, ImageCms

MAX_PROFILE_BYTES: Final = 4 * 1024 * 1024
"""Larger profiles are ignored; a press profile with fine tables has about 2 MB."""

_SPACES: Final = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
"""The colour space that a profile must be for, by Pillow mode (ICC.1 §7.2.6)."""
_SRGB: Final = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An image in grey or RGB, in the sRGB colour space, with the transparency it had.

    A profile that is malformed, or made for another colour space than the image's, is ignored, as browsers do.

    Args:
        image: In mode L, RGB, RGBA or CMYK.
        profile: The ICC profile embedded in the file.
    """
    opaque = image.convert("RGB") if image.mode == "RGBA" else image
    transform = _transform(profile, opaque.mode) if profile and len(profile) <= MAX_PROFILE_BYTES else None
    if transform is None:
        return image.convert("RGB") if image.mode == "CMYK" else image
    converted = transform.apply(opaque)
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return converted


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion to sRGB, which takes milliseconds to prepare; None where nothing is to be done."""
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
    return "sRGB" in (profile.profile.profile_description or "")
