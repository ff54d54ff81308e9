"""What the pool and its decoder processes say to each other: one line of JSON a job, one a reply."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from math import inf
from pathlib import Path
from typing import Any, Final

from image_service.domain.image import ImageTraits, MetadataKind, RenderedThumbnail, Rendering
from image_service.domain.recipe import Effort, OutputFormat, Preset, Recipe
from image_service.errors import (
    CorruptImage,
    DecoderOutOfMemory,
    ImageTooLarge,
    ObjectMissing,
    ServiceError,
    StorageFull,
    StorageUnavailable,
    UnsupportedFormat,
)
from image_service.imaging.stopwatch import STEPS, STEPS_OF_A_PRESET

_ERRORS: Final[dict[str, type[ServiceError]]] = {
    error.code: error
    for error in (
        UnsupportedFormat,
        CorruptImage,
        ImageTooLarge,
        DecoderOutOfMemory,
        ObjectMissing,
        StorageFull,
        StorageUnavailable,
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One image to render."""

    source: Path
    recipe: Recipe
    out: Path
    """An existing folder for the thumbnails."""


def encode_ready(lacking: Sequence[str]) -> bytes:
    """The first line of a process that can take jobs, and what protection it lacks."""
    return _line({"lacking": lacking})


def decode_ready(line: bytes) -> tuple[str, ...]:
    """What protection a process lacks that began with this line.

    Raises:
        ValueError: it is not ready.
    """
    try:
        return tuple(map(str, json.loads(line)["lacking"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not ready: {line[:80]!r}") from error


def encode_job(job: Job) -> bytes:
    """The line for a job. JSON escapes line breaks and undecodable bytes in file names."""
    return _line({"source": str(job.source), "out": str(job.out), "presets": _presets(job.recipe)})


def decode_job(line: bytes) -> Job:
    """The job of a line from ``encode_job``."""
    told = json.loads(line)
    recipe = Recipe(presets=tuple(_preset(**preset) for preset in told["presets"]))
    return Job(source=Path(told["source"]), recipe=recipe, out=Path(told["out"]))


def encode_rendering(rendering: Rendering) -> bytes:
    """The line for a success."""
    thumbnails = {
        each.preset: [each.content_type, each.width, each.height, each.size_bytes, each.sha256]
        for each in rendering.thumbnails
    }
    size = {"width": rendering.width, "height": rendering.height}
    timings = [[name, round(seconds, 6)] for name, seconds in rendering.timings]
    return _line({**size, "thumbnails": thumbnails, "traits": asdict(rendering.traits), "timings": timings})


def encode_error(error: ServiceError) -> bytes:
    """The line for a verdict or an outage."""
    return _line({"code": error.code, "detail": error.detail})


def decode_reply(line: bytes, job: Job) -> Rendering:
    """The rendering that a line tells of.

    Names and places of the files come from the job: a process that met a hostile file is asked for as little as
    possible.

    Raises:
        ServiceError: the line tells of this one.
        ValueError: the line is no reply to the job.
    """
    try:
        told = json.loads(line)
        if "code" in told:
            raise _ERRORS[told["code"]](str(told["detail"]))
        return Rendering(
            width=int(told["width"]),
            height=int(told["height"]),
            thumbnails=tuple(_thumbnails(told["thumbnails"], job)),
            traits=_findings(**told["traits"]),
            timings=tuple(_timings(told["timings"], job)),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no reply to a job: {line[:80]!r}") from error


@cache
def _presets(recipe: Recipe) -> list[dict[str, Any]]:
    return [asdict(preset) for preset in recipe.presets]


def _preset(*, format: str, effort: str, **rest: Any) -> Preset:  # noqa: A002, ANN401 — as JSON has them
    return Preset(format=OutputFormat(format), effort=Effort(effort), **rest)


def _thumbnails(told: dict[str, list[Any]], job: Job) -> Iterator[RenderedThumbnail]:
    for preset in job.recipe.presets:
        if preset.optional and preset.name not in told:
            continue
        content_type, width, height, size_bytes, sha256 = told[preset.name]
        yield RenderedThumbnail(
            preset=preset.name,
            path=job.out / preset.name,
            content_type=str(content_type),
            width=int(width),
            height=int(height),
            size_bytes=int(size_bytes),
            sha256=str(sha256),
        )


def _timings(told: list[list[Any]], job: Job) -> Iterator[tuple[str, float]]:
    """Only steps that there are, each once: they become names of time series, of which there must not be many."""
    possible = STEPS | {f"{step} {preset.name}" for step in STEPS_OF_A_PRESET for preset in job.recipe.presets}
    seen: set[str] = set()
    for name, seconds in told:
        if name not in possible - seen or not 0 <= float(seconds) < inf:
            raise ValueError(f"no step of a rendering: {str(name)[:80]!r}")
        seen.add(name)
        yield name, float(seconds)


def _findings(*, placeholder: str, dominant_colour: str | None, metadata_removed: list[str]) -> ImageTraits:
    return ImageTraits(
        placeholder=str(placeholder),
        dominant_colour=None if dominant_colour is None else str(dominant_colour),
        metadata_removed=tuple(map(MetadataKind, metadata_removed)),
    )


def _line(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"
