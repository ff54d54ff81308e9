"""Encodes pictures, in every format of outputs."""

import io
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from PIL import Image

from image_service.domain.image import ImageFormat
from image_service.domain.recipe import Effort, Output, OutputFormat
from image_service.imaging.encoders import gif, libjxl

WEBP_METHODS: Final = {Effort.FAST: 2, Effort.SMALL: 4}
_WEBP_LOSSLESS: Final = {Effort.FAST: {"method": 1, "quality": 20}, Effort.SMALL: {"method": 4, "quality": 75}}
"""The quality is an effort here, too. Method 0 takes as long and makes twice the bytes: it uses no palette."""
_AVIF_SPEEDS: Final = {Effort.FAST: 10, Effort.SMALL: 8}
_JXL_EFFORTS: Final = {Effort.FAST: 3, Effort.SMALL: 5}
_FULL_COLOUR: Final = {"subsampling": 0}
"""JPEG 4:4:4. By default, four pixels share one colour."""

_FEW_COLOURS: Final = 1024
_PIXELS_PER_COLOUR: Final = 200
"""A picture with more than both is hardly ever smaller without loss, and takes the longest to encode so."""


class Encoded(NamedTuple):
    """A picture as a file."""

    format: ImageFormat
    content: memoryview


def prepare(formats: Iterable[OutputFormat]) -> None:
    """Load the encoders of these formats that are optional dependencies.

    Before the sandbox forbids it, and before an image's time runs.

    Raises:
        ImportError: one is not installed, or its version is not known.
    """
    if OutputFormat.JXL in formats:
        libjxl.load()


def encode(image: Image.Image, output: Output, *, graphic: bool = False) -> Encoded:
    """Return the picture as a file without metadata.

    Args:
        image: In mode L, RGB or RGBA, the last only where a pixel is transparent.
        output: Gives format, quality, effort, and the background of transparent pixels in formats without transparency.
        graphic: Whether it was drawn by a computer, so that a loss of sharp colours shows; for a format of ``auto``.

    Raises:
        ImportError: the format's encoder is an optional dependency, and not installed.
        MemoryError: there is too little.
    """
    # Encoders would write the comments, profiles and densities in it.
    image.info.clear()
    if output.format is OutputFormat.AUTO:
        return _automatic(image, output, graphic=graphic)
    image_format = ImageFormat(output.format.value)
    match image_format:
        case ImageFormat.JXL:
            content = libjxl.encode(image, output.quality, _JXL_EFFORTS[output.effort])
            return Encoded(image_format, memoryview(content))
        case ImageFormat.GIF:
            return Encoded(image_format, memoryview(gif.encode(image, output.background)))
        case ImageFormat.JPEG if image.mode == "RGBA":
            image = _on_background(image, output.background)
    return _save(image, image_format, _options(image_format, output))


def _automatic(image: Image.Image, output: Output, *, graphic: bool) -> Encoded:
    """Return a graphic without loss if that takes no more bytes."""
    image_format = ImageFormat.WEBP if image.mode == "RGBA" else ImageFormat.JPEG
    options = _options(image_format, output)
    if not graphic:
        return _save(image, image_format, options)
    lossy = _save(image, image_format, options if image_format is ImageFormat.WEBP else options | _FULL_COLOUR)
    if image.getcolors(max(_FEW_COLOURS, image.width * image.height // _PIXELS_PER_COLOUR)) is None:
        return lossy
    lossless = _save(image, ImageFormat.WEBP, {"lossless": True, **_WEBP_LOSSLESS[output.effort]})
    return lossless if len(lossless.content) <= len(lossy.content) else lossy


def _save(image: Image.Image, image_format: ImageFormat, options: dict[str, Any]) -> Encoded:
    data = io.BytesIO()
    image.save(data, image_format.value, **options)
    return Encoded(image_format, data.getbuffer())


def _options(image_format: ImageFormat, output: Output) -> dict[str, Any]:
    match image_format:
        case ImageFormat.WEBP:
            quality = output.webp_quality if output.format is OutputFormat.AUTO else output.quality
            return {"quality": quality, "method": WEBP_METHODS[output.effort]}
        case ImageFormat.AVIF:
            return {"quality": output.quality, "speed": _AVIF_SPEEDS[output.effort]}
        case ImageFormat.JPEG:
            return {"quality": output.quality}
        case _:
            return {}


def _on_background(image: Image.Image, colour: str) -> Image.Image:
    background = Image.new("RGB", image.size, colour)
    background.paste(image, mask=image)
    return background
