"""Renders pictures of more than eight bits a sample whose colours need a conversion: it is done before the reduction.

Otherwise the dark tones of a picture with linear samples, or most tones of one with PQ, would become visible steps.
"""

import io
from typing import Final

from PIL import Image

from image_service.domain.image import ImageFormat
from image_service.imaging.decoders import high_depth
from image_service.imaging.formats.colour import Signal
from image_service.imaging.render.colour.conversion import is_srgb
from image_service.imaging.render.colour.spaces import Unusable
from image_service.imaging.resizing import resize_samples

_WITH_ALPHA: Final = 4
"""The number of channels of a picture with transparency."""


def render(
    file: io.BytesIO, image_format: ImageFormat, opened: Image.Image, signals: tuple[Signal, ...], size: tuple[int, int]
) -> Image.Image | None:
    """Return the picture in sRGB with eight bits a sample; None if it has no more, or has to be converted afterwards.

    Args:
        file: The file.
        image_format: Its format.
        opened: The same, as opened by Pillow.
        signals: What the file says about its colours.
        size: Width and height to scale the picture to, not larger than its own.
    """
    content = file.getvalue()
    if not signals or not high_depth.is_decodable(opened, content, image_format) or is_srgb(signals[0]):
        return None
    samples = high_depth.decode(opened, content, image_format)
    if samples is None:
        return None
    from image_service.imaging.render.colour import floating  # noqa: PLC0415 — it loads NumPy

    try:
        small = resize_samples(samples, size)
        converted = floating.to_image(floating.to_srgb(small[..., :3], signals[0]))
    except (ImportError, Unusable):
        return None
    if small.shape[2] == _WITH_ALPHA:
        converted.putalpha(floating.to_image(floating.to_eight_bits(small[..., 3:])))
    return converted
