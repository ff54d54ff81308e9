"""The protocol between the pool and its decoder processes: a line of JSON per job, and one per reply.

The line of a success is followed by the thumbnails' bytes, in the order of the recipe. A process writes no files.

Whatever a process sends may be made up by the file that it decodes. ``decode_reply`` is the only place that reads a
reply's line: each field is checked against the job, has a bound, and nothing unknown is passed on. What a file contains
is checked by ``outputs``.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeVar

from image_service.domain.geometry import output_size
from image_service.domain.image import ImageFormat, ImageTraits, MetadataKind, Rendering
from image_service.domain.recipe import Animation, Recipe
from image_service.domain.variants import is_worth_a_file, repeats_lower_density
from image_service.domain.wellformed import COLOUR, MAX_DETAIL, PLACEHOLDER, one_line, output_formats
from image_service.errors import (
    CorruptImage,
    DecoderOutOfMemory,
    ImageTooLarge,
    ServiceError,
    StorageUnavailable,
    UnsupportedFormat,
)
from image_service.imaging.isolation.jobs import RECIPES, Job, line
from image_service.imaging.limits import MAX_ANIMATION_BYTES, RenderLimits
from image_service.imaging.render.steps import STEPS_OF_AN_IMAGE, STEPS_OF_AN_OUTPUT, label

MAX_LINE: Final = 64 * 1024
"""Bytes of a reply's line. The three default outputs take one KB, 64 with names of 64 characters some 30."""
_BYTES_PER_PIXEL: Final = 5
_BYTES_BESIDE_PIXELS: Final = 64 * 1024
"""A thumbnail has at most so many bytes: PNG, which compresses least, needs four and a byte per row for noise.
An animation has more, as each frame is a picture."""

_ERRORS: Final[dict[str, type[ServiceError]]] = {
    error.code: error for error in (UnsupportedFormat, CorruptImage, ImageTooLarge, DecoderOutOfMemory)
}
"""What a process may say of a file. It is not believed that the storage fails: see ``SourceUnreadable``."""

_T = TypeVar("_T")


class SourceUnreadable(Exception):
    """The process says that it cannot read the source file. It may lie: the pool finds out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A thumbnail whose bytes follow."""

    output: str
    format: ImageFormat
    width: int
    height: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The line of a success, checked."""

    width: int
    """Pixels of the original, upright."""
    height: int
    thumbnails: tuple[Announced, ...]
    traits: ImageTraits
    timings: tuple[tuple[str, float], ...]
    left_out: tuple[str, ...]
    """The names of the other outputs."""
    busy: bool
    """Whether the process still works on an optional output that it has given up."""


def encode_ready(lacking: Sequence[str]) -> bytes:
    """Return the first line of a process that is ready for jobs, with the protection it lacks."""
    return line({"lacking": lacking})


def decode_ready(line: bytes) -> tuple[str, ...]:
    """Return the protection that a process lacks, from its first line.

    Raises:
        ValueError: the line does not report readiness.
    """
    try:
        return tuple(map(str, json.loads(line)["lacking"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not ready: {line[:80]!r}") from error


def encode_rendering(number: str, rendering: Rendering, *, busy: bool = False) -> bytes:
    """Return the line for a success, which the thumbnails' bytes must follow.

    Args:
        number: Of the job.
        rendering: Its result.
        busy: Whether the process still works on an optional output that it has given up.
    """
    thumbnails = {
        each.output: [each.content_type, each.width, each.height, each.size_bytes] for each in rendering.thumbnails
    }
    traits = rendering.traits
    fields = {
        "job": number,
        "width": rendering.width,
        "height": rendering.height,
        "thumbnails": thumbnails,
        "traits": {  # asdict would copy deeply
            "placeholder": traits.placeholder,
            "dominant_colour": traits.dominant_colour,
            "metadata_removed": traits.metadata_removed,
        },
        "timings": [(name, round(seconds, 6)) for name, seconds in rendering.timings],
        "left_out": rendering.left_out,
        "busy": busy,
    }
    return line(fields)


def encode_error(number: str, error: ServiceError) -> bytes:
    """Return the line for a verdict, or for a source that cannot be read."""
    return line({"job": number, "code": error.code, "detail": error.detail})


def decode_reply(line: bytes, job: Job, limits: RenderLimits) -> Reply:
    """Return what a reply to the job says.

    Raises:
        ServiceError: the verdict in the reply.
        SourceUnreadable: the process says so.
        ValueError: the line is no reply to the job that this service's own code would give.
    """
    try:
        fields = json.loads(line)
        if fields.pop("job") != job.number:
            raise ValueError("a reply to another job")
        if "code" in fields:
            raise _error(**fields)
        return _reply(job, limits, **fields)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a valid reply: {line[:80]!r}") from error


def _error(*, code: str, detail: str) -> Exception:
    if code == StorageUnavailable.code:
        return SourceUnreadable()
    return _ERRORS[code](one_line(_typed(detail, str), MAX_DETAIL))


def _reply(  # noqa: PLR0913 — the fields of a line
    job: Job,
    limits: RenderLimits,
    *,
    width: int,
    height: int,
    thumbnails: dict[str, list[Any]],
    traits: dict[str, Any],
    timings: list[list[Any]],
    left_out: list[str],
    busy: bool,
) -> Reply:
    _check(_number(width) * _number(height) <= limits.max_pixels, "a size")
    announced = tuple(_announced(thumbnails, job.recipe, (width, height), limits.file_bytes))
    _check(len(announced) == len(thumbnails), "the outputs")
    # The process has all of them in its memory at once.
    _check(sum(each.size_bytes for each in announced) <= limits.memory_bytes, "a number of bytes")
    missing = [output.name for output in job.recipe.outputs if output.name not in thumbnails]
    _check(_typed(left_out, list) == missing, "what is left out")
    return Reply(
        width=width,
        height=height,
        thumbnails=announced,
        traits=_traits(**traits),
        timings=tuple(_timings(timings, job.recipe, limits.wall_seconds)),
        left_out=tuple(missing),
        busy=_typed(busy, bool),
    )


def _announced(
    fields: dict[str, list[Any]], recipe: Recipe, original: tuple[int, int], most: int
) -> Iterator[Announced]:
    """Yield the thumbnails in a reply: every output that the job asks for, except where it may or must be left out.

    Whether a variant that is left out was worth a file cannot be known here.
    """
    defaults: dict[tuple[str, int], Announced] = {}
    for output in recipe.outputs:
        repeated = repeats_lower_density(output, recipe, *original)
        if output.name not in fields and (repeated or output.optional or not output.default):
            continue
        _check(not repeated, "an output")
        content_type, width, height, size_bytes = fields[output.name]
        image_format = ImageFormat.of(content_type)
        _check(image_format in output_formats(output.format), "a format")
        _check((_number(width), _number(height)) == output_size(*original, output), "a size")
        bound = width * height * _BYTES_PER_PIXEL + _BYTES_BESIDE_PIXELS
        if output.animation is Animation.KEEP:
            bound = max(bound, MAX_ANIMATION_BYTES)
        _check(_number(size_bytes) <= min(most, bound), "a number of bytes")
        made = Announced(output=output.name, format=image_format, width=width, height=height, size_bytes=size_bytes)
        place = output.preset, output.dpr
        if output.default:
            defaults[place] = made
        elif place in defaults:
            default = defaults[place]
            worth = is_worth_a_file(image_format, size_bytes, default.format, default.size_bytes)
            _check(worth, "a variant")
        yield made


def _timings(fields: list[list[Any]], recipe: Recipe, longest: float) -> Iterator[tuple[str, float]]:
    """Yield labels and seconds, of known steps only and once each: each label becomes a time series."""
    labels = _labels(recipe)
    seen = set()
    for name, seconds in fields:
        _check(name in labels and name not in seen and 0 <= float(seconds) <= longest, "a step")
        seen.add(name)
        yield name, float(seconds)


def _traits(*, placeholder: str, dominant_colour: str | None, metadata_removed: list[str]) -> ImageTraits:
    _check(PLACEHOLDER.fullmatch(placeholder), "a placeholder")
    _check(dominant_colour is None or COLOUR.fullmatch(dominant_colour), "a colour")
    kinds = tuple(map(MetadataKind, _typed(metadata_removed, list)))
    _check(len(kinds) == len(set(kinds)), "kinds of metadata")
    return ImageTraits(placeholder=placeholder, dominant_colour=dominant_colour, metadata_removed=kinds)


def _number(value: object) -> int:
    """Return a positive whole number; JSON has fractions and truth values too.

    Raises:
        ValueError: it is none.
    """
    _check(type(value) is int and value > 0, "a number")
    return _typed(value, int)


def _typed(value: object, kind: type[_T]) -> _T:
    if not isinstance(value, kind):
        raise TypeError(f"not a {kind.__name__}: {str(value)[:80]!r}")
    return value


def _check(holds: object, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} in the reply is not possible for the job")


@lru_cache(maxsize=RECIPES)
def _labels(recipe: Recipe) -> frozenset[str]:
    of_outputs = frozenset(label(step, output.name) for step in STEPS_OF_AN_OUTPUT for output in recipe.outputs)
    return of_outputs | {label(step) for step in STEPS_OF_AN_IMAGE}
