"""What the pool and its decoder processes say to each other: one line of JSON a job, one a reply."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from image_service.domain.image import RenderedThumbnail, Rendering
from image_service.domain.recipe import Preset, Recipe
from image_service.errors import (
    CorruptImage,
    DecoderOutOfMemory,
    ImageTooLarge,
    ServiceError,
    StorageFull,
    StorageUnavailable,
    UnsupportedFormat,
)

READY: Final = b"ready\n"
"""The first line of a process that can take jobs."""

_ERRORS: Final[dict[str, type[ServiceError]]] = {
    error.code: error
    for error in (UnsupportedFormat, CorruptImage, ImageTooLarge, DecoderOutOfMemory, StorageFull, StorageUnavailable)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One image to render."""

    source: Path
    recipe: Recipe
    out: Path
    """An existing folder for the thumbnails."""


def encode_job(job: Job) -> bytes:
    """The line for a job. JSON escapes line breaks and undecodable bytes in file names."""
    return _line({"source": str(job.source), "out": str(job.out), "presets": asdict(job.recipe)["presets"]})


def decode_job(line: bytes) -> Job:
    """The job of a line from ``encode_job``."""
    told = json.loads(line)
    recipe = Recipe(presets=tuple(Preset(**preset) for preset in told["presets"]))
    return Job(source=Path(told["source"]), recipe=recipe, out=Path(told["out"]))


def encode_rendering(rendering: Rendering) -> bytes:
    """The line for a success."""
    thumbnails = [
        [each.content_type, each.width, each.height, each.size_bytes, each.sha256] for each in rendering.thumbnails
    ]
    return _line({"width": rendering.width, "height": rendering.height, "thumbnails": thumbnails})


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
            thumbnails=tuple(
                RenderedThumbnail(
                    preset=preset.name,
                    path=job.out / preset.name,
                    content_type=str(content_type),
                    width=int(width),
                    height=int(height),
                    size_bytes=int(size_bytes),
                    sha256=str(sha256),
                )
                for preset, (content_type, width, height, size_bytes, sha256) in zip(
                    job.recipe.presets, told["thumbnails"], strict=True
                )
            ),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no reply to a job: {line[:80]!r}") from error


def _line(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"
