"""Resizes in linear light: fine bright lines keep the brightness that they have from afar.

Pillow does all of it, in whole numbers of 32 bits. What it is worth and what it costs:
docs/decisions/0050-the-part-with-the-most-detail.md.
"""

import math
from itertools import pairwise
from typing import Any, Final

from PIL import Image, ImageMath

from image_service.imaging.resizing import Box, whole

_FINEST: Final = 65535
"""Light of white. Twenty steps are the first level of sRGB, so that dark tones keep all of theirs."""
_GAP: Final = 4
"""Very large reductions are averaged down to this many times the size first, as in ``resizing``, but in light."""
_STRIP: Final = 1 << 19
"""Pixels that are light at a time: up to 8 MB with alpha. Half as many take a tenth more time."""


def resize(image: Image.Image, size: tuple[int, int], box: Box | None = None) -> Image.Image:
    """Return the image, or the part of it in the box, at the given size, resampled with Lanczos in linear light.

    Pixels are weighted by their alpha, so that the colour of invisible ones does not bleed in. A plain colour stays as
    it is. Beside the images it takes four bytes for each channel of a picture as wide as the result and at most eight
    times as high, or as high as the part.

    Args:
        image: In mode L, RGB or RGBA, with values of sRGB or nearly so. It should not have been scaled on load, as
            decoders average encoded values.
        size: Width and height in pixels.
        box: The part of the image to take; all of it if left out. Pixels that lie outside have no effect.
    """
    box = box or whole(image)
    if image.size == size and box == whole(image):
        return image
    top, step = math.floor(box[1]), _factor(box[3] - box[1], size[1])
    edges = 0, (box[1] - top) / step, size[0], (box[3] - top) / step
    planes = [each.resize(size, _FILTER, edges) for each in _across(image, size, box)]
    if image.mode != "RGBA":
        return Image.merge(image.mode, [_encoded(each) for each in planes])
    *colours, alpha = planes
    bands = [_encoded(ImageMath.lambda_eval(_divided, light=each, alpha=alpha)) for each in colours]
    return Image.merge(image.mode, [*bands, ImageMath.lambda_eval(_rounded, alpha=alpha).convert("L")])


def _across(image: Image.Image, size: tuple[int, int], box: Box) -> list[Image.Image]:
    """Return the channels of the part in the box as light, resampled to the new width only, and averaged where high.

    Strips of rows are converted one after the other: all of a large picture as light would take a gigabyte.
    """
    left, top, right, bottom = math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])
    steps = _factor(box[2] - box[0], size[0]), _factor(box[3] - box[1], size[1])
    rows = max(1, _STRIP // (right - left) // steps[1]) * steps[1]
    height = -(-(bottom - top) // steps[1])
    edges = (box[0] - left) / steps[0], 0, (box[2] - left) / steps[0]
    planes = [Image.new("I", (size[0], height)) for _ in image.getbands()]
    for upper in range(top, bottom, rows):
        strip = image.crop((left, upper, right, min(upper + rows, bottom)))
        for plane, light in zip(planes, _light(strip), strict=True):
            part = light.reduce(steps) if steps != (1, 1) else light
            made = part.resize((size[0], part.height), _FILTER, (*edges, part.height))
            plane.paste(made, (0, (upper - top) // steps[1]))
    return planes


def _factor(extent: float, size: int) -> int:
    return max(1, int(extent / size / _GAP))


def _light(strip: Image.Image) -> list[Image.Image]:
    """Return the channels as light; of RGBA multiplied by alpha, and alpha itself on the same scale."""
    if strip.mode != "RGBA":
        return [each.point(_LIGHT, "I") for each in strip.split()]
    *colours, alpha = strip.split()
    weights = alpha.convert("I")
    lights = [ImageMath.lambda_eval(_weighted, light=each.point(_LIGHT, "I"), alpha=weights) for each in colours]
    return [*lights, alpha.point(_ALPHA, "I")]


def _weighted(planes: dict[str, Any]) -> Any:  # noqa: ANN401 — Pillow's operands have no public type
    return planes["light"] * planes["alpha"]


def _divided(planes: dict[str, Any]) -> Any:  # noqa: ANN401 — see above
    # Where nothing is visible, the light is none either.
    share = planes["float"](planes["light"]) / planes["max"](planes["alpha"], 1)
    return planes["int"](planes["max"](planes["min"](share, 1), 0) * _FINEST + 0.5)


def _rounded(planes: dict[str, Any]) -> Any:  # noqa: ANN401 — see above
    return (planes["max"](planes["alpha"], 0) + _FINEST // 2) / _FINEST


def _encoded(light: Image.Image) -> Image.Image:
    """Return the light as values of sRGB; what resampling made darker than black or brighter than white is cut off."""
    return light.point(_LEVELS, "L")


def _decode(level: float) -> float:
    """Return the light of a level of sRGB (IEC 61966-2-1)."""
    value = level / 255
    light = value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4  # noqa: PLR2004 — see above
    return light * _FINEST


def _levels() -> list[int]:
    """Return the level of sRGB that is nearest, as levels count, to each step of light."""
    ends = [0, *(math.ceil(_decode(level - 0.5)) for level in range(1, 256)), _FINEST + 1]
    return [level for level, (begin, end) in enumerate(pairwise(ends)) for _ in range(begin, end)]


_FILTER: Final = Image.Resampling.LANCZOS
_LIGHT: Final = [round(_decode(level)) for level in range(256)]
_ALPHA: Final = [level * _FINEST for level in range(256)]
_LEVELS: Final = _levels()
