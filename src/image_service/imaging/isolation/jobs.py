"""Jobs for decoder processes, each a line of JSON. Their replies: see ``protocol``."""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from image_service.domain.recipe import Animation, Effort, Fit, Gravity, Output, OutputFormat, Recipe

RECIPES: Final = 64
"""Recipes whose texts are kept. Each selection of outputs that images lack counts as one."""

_ENUMERATIONS: Final[dict[str, type[StrEnum]]] = {
    "format": OutputFormat,
    "fit": Fit,
    "gravity": Gravity,
    "effort": Effort,
    "animation": Animation,
}
"""The fields of an output whose values JSON has as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One image to render."""

    source: Path
    recipe: Recipe
    out: Path
    """An existing folder for the thumbnails. The process does not learn of it."""
    number: str = field(default_factory=lambda: token_hex(8))
    """Repeated in the reply. Random, so that a process cannot answer a job that it has not been given yet."""


def encode_job(job: Job) -> bytes:
    """Return the line for a job. JSON escapes line breaks and undecodable bytes in file names."""
    return line({"job": job.number, "source": str(job.source), "outputs": _encode_outputs(job.recipe)})


def decode_job(line: bytes) -> tuple[str, Path, Recipe]:
    """Return the number, source and recipe of a job, in the process."""
    fields = json.loads(line)
    return fields["job"], Path(fields["source"]), _decode_outputs(fields["outputs"])


@lru_cache(maxsize=RECIPES)
def _encode_outputs(recipe: Recipe) -> str:
    """Return the outputs as text, which is made and read once for all jobs of a recipe."""
    return json.dumps([asdict(output) for output in recipe.outputs])


@lru_cache(maxsize=RECIPES)
def _decode_outputs(text: str) -> Recipe:
    return Recipe.of(_output(**output) for output in json.loads(text))


def _output(**fields: Any) -> Output:  # noqa: ANN401 — the types in JSON
    return Output(**fields | {name: kind(fields[name]) for name, kind in _ENUMERATIONS.items()})


def line(content: object) -> bytes:
    """Return the content as a line of JSON."""
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"
