"""Encodes pictures: the only module that uses encoders."""

import io
from typing import Any, Final

from PIL import Image

from image_service.domain.image import ImageFormat
from image_service.domain.recipe import Effort, OutputFormat, Preset

_WEBP_METHODS: Final = {Effort.FAST: 2, Effort.SMALL: 4}
_AVIF_SPEEDS: Final = {Effort.FAST: 10, Effort.SMALL: 8}
_BACKGROUND: Final = "white"
"""The background of transparent pixels in a format without transparency."""


def output_format(image: Image.Image, preset: Preset) -> ImageFormat:
    """Return the format of the picture under the preset."""
    if preset.format is OutputFormat.AUTO:
        return ImageFormat.WEBP if image.mode == "RGBA" else ImageFormat.JPEG
    return ImageFormat(preset.format.value)


def encode(image: Image.Image, preset: Preset) -> memoryview:
    """Return the picture as a file without metadata.

    Args:
        image: In mode L, RGB or RGBA, the last only where a pixel is transparent.
        preset: Gives format, quality and effort.
    """
    # Encoders would write the comments, profiles and densities in it.
    image.info.clear()
    image_format = output_format(image, preset)
    if image_format is ImageFormat.JPEG and image.mode == "RGBA":
        image = _on_background(image)
    data = io.BytesIO()
    image.save(data, image_format.value, **_options(image_format, preset))
    return data.getbuffer()


def _options(image_format: ImageFormat, preset: Preset) -> dict[str, Any]:
    match image_format:
        case ImageFormat.WEBP:
            return {"quality": preset.quality, "method": _WEBP_METHODS[preset.effort]}
        case ImageFormat.AVIF:
            return {"quality": preset.quality, "speed": _AVIF_SPEEDS[preset.effort]}
        case ImageFormat.JPEG:
            return {"quality": preset.quality}
        case _:
            return {}


def _on_background(image: Image.Image) -> Image.Image:
    background = Image.new("RGB", image.size, _BACKGROUND)
    background.paste(image, mask=image)
    return background
