"""Which fields of a preset fit together, and how many files and pixels a recipe may ask for.

Each rule yields problems: the key that is wrong, as a path in the preset or recipe, and a sentence that says what is
allowed.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from image_service.config.decoders import explain_missing
from image_service.config.recipe_fields import MAX_SIDE, has_quality
from image_service.domain.geometry import MAX_OUTPUT_PIXELS
from image_service.domain.recipe import Animation, Fit, OutputFormat, Preset, Recipe

MAX_OUTPUTS: Final = 64
"""Of a recipe."""
MAX_PIXELS_OF_ALL: Final = 150_000_000
"""Of all boxes of a recipe, which are filled within DECODE_TIMEOUT."""

_BOXES: Final = frozenset({Fit.COVER, Fit.PAD, Fit.OUTSIDE})
_ANIMATED: Final = (OutputFormat.AUTO, OutputFormat.WEBP, OutputFormat.GIF)
_MADE_BY_AUTO: Final = (OutputFormat.JPEG, OutputFormat.WEBP)
_EXTRAS: Final = frozenset({OutputFormat.JXL})
"""Formats whose encoder is an optional dependency."""

Problem = tuple[tuple[str | int, ...], str]


def of_preset(preset: Preset, given: Mapping[str, object]) -> Iterator[Problem]:
    """Yields the problems of a preset; ``given`` has the fields that the file contains."""
    yield from _of_box(preset, given)
    yield from _of_formats(preset)
    if not isinstance(preset.quality, int):
        made = {kind for each in preset.formats for kind in (_MADE_BY_AUTO if each is OutputFormat.AUTO else (each,))}
        allowed = [each for each in OutputFormat if each in made and has_quality(each)]
        for each, _ in preset.quality:
            if each not in allowed:
                what = f"allowed are {', '.join(allowed)}" if allowed else "its formats have no quality"
                yield ("quality", each.value), f"quality is given for {each}, which this preset does not make: {what}"


def of_names(names: Iterable[object]) -> Iterator[Problem]:
    """Yields the presets, by position, whose name another one has; capitals make no difference in some file systems."""
    seen = set()
    for position, name in enumerate(names):
        if isinstance(name, str):
            if name.lower() in seen:
                yield (position, "name"), f'name = "{name}": another preset has it; allowed is each name once'
            seen.add(name.lower())


def of_recipe(recipe: Recipe) -> Iterator[Problem]:
    """Yields the problems of a recipe whose presets are valid."""
    if not recipe.required:
        yield ("presets",), f"all presets of {recipe.name} are optional: at least one must not be"
    if (count := len(recipe.outputs)) > MAX_OUTPUTS:
        yield (), f"{recipe.name} has {count} outputs, one for each format and dpr; allowed are {MAX_OUTPUTS}"
    pixels = sum(min(MAX_OUTPUT_PIXELS, _square(each.width, each.height)) for each in recipe.outputs)
    if pixels > MAX_PIXELS_OF_ALL:
        yield (), f"the outputs of {recipe.name} have {pixels:,} pixels; allowed are {MAX_PIXELS_OF_ALL:,}"


def _of_box(preset: Preset, given: Mapping[str, object]) -> Iterator[Problem]:
    sides = {"width": preset.width, "height": preset.height}
    missing = [name for name, side in sides.items() if side is None]
    if len(missing) == len(sides):
        yield (), f"{preset.name} has neither width nor height: at least one is needed"
    elif missing and preset.fit in _BOXES:
        yield ("fit",), f'fit = "{preset.fit}" needs width and height: {missing[0]} is missing; allowed is "inside"'
    if "gravity" in given and preset.fit is not Fit.COVER:
        yield ("gravity",), f'gravity has no effect with fit = "{preset.fit}": it is allowed with "cover" only'
    largest = max(preset.dpr)
    for name, side in sides.items():
        if side is not None and side * largest > MAX_SIDE:
            size = f"{side * largest} pixels at dpr {largest}"
            yield (name,), f"{name} = {side} makes {size}: allowed are {MAX_SIDE}"
    # Where a side is missing, the renderer keeps to the limit for each image.
    pixels = (preset.width or 0) * (preset.height or 0) * largest**2
    if pixels > MAX_OUTPUT_PIXELS:
        yield (), f"{preset.name} has {pixels:,} pixels at dpr {largest}: allowed are {MAX_OUTPUT_PIXELS:,}"


def _of_formats(preset: Preset) -> Iterator[Problem]:
    for position, each in enumerate(preset.formats):
        place = ("formats", position)
        if preset.animation is Animation.KEEP and each not in _ANIMATED:
            yield place, f'{each} has no animation: with animation = "keep" allowed are {", ".join(_ANIMATED)}'
        if preset.animation is not Animation.KEEP and each is OutputFormat.GIF:
            yield place, 'gif is for animations: it is allowed with animation = "keep" only'
        if each in _EXTRAS and (missing := explain_missing(each.value)):
            yield place, missing


def _square(width: int | None, height: int | None) -> int:
    """Returns the pixels of a box; where a side is missing, those of a square."""
    return (width or height or 0) * (height or width or 0)
