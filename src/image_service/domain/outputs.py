"""The outputs of one image: their names, and which of them show the same picture."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import gcd
from typing import Final, NamedTuple

from image_service.domain.image import Image, ImageFormat, Thumbnail
from image_service.domain.recipe import Fit, OutputFormat, Preset, Recipe

MAX_NAME: Final = 72
"""Characters of a name that can be one: those of its column, and an explicit extension."""

_EXTENSIONS: Final = "|".join(each.extension for each in OutputFormat if each.extension)
_NAME: Final = re.compile(rf"(?P<preset>[^@.]+)(?:@(?P<dpr>[1-9]\d?)x)?(?:\.(?P<extension>{_EXTENSIONS}))?", re.ASCII)
_EXTENSION_OF: Final = {each.content_type: each.extension for each in ImageFormat}
_REMEMBERED: Final = 4096
"""Names that are parsed once: images share the few of their recipes."""


class OutputName(NamedTuple):
    """The parts of an output's name."""

    preset: str
    dpr: int = 1
    extension: str | None = None
    """Without the dot; None: the preset's default format."""


class Density(NamedTuple):
    """The files of one preset for one pixel density."""

    name: OutputName
    default: Thumbnail
    variants: tuple[Thumbnail, ...]
    """The same picture in other formats."""


@lru_cache(maxsize=_REMEMBERED)
def parse_output_name(name: str) -> OutputName:
    """Returns the preset, pixel density and extension of an output, such as ``hero@2x.webp``.

    A name of another form is all preset.
    """
    match = _NAME.fullmatch(name) if len(name) <= MAX_NAME else None
    if match is None:
        return OutputName(name)
    return OutputName(match["preset"], int(match["dpr"] or 1), match["extension"])


def explicit_name(thumbnail: Thumbnail) -> str:
    """Returns the name of a file with the extension of its format: ``hero@2x.jpg`` for the output ``hero@2x``."""
    if parse_output_name(thumbnail.output).extension is not None:
        return thumbnail.output
    return f"{thumbnail.output}.{_EXTENSION_OF[thumbnail.content_type]}"


def densities(thumbnails: Iterable[Thumbnail]) -> Sequence[Density]:
    """Returns the files with a default output, by preset and pixel density, in the order of the default outputs."""
    defaults: dict[tuple[str, int], tuple[OutputName, Thumbnail]] = {}
    variants: dict[tuple[str, int], list[Thumbnail]] = {}
    for thumbnail in thumbnails:
        name = parse_output_name(thumbnail.output)
        if name.extension is None:
            defaults[name.preset, name.dpr] = name, thumbnail
        else:
            variants.setdefault((name.preset, name.dpr), []).append(thumbnail)
    return [Density(name, made, tuple(variants.get(key, ()))) for key, (name, made) in defaults.items()]


def same_picture(image: Image, recipe: Recipe | None) -> Sequence[Density]:
    """Returns the files that show the same picture as the first preset of the recipe that the image has.

    ``inside`` and ``outside`` show all of the image, so that all presets of these belong together; of the others, those
    whose boxes have the same shape, and that cut off or add the same. An animation and a single frame are different
    pictures.

    Args:
        image: The image.
        recipe: Its recipe. If it is None, or has none of the image's presets, its files are compared by their shape:
            those that belong together have the image's own, or else are those of the first preset.
    """
    found = densities(image.thumbnails)
    if len(found) > 1 and recipe is not None:
        made = {each.name.preset for each in found}
        presets = {preset.name: preset for preset in recipe.presets if preset.name in made}
        if presets:
            return _of_one_picture(found, presets)
    return _of_one_shape(found, image)


def _of_one_picture(found: Sequence[Density], presets: Mapping[str, Preset]) -> Sequence[Density]:
    first = _picture(next(iter(presets.values())))
    return [
        each for each in found if (preset := presets.get(each.name.preset)) is not None and _picture(preset) == first
    ]


def _picture(preset: Preset) -> tuple[object, ...]:
    """Returns what decides which part of the image is shown, and how."""
    width, height = preset.width, preset.height
    if preset.fit in {Fit.INSIDE, Fit.OUTSIDE} or width is None or height is None:
        return (preset.animation,)
    common = gcd(width, height)
    look = preset.gravity if preset.fit is Fit.COVER else preset.background
    return preset.animation, preset.fit, look, width // common, height // common


def _of_one_shape(found: Sequence[Density], image: Image) -> Sequence[Density]:
    whole = [each for each in found if _has_shape(each.default, image)]
    return whole or [each for each in found if each.name.preset == found[0].name.preset]


def _has_shape(thumbnail: Thumbnail, image: Image) -> bool:
    """Whether it has the aspect ratio of the image, to a pixel."""
    width, height = image.header.width, image.header.height
    return abs(thumbnail.width * height - thumbnail.height * width) <= max(width, height)
