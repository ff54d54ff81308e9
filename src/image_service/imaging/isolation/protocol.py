"""The protocol between the pool and its decoder processes: a line of JSON per job, and one per reply.

The line of a success is followed by the thumbnails' bytes, in the order of the recipe. A process writes no files.

Whatever a process sends may be made up by the file that it decodes. ``decode_reply`` is the only place that reads a
reply's line: each field is checked against the job, has a bound, and nothing unknown is passed on. What a file contains
is checked by ``outputs``.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, TypeVar

from image_service.domain.geometry import output_size
from image_service.domain.image import ImageFormat, ImageTraits, MetadataKind, Rendering
from image_service.domain.recipe import Animation, Effort, Fit, Gravity, Output, OutputFormat, Recipe
from image_service.domain.wellformed import COLOUR, MAX_DETAIL, PLACEHOLDER, one_line, output_formats
from image_service.errors import (
    CorruptImage,
    DecoderOutOfMemory,
    ImageTooLarge,
    ServiceError,
    StorageUnavailable,
    UnsupportedFormat,
)
from image_service.imaging.limits import RenderLimits
from image_service.imaging.render.steps import STEPS_OF_AN_IMAGE, STEPS_OF_AN_OUTPUT, label

MAX_LINE: Final = 64 * 1024
"""Bytes of a reply's line; the three default presets take one."""
_BYTES_PER_PIXEL: Final = 5
_BYTES_BESIDE_PIXELS: Final = 64 * 1024
"""A thumbnail has at most so many bytes: PNG, which compresses least, needs four and a byte per row for noise."""

_ERRORS: Final[dict[str, type[ServiceError]]] = {
    error.code: error for error in (UnsupportedFormat, CorruptImage, ImageTooLarge, DecoderOutOfMemory)
}
"""What a process may say of a file. It is not believed that the storage fails: see ``SourceUnreadable``."""

_ENUMERATIONS: Final[dict[str, type[StrEnum]]] = {
    "format": OutputFormat,
    "fit": Fit,
    "gravity": Gravity,
    "effort": Effort,
    "animation": Animation,
}
"""The fields of an output whose values JSON has as text."""

_T = TypeVar("_T")


class SourceUnreadable(Exception):
    """The process says that it cannot read the source file. It may lie: the pool finds out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One image to render."""

    source: Path
    recipe: Recipe
    out: Path
    """An existing folder for the thumbnails. The process does not learn of it."""
    number: str = field(default_factory=lambda: token_hex(8))
    """Repeated in the reply. Random, so that a process cannot answer a job that it has not been given yet."""


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


def encode_ready(lacking: Sequence[str]) -> bytes:
    """Return the first line of a process that is ready for jobs, with the protection it lacks."""
    return _line({"lacking": lacking})


def decode_ready(line: bytes) -> tuple[str, ...]:
    """Return the protection that a process lacks, from its first line.

    Raises:
        ValueError: the line does not report readiness.
    """
    try:
        return tuple(map(str, json.loads(line)["lacking"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not ready: {line[:80]!r}") from error


def encode_job(job: Job) -> bytes:
    """Return the line for a job. JSON escapes line breaks and undecodable bytes in file names."""
    return _line({"job": job.number, "source": str(job.source), "outputs": _encode_outputs(job.recipe)})


def decode_job(line: bytes) -> tuple[str, Path, Recipe]:
    """Return the number, source and recipe of a job, in the process."""
    fields = json.loads(line)
    return fields["job"], Path(fields["source"]), _decode_outputs(fields["outputs"])


def encode_rendering(number: str, rendering: Rendering) -> bytes:
    """Return the line for a success, which the thumbnails' bytes must follow."""
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
    }
    return _line(fields)


def encode_error(number: str, error: ServiceError) -> bytes:
    """Return the line for a verdict, or for a source that cannot be read."""
    return _line({"job": number, "code": error.code, "detail": error.detail})


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
) -> Reply:
    _check(_number(width) * _number(height) <= limits.max_pixels, "a size")
    announced = tuple(_announced(thumbnails, job.recipe, (width, height), limits.file_bytes))
    _check(len(announced) == len(thumbnails), "the outputs")
    return Reply(
        width=width,
        height=height,
        thumbnails=announced,
        traits=_traits(**traits),
        timings=tuple(_timings(timings, job.recipe, limits.wall_seconds)),
    )


def _announced(
    fields: dict[str, list[Any]], recipe: Recipe, original: tuple[int, int], most: int
) -> Iterator[Announced]:
    for output in recipe.outputs:
        if output.optional and output.name not in fields:
            continue
        content_type, width, height, size_bytes = fields[output.name]
        image_format = ImageFormat.of(content_type)
        _check(image_format in output_formats(output.format), "a format")
        _check((_number(width), _number(height)) == output_size(*original, output), "a size")
        bound = min(most, width * height * _BYTES_PER_PIXEL + _BYTES_BESIDE_PIXELS)
        _check(_number(size_bytes) <= bound, "a number of bytes")
        yield Announced(output=output.name, format=image_format, width=width, height=height, size_bytes=size_bytes)


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


@cache
def _labels(recipe: Recipe) -> frozenset[str]:
    of_outputs = frozenset(label(step, output.name) for step in STEPS_OF_AN_OUTPUT for output in recipe.outputs)
    return of_outputs | {label(step) for step in STEPS_OF_AN_IMAGE}


@cache
def _encode_outputs(recipe: Recipe) -> str:
    """Return the outputs as text, which is made and read once for all jobs of a recipe."""
    return json.dumps([asdict(output) for output in recipe.outputs])


@lru_cache(maxsize=64)
def _decode_outputs(text: str) -> Recipe:
    return Recipe.of(_output(**output) for output in json.loads(text))


def _output(**fields: Any) -> Output:  # noqa: ANN401 — the types in JSON
    return Output(**fields | {name: kind(fields[name]) for name, kind in _ENUMERATIONS.items()})


def _line(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"
