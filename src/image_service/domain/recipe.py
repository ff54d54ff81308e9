"""What is made of an image: presets, and the whole set of them."""

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from typing import Final


class OutputFormat(StrEnum):
    """What a thumbnail is written as."""

    AUTO = "auto"
    """JPEG where the image is opaque, WebP where any of it is transparent."""
    JPEG = "jpeg"
    """On white, where the image is transparent."""
    PNG = "png"
    WEBP = "webp"
    AVIF = "avif"


class Effort(StrEnum):
    """How long an encoder may search for a smaller file of the same quality; JPEG and PNG do not care."""

    FAST = "fast"
    """The three default sizes of a photograph take 39 ms as WebP, 68 ms as AVIF; as JPEG, 3 ms."""
    SMALL = "small"
    """84 ms as WebP, for 2 % less; 240 ms as AVIF, for 3 % less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One output: a named box that the thumbnail fits inside, never enlarged."""

    name: str
    """Unique in its recipe, and part of URLs: ``300x300``."""

    width: int
    """Width of the box in pixels."""

    height: int
    """Height of the box in pixels."""

    quality: int = 82
    """Encoder quality from 1 to 100; PNG loses nothing anyway."""

    format: OutputFormat = OutputFormat.AUTO

    effort: Effort = Effort.FAST

    optional: bool = False
    """Made after all others, and left out where that takes too long or fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The whole set of presets that every image is rendered under."""

    presets: tuple[Preset, ...]

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change whenever any output would."""
        return _fingerprint(self)


@cache
def _fingerprint(recipe: Recipe) -> str:
    text = json.dumps(asdict(recipe), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


DEFAULT_RECIPE: Final = Recipe(
    presets=(
        Preset(name="100x100", width=100, height=100),
        Preset(name="300x300", width=300, height=300),
        Preset(name="1200x1200", width=1200, height=1200),
    )
)
