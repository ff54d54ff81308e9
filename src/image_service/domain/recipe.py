"""Presets and recipes: the outputs that are made of each image."""

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from typing import Final


class OutputFormat(StrEnum):
    """The file format of an output."""

    AUTO = "auto"
    """JPEG if the image is opaque, WebP if it has transparency. Graphics, such as screenshots and logos, become
    lossless WebP where that is no larger, else JPEG with a colour for each pixel."""
    JPEG = "jpeg"
    """Transparent images are composited on white."""
    PNG = "png"
    WEBP = "webp"
    AVIF = "avif"


class Effort(StrEnum):
    """How long an encoder searches for a smaller file of the same quality; no effect on JPEG and PNG."""

    FAST = "fast"
    """The three default sizes of a photo take 39 ms as WebP and 68 ms as AVIF (3 ms as JPEG)."""
    SMALL = "small"
    """84 ms as WebP for files 2 % smaller; 240 ms as AVIF for files 3 % smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A named output: the thumbnail fits inside a box and is never enlarged."""

    name: str
    """Unique in its recipe; part of URLs, such as ``300x300``."""

    width: int
    """Width of the box in pixels."""

    height: int
    """Height of the box in pixels."""

    quality: int = 82
    """Encoder quality from 1 to 100; no effect on PNG, which is lossless."""

    format: OutputFormat = OutputFormat.AUTO

    effort: Effort = Effort.FAST

    optional: bool = False
    """Whether it is made after all others, and left out if that fails or takes too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The presets that every image is rendered with."""

    presets: tuple[Preset, ...]

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change whenever an output would."""
        return _fingerprint(self)


_RENDERER: Final = 2
"""Raised when the renderer makes other files of the same presets, so that a backfill finds the images made before."""


@cache
def _fingerprint(recipe: Recipe) -> str:
    text = json.dumps({"renderer": _RENDERER, **asdict(recipe)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


DEFAULT_RECIPE: Final = Recipe(
    presets=(
        Preset(name="100x100", width=100, height=100),
        Preset(name="300x300", width=300, height=300),
        Preset(name="1200x1200", width=1200, height=1200),
    )
)
