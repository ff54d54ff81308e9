"""Decodes the frames of an animation, one at a time, and draws them on its canvas as browsers do."""

import io
from collections.abc import Iterator

from PIL import Image

from image_service.domain.image import ImageFormat, ImageHeader
from image_service.errors import CorruptImage, InvalidImage
from image_service.imaging.formats.animation import Disposal, Frame
from image_service.imaging.render import decode
from image_service.imaging.render.pixel_modes import normalise

_NOTHING = (0, 0, 0, 0)


def draw(frames: Iterator[Frame], header: ImageHeader) -> Iterator[tuple[Image.Image, float]]:
    """Yield the canvas after each frame, in mode RGB or RGBA, and for how many milliseconds it is shown.

    It is valid until the next one is asked for.

    The canvas is transparent at first, whatever background the file names. A damaged frame ends the animation.

    Args:
        frames: The frames, in their order.
        header: Gives the format, and the size of the canvas.

    Raises:
        MemoryError: there is too little.
    """
    canvas = Image.new("RGBA", (header.width, header.height))
    for frame in frames:
        left, top, width, height = frame.place
        area = left, top, min(left + width, canvas.width), min(top + height, canvas.height)
        visible = area[0] < area[2] and area[1] < area[3]
        before = canvas.crop(area) if visible and frame.disposal is Disposal.RESTORE else None
        if visible:
            try:
                _draw(canvas, frame, area, header.format)
            except InvalidImage:
                return
        yield normalise(canvas), frame.milliseconds
        if before:
            canvas.paste(before, area)
        elif visible and frame.disposal is Disposal.CLEAR:
            canvas.paste(_NOTHING, area)


def _draw(canvas: Image.Image, frame: Frame, area: tuple[int, int, int, int], image_format: ImageFormat) -> None:
    """Draw a frame; the area is the part of it that is on the canvas.

    Raises:
        CorruptImage: it is damaged.
        ImageTooLarge: the decoder refuses its size.
    """
    _, _, width, height = frame.place
    with io.BytesIO(frame.still) as file:
        opened = decode.open_image(file, ImageHeader(format=image_format, width=width, height=height))
        if opened.size != (width, height):
            raise CorruptImage("A frame of the animation is not as large as the file says.")
        image = decode.decode(opened, file, image_format)
        with decode.verdicts():
            picture = normalise(image)
    left, top, right, lower = area
    picture = picture.crop((0, 0, right - left, lower - top))
    if picture.mode == "RGBA" and frame.blend:
        canvas.alpha_composite(picture, (left, top))
    else:
        canvas.paste(picture, (left, top))
