"""Sharpens resized pictures: an unsharp mask as strong as resizing has made fine detail weaker.

The figures behind its radius and amount: docs/decisions/0050-the-part-with-the-most-detail.md.
"""

from typing import Final

from PIL import Image, ImageFilter


def sharpen(image: Image.Image) -> Image.Image:
    """Return the image with sharper edges; of the same mode and size.

    Alpha stays as it is, and invisible pixels have no effect on visible ones. So do the outermost pixels stay.

    Args:
        image: In mode L, RGB or RGBA, already at its final size.
    """
    if image.mode != "RGBA":
        return image.filter(_SHARPEN)
    # Divided by its alpha, the blurred picture has the mean colour of the visible neighbours only.
    blurred = image.convert("RGBa").filter(_BLUR).convert("RGBA")
    sharp = Image.blend(blurred, image, 1 + _AMOUNT)
    # Where there is next to no alpha, premultiplied colours have few levels: such pixels stay as they are.
    alpha = image.getchannel("A")
    sharp = Image.composite(sharp, image, alpha.point(_VISIBLE))
    sharp.putalpha(alpha)
    return sharp


_AMOUNT: Final = 0.4
"""By which share of the difference between the picture and its blurred copy it is changed."""
_FAINT: Final = 16
"""Alpha below which a colour is not sharpened."""
_VISIBLE: Final = [0 if alpha < _FAINT else 255 for alpha in range(256)]
_WEIGHTS: Final = (1, 4, 1, 4, 16, 4, 1, 4, 1)
"""A Gaussian with a radius (sigma) of 0.6 pixels."""
_BLUR: Final = ImageFilter.Kernel((3, 3), _WEIGHTS)
# Blurring and the difference in one: half the time.
_SHARPEN: Final = ImageFilter.Kernel(
    (3, 3),
    [
        (1 + _AMOUNT) * sum(_WEIGHTS) * (place == len(_WEIGHTS) // 2) - _AMOUNT * each
        for place, each in enumerate(_WEIGHTS)
    ],
)
