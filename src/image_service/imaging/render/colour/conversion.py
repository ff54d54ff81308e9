"""Converts pictures of eight bits a sample to sRGB."""

import io
from functools import lru_cache
from itertools import chain, product
from typing import Final

from PIL import Image, ImageChops, ImageCms

from image_service.imaging.formats.colour import Cicp, Gamma, Profile, Signal
from image_service.imaging.render.colour import icc
from image_service.imaging.render.colour.spaces import Unusable, is_high_dynamic_range, space, to_d50

_MODES: Final = {b"GRAY": "L", b"RGB ": "RGB", b"CMYK": "CMYK"}
"""Pillow's mode for the colour spaces that a profile may be for (ICC.1 §7.2.6)."""
_SPACE: Final = slice(16, 20)
"""Where a profile's header names the colour space that it is for."""
_SRGB: Final = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_ALIKE: Final = 1
"""Levels by which spaces differ that count as sRGB: makers of profiles round differently."""
_STEPS: Final = (0, 16, 51, 102, 153, 204, 255)
_SAMPLES: Final = {
    "L": Image.frombytes("L", (256, 1), bytes(range(256))),
    "RGB": Image.frombytes("RGB", (len(_STEPS) ** 3, 1), bytes(chain.from_iterable(product(_STEPS, repeat=3)))),
}
"""Colours by which a space is compared with sRGB."""


def to_srgb(image: Image.Image, signals: tuple[Signal, ...]) -> Image.Image:
    """Return the image in grey or RGB, in the sRGB colour space, with its transparency.

    Args:
        image: In mode L, RGB, RGBA or CMYK.
        signals: What its file says about its colours. The first that is not malformed counts.
    """
    opaque = image.convert("RGB") if signals and image.mode == "RGBA" else image
    for signal in signals:
        try:
            converted = _convert(opaque, signal)
        except Unusable:
            continue
        if converted is None:
            break
        if image.mode == "RGBA":
            converted.putalpha(image.getchannel("A"))
        return converted
    return image.convert("RGB") if image.mode == "CMYK" else image


def is_srgb(signal: Signal) -> bool:
    """Whether the signal stands for sRGB, or for grey with its curve, or is malformed."""
    if is_high_dynamic_range(signal):
        return False
    grey = isinstance(signal, Profile) and _MODES.get(signal.content[_SPACE]) == "L"
    try:
        return _transform(signal, "L" if grey else "RGB") is None
    except Unusable:
        return True


def _convert(image: Image.Image, signal: Signal) -> Image.Image | None:
    """Return the image, converted from what the signal says; None where that would change nothing.

    Raises:
        Unusable: the signal is malformed.
    """
    if image.mode == "CMYK" and not isinstance(signal, Profile):
        # Code points, such as those in a profile for RGB, say nothing about inks.
        return None
    if is_high_dynamic_range(signal):
        return _in_floating_point(image, signal)
    suitable = _suitable(image, signal.content) if isinstance(signal, Profile) else image
    if suitable is None:
        # A sound profile that does not fit is the last word, as in browsers; a malformed one is none.
        return None
    transform = _transform(signal, suitable.mode)
    return transform.apply(suitable) if transform else None


def _suitable(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Return the image in the mode that the profile is for; None if it is for another kind of picture.

    Raises:
        Unusable: the profile is for another kind of picture, and malformed; or for none of the known kinds.
    """
    mode = _MODES.get(profile[_SPACE])
    if mode is None:
        raise Unusable
    if mode == image.mode:
        return image
    if mode == "RGB" and image.mode == "L":
        return image.convert(mode)
    # Grey with alpha is decoded as RGBA.
    if mode == "L" and image.mode == "RGB" and (grey := _grey(image)):
        return grey
    _transform(Profile(profile), mode)
    return None


def _grey(image: Image.Image) -> Image.Image | None:
    """Return the image in one channel; None if it has other colours than grey."""
    red, green, blue = image.split()
    return None if any(ImageChops.difference(red, other).getbbox() for other in (green, blue)) else red


def _in_floating_point(image: Image.Image, signal: Signal) -> Image.Image:
    # Loaded for the first picture that needs it: few processes ever get one, and NumPy takes 20 MB.
    from image_service.imaging.render.colour import floating  # noqa: PLC0415 — see above

    return floating.to_image(floating.to_srgb(floating.samples_of(image), signal))


@lru_cache(maxsize=8)
def _transform(signal: Signal, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion to sRGB, which takes milliseconds to prepare; None where it would change nothing.

    Raises:
        Unusable: the signal describes no colour space for pictures of this mode.
    """
    try:
        content = signal.content if isinstance(signal, Profile) else _write_profile(signal, grey=mode == "L")
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(content)),
            _SRGB,
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError) as error:
        raise Unusable from error
    return None if mode in _SAMPLES and _changes_nothing(transform, _SAMPLES[mode]) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform, samples: Image.Image) -> bool:
    """Whether the space is sRGB, judged by the outcome for its colours: names of profiles are often wrong."""
    difference = ImageChops.difference(transform.apply(samples), samples.convert("RGB"))
    return difference.point([int(level > _ALIKE) for level in range(256)] * 3).getbbox() is None


def _write_profile(signal: Cicp | Gamma, *, grey: bool) -> bytes:
    """Return the signal as a profile.

    Raises:
        Unusable: it names no colour space, or none that is known.
        ValueError: its numbers make no colour space.
    """
    points, curve = space(signal)
    # Impossible primaries make the signal malformed, also for grey.
    matrix = to_d50(points)
    return icc.write(curve, None if grey else matrix)
