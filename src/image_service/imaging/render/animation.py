"""Renders animations as animations, frame by frame: neither all decoded nor all finished frames are in memory."""

import resource
import time
import warnings
from typing import Final

from PIL import Image

from image_service.domain.geometry import output_size, scaled_size
from image_service.domain.image import ImageFormat, ImageHeader
from image_service.domain.recipe import Animation, Fit, Output, OutputFormat
from image_service.errors import ImageTooLarge
from image_service.imaging.encoders import gif, webp
from image_service.imaging.formats import read_animation, read_colour, read_frames, read_orientation
from image_service.imaging.formats.animation import Outline
from image_service.imaging.limits import (
    MAX_ANIMATION_BYTES,
    MAX_ANIMATION_PIXELS,
    MAX_FRAMES,
    MAX_FRAMES_PIXELS,
    RenderLimits,
)
from image_service.imaging.render import frames
from image_service.imaging.render.colour.conversion import to_srgb
from image_service.imaging.render.encoding import WEBP_METHODS, Encoded
from image_service.imaging.resizing import resize

_FORMATS: Final = {
    OutputFormat.AUTO: ImageFormat.WEBP,
    OutputFormat.WEBP: ImageFormat.WEBP,
    OutputFormat.GIF: ImageFormat.GIF,
}
_SHARE: Final = 1 / 3
"""Of the processor time that is left of an image, which one animation may take: other outputs need time too."""
_UPRIGHT: Final = 1

Crop = tuple[int, int, int, int]
"""Left, upper, right and lower edge of the part of the scaled picture that is kept, in pixels."""


def animate(
    content: bytes,
    header: ImageHeader,
    output: Output,
    limits: RenderLimits,
    *,
    crop: Crop | None = None,
    seconds: float | None = None,
) -> Encoded | None:
    """Return an animation as an output that keeps it, without metadata.

    Each frame has the size and the colours that a still of it would have, and browsers show it as long. It is neither
    sharpened nor resized in linear light.

    Args:
        content: The original, with its animation: not stripped.
        header: Its format and size.
        output: What to make of it.
        limits: Of the process.
        crop: What ``cover`` keeps; its middle if left out.
        seconds: The processor time it may take; a third of what is left of the image's if left out.

    Returns:
        None where a still is to be made of the first frame instead: the output is no animation, or its format has none;
        there is only one frame, or the second is damaged; EXIF says that it is to be turned; or it takes more frames,
        pixels, bytes, memory or time than allowed.
    """
    outline = _outline(content, header, output, limits.max_pixels)
    if outline is None:
        return None
    ends = time.process_time() + (_seconds_left(limits) * _SHARE if seconds is None else seconds)
    with warnings.catch_warnings():
        # Codecs warn of flaws that do not stop them.
        warnings.simplefilter("ignore")
        try:
            encoded = _encode(content, header, output, outline.plays, crop, ends)
        except MemoryError:
            return None
    return Encoded(_FORMATS[output.format], memoryview(encoded)) if encoded else None


def _outline(content: bytes, header: ImageHeader, output: Output, max_pixels: int) -> Outline | None:
    """Return the outline of an animation that is to be kept, and that is within the limits."""
    if output.animation is not Animation.KEEP or output.format not in _FORMATS:
        return None
    try:
        found = read_animation(content, header.format, MAX_FRAMES)
    except ImageTooLarge:
        return None
    if found is None or len(found.places) > MAX_FRAMES or read_orientation(content, header.format) != _UPRIGHT:
        return None
    count, areas = len(found.places), [each.width * each.height for each in found.places]
    drawn = count * header.width * header.height + sum(areas)
    width, height = output_size(header.width, header.height, output)
    within = max(areas) <= max_pixels and drawn <= MAX_FRAMES_PIXELS and count * width * height <= MAX_ANIMATION_PIXELS
    return found if within else None


def _seconds_left(limits: RenderLimits) -> float:
    """Return the processor time after which the kernel ends the process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_CPU)
    return limits.cpu_seconds if soft == resource.RLIM_INFINITY else soft - time.process_time()


def _encode(
    content: bytes, header: ImageHeader, output: Output, plays: int, crop: Crop | None, ends: float
) -> bytes | None:
    """Return the file; None if it takes longer or has more bytes than allowed, or if only one frame is sound.

    Raises:
        MemoryError: there is too little.
    """
    canvas = header.width, header.height
    writer = _writer(output_size(*canvas, output), output, plays)
    scaled = scaled_size(*canvas, output)
    signals = read_colour(content, header.format)
    count = 0
    for picture, milliseconds in frames.draw(read_frames(content, header.format), header):
        # In the small picture, colours take less time.
        small = _cut(picture, scaled, writer.size, crop) if output.fit is Fit.COVER else resize(picture, scaled)
        writer.add(_pad(to_srgb(small, signals), writer.size, output.background), milliseconds)
        count += 1
        if time.process_time() > ends or writer.size_bytes > MAX_ANIMATION_BYTES:
            return None
    encoded = writer.finish() if count > 1 else b""
    return encoded if 0 < len(encoded) <= MAX_ANIMATION_BYTES else None


def _writer(size: tuple[int, int], output: Output, plays: int) -> gif.Writer | webp.Writer:
    if output.format is OutputFormat.GIF:
        return gif.Writer(size, plays=plays, background=output.background)
    quality = output.webp_quality if output.format is OutputFormat.AUTO else output.quality
    return webp.Writer(size, plays=plays, quality=quality, method=WEBP_METHODS[output.effort])


def _cut(image: Image.Image, scaled: tuple[int, int], size: tuple[int, int], crop: Crop | None) -> Image.Image:
    """Return the part of the picture that is kept, scaled. The whole may be too large to be made, if it is thin."""
    left, top = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
    part = crop or (left, top, left + size[0], top + size[1])
    if image.size == scaled:
        return image.crop(part)
    across, down = image.width / scaled[0], image.height / scaled[1]
    return resize(image, size, (part[0] * across, part[1] * down, part[2] * across, part[3] * down))


def _pad(image: Image.Image, size: tuple[int, int], background: str) -> Image.Image:
    """Return the picture in the middle of the background, which shows through transparent pixels, as in stills."""
    if image.size == size:
        return image
    padded = Image.new("RGB", size, background)
    at = (size[0] - image.width) // 2, (size[1] - image.height) // 2
    padded.paste(image, at, image if image.mode == "RGBA" else None)
    return padded
