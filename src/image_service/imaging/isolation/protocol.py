"""The protocol between the pool and its decoder processes: one line of JSON per job, and one per reply."""

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
    ObjectUnreadable,
    ServiceError,
    StorageFull,
    StorageUnavailable,
    UnsupportedFormat,
)
from image_service.imaging.render.steps import STEPS_OF_A_PRESET, STEPS_OF_AN_IMAGE, label

_ERRORS: Final[dict[str, type[ServiceError]]] = {
    error.code: error
    for error in (
        UnsupportedFormat,
        CorruptImage,
        ImageTooLarge,
        DecoderOutOfMemory,
        ObjectMissing,
        ObjectUnreadable,
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
    return _line({"source": str(job.source), "out": str(job.out), "presets": _presets(job.recipe)})


def decode_job(line: bytes) -> Job:
    """Return the job in a line from ``encode_job``."""
    fields = json.loads(line)
    recipe = Recipe(presets=tuple(_preset(**preset) for preset in fields["presets"]))
    return Job(source=Path(fields["source"]), recipe=recipe, out=Path(fields["out"]))


def encode_rendering(rendering: Rendering) -> bytes:
    """Return the line for a success."""
    thumbnails = {
        each.preset: [each.content_type, each.width, each.height, each.size_bytes, each.sha256]
        for each in rendering.thumbnails
    }
    size = {"width": rendering.width, "height": rendering.height}
    timings = [[name, round(seconds, 6)] for name, seconds in rendering.timings]
    return _line({**size, "thumbnails": thumbnails, "traits": asdict(rendering.traits), "timings": timings})


def encode_error(error: ServiceError) -> bytes:
    """Return the line for a verdict or an outage."""
    return _line({"code": error.code, "detail": error.detail})


def decode_reply(line: bytes, job: Job) -> Rendering:
    """Return the rendering in a reply.

    Names and paths of the files come from the job: a process that may be compromised is trusted with as little as
    possible.

    Raises:
        ServiceError: the error in the reply.
        ValueError: the line is not a valid reply to the job.
    """
    try:
        fields = json.loads(line)
        if "code" in fields:
            raise _ERRORS[fields["code"]](str(fields["detail"]))
        return Rendering(
            width=int(fields["width"]),
            height=int(fields["height"]),
            thumbnails=tuple(_thumbnails(fields["thumbnails"], job)),
            traits=_traits(**fields["traits"]),
            timings=tuple(_timings(fields["timings"], job)),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a valid reply: {line[:80]!r}") from error


@cache
def _presets(recipe: Recipe) -> list[dict[str, Any]]:
    return [asdict(preset) for preset in recipe.presets]


def _preset(*, format: str, effort: str, **rest: Any) -> Preset:  # noqa: A002, ANN401 — the names and types in JSON
    return Preset(format=OutputFormat(format), effort=Effort(effort), **rest)


def _thumbnails(fields: dict[str, list[Any]], job: Job) -> Iterator[RenderedThumbnail]:
    for preset in job.recipe.presets:
        if preset.optional and preset.name not in fields:
            continue
        content_type, width, height, size_bytes, sha256 = fields[preset.name]
        yield RenderedThumbnail(
            preset=preset.name,
            path=job.out / preset.name,
            content_type=str(content_type),
            width=int(width),
            height=int(height),
            size_bytes=int(size_bytes),
            sha256=str(sha256),
        )


def _timings(fields: list[list[Any]], job: Job) -> Iterator[tuple[str, float]]:
    """Yield labels and seconds, of known steps only and once each: each label becomes a time series."""
    possible = {label(step) for step in STEPS_OF_AN_IMAGE}
    possible |= {label(step, preset.name) for step in STEPS_OF_A_PRESET for preset in job.recipe.presets}
    seen: set[str] = set()
    for name, seconds in fields:
        if name not in possible - seen or not 0 <= float(seconds) < inf:
            raise ValueError(f"not a step: {str(name)[:80]!r}")
        seen.add(name)
        yield name, float(seconds)


def _traits(*, placeholder: str, dominant_colour: str | None, metadata_removed: list[str]) -> ImageTraits:
    return ImageTraits(
        placeholder=str(placeholder),
        dominant_colour=None if dominant_colour is None else str(dominant_colour),
        metadata_removed=tuple(map(MetadataKind, metadata_removed)),
    )


def _line(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"
