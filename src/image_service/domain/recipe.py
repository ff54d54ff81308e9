"""Recipes: which files are made of an image.

A recipe has presets, such as ``square``. A preset has one output for each of its formats and pixel densities: each is
one file, with a name such as ``square``, ``square.webp`` or ``square@2x.webp``.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cache
from typing import Final


class OutputFormat(StrEnum):
    """The file format of an output."""

    AUTO = "auto"
    """JPEG if the image is opaque, WebP if it has transparency. Graphics, such as screenshots and logos, become
    lossless WebP where that is no larger, else JPEG with a colour for each pixel."""
    JPEG = "jpeg"
    """Transparent images are composited on the background."""
    PNG = "png"
    WEBP = "webp"
    AVIF = "avif"
    JXL = "jxl"
    GIF = "gif"
    """For animations: 255 colours in a frame, and pixels that are either opaque or invisible."""

    @property
    def extension(self) -> str:
        """The extension of its file names, without the dot; empty for AUTO."""
        return {OutputFormat.AUTO: "", OutputFormat.JPEG: "jpg"}.get(self, self.value)


class Effort(StrEnum):
    """How long an encoder searches for a smaller file of the same quality; no effect on JPEG, PNG and GIF."""

    FAST = "fast"
    """The three default sizes of a photo take 40 ms as WebP, 57 ms as AVIF and 31 ms as JPEG XL (3 ms as JPEG)."""
    SMALL = "small"
    """89 ms as WebP for files 2 % smaller; 208 ms as AVIF for files 2 % smaller; 187 ms as JPEG XL for files 10 %
    smaller."""


class Fit(StrEnum):
    """How an image is fitted to the box of width and height. The aspect ratio is always kept."""

    INSIDE = "inside"
    """The whole image, as large as fits the box."""
    COVER = "cover"
    """Exactly the box, filled; what sticks out is cut off."""
    PAD = "pad"
    """Exactly the box, with the whole image in it, and the background around it."""
    OUTSIDE = "outside"
    """The whole image, as small as covers the box."""


class Gravity(StrEnum):
    """Which part of the image is kept by ``cover``."""

    CENTRE = "centre"
    NORTH = "north"
    NORTH_EAST = "north-east"
    EAST = "east"
    SOUTH_EAST = "south-east"
    SOUTH = "south"
    SOUTH_WEST = "south-west"
    WEST = "west"
    NORTH_WEST = "north-west"
    ATTENTION = "attention"
    """The part with the most detail."""


class Animation(StrEnum):
    """How an animated image is shown."""

    FIRST = "first"
    """Its first frame."""
    KEEP = "keep"
    """An animation, as WebP or GIF."""


DEFAULT_QUALITY: Final[dict[OutputFormat, int]] = dict.fromkeys(OutputFormat, 82) | {
    OutputFormat.WEBP: 78,
    OutputFormat.AVIF: 66,
    OutputFormat.JXL: 80,
}
"""Encoder quality where a preset gives none: that at which a photo looks like a JPEG of 82.

The default sizes of a photo have a structural similarity (SSIM) of 0.967 to 0.972 in each; they take 227 KB as JPEG,
172 KB as WebP, 158 KB as AVIF and 161 KB as JPEG XL.
"""
_AUTO_WEBP_QUALITY: Final = 82
"""Of WebP for AUTO, where a preset gives none. It stays, because the files of the default recipe do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A named size and shape. Width, height or both are given."""

    name: str
    """Unique in its recipe; part of URLs, such as ``300x300``."""

    width: int | None = None
    """Width of the box in pixels; None: as wide as the height makes it."""

    height: int | None = None
    """Height of the box in pixels; None: as high as the width makes it."""

    fit: Fit = Fit.INSIDE

    gravity: Gravity = Gravity.CENTRE
    """Only for ``cover``."""

    background: str = "#ffffff"
    """What ``pad`` adds, and what transparent pixels get in a format without transparency; as #rrggbb."""

    enlarge: bool = False
    """Whether an image smaller than the box is enlarged."""

    formats: tuple[OutputFormat, ...] = (OutputFormat.AUTO,)
    """The first is the default, which is served where no format is named. AUTO can only be the first."""

    quality: int | tuple[tuple[OutputFormat, int], ...] = ()
    """Encoder quality from 1 to 100, of all formats or of each; no effect on PNG and GIF. 100 is lossless in JXL."""

    effort: Effort = Effort.FAST

    sharpen: bool = False
    """Whether edges are sharpened after resizing."""

    linear: bool = False
    """Whether it is resized in linear light: fine bright lines keep their brightness, at some cost."""

    animation: Animation = Animation.FIRST

    dpr: tuple[int, ...] = (1,)
    """Pixel densities: for each, the box is so many times as large. The first is 1."""

    optional: bool = False
    """Whether the image is DONE without it. It follows at low priority, and is left out if it cannot be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One file to make of an image: a preset in one format and for one pixel density."""

    preset: str
    format: OutputFormat
    width: int | None
    """Of the box in pixels, at this pixel density."""
    height: int | None
    dpr: int = 1
    default: bool = True
    """Whether the format is the preset's default."""
    fit: Fit = Fit.INSIDE
    gravity: Gravity = Gravity.CENTRE
    background: str = "#ffffff"
    enlarge: bool = False
    quality: int = 82
    """Of the format; for AUTO, of JPEG."""
    webp_quality: int = 82
    """For AUTO: of WebP."""
    effort: Effort = Effort.FAST
    sharpen: bool = False
    linear: bool = False
    animation: Animation = Animation.FIRST
    optional: bool = False

    @property
    def name(self) -> str:
        """Unique in the recipe; part of storage keys and URLs, such as ``hero``, ``hero@2x`` or ``hero@2x.webp``."""
        density = "" if self.dpr == 1 else f"@{self.dpr}x"
        return f"{self.preset}{density}" if self.default else f"{self.preset}{density}.{self.format.extension}"

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change whenever the file would."""
        return _fingerprint(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The presets that an image is rendered with."""

    presets: tuple[Preset, ...]
    name: str = "default"
    negotiate: bool = False
    """Whether the URL of a preset without an extension serves the best format that the client accepts."""
    outputs: tuple[Output, ...] = field(init=False, repr=False)
    """The files to make, in the order of presets, pixel densities and formats."""

    def __post_init__(self) -> None:
        """Work out the outputs once: they are needed for every image."""
        object.__setattr__(self, "outputs", tuple(each for preset in self.presets for each in _outputs(preset)))

    @classmethod
    def of(cls, outputs: Iterable[Output]) -> "Recipe":
        """Returns a recipe with these outputs only: for those that an image lacks."""
        recipe = cls(presets=())
        object.__setattr__(recipe, "outputs", tuple(outputs))
        return recipe

    @property
    def required(self) -> tuple[Output, ...]:
        """The outputs without which an image is not DONE."""
        return tuple(output for output in self.outputs if not output.optional)

    @property
    def quick(self) -> bool:
        """Whether its required outputs take little longer to make than those of the default recipe."""
        return _is_quick(self.required)

    @property
    def fingerprint(self) -> str:
        """Sixteen characters that change whenever an output would."""
        return _fingerprint_of_all(self.outputs, named=self.name != DEFAULT_NAME)


class Recipes:
    """All recipes that a process knows, by name. There is always one called ``default``."""

    def __init__(self, *recipes: Recipe) -> None:
        """The default recipe is the built-in one unless one of that name is given."""
        self._by_name = {each.name: each for each in (DEFAULT_RECIPE, *recipes)}

    @property
    def default(self) -> Recipe:
        """The recipe of images that name none."""
        return self._by_name[DEFAULT_NAME]

    @property
    def names(self) -> tuple[str, ...]:
        """The names, sorted."""
        return tuple(sorted(self._by_name))

    @property
    def formats(self) -> tuple[OutputFormat, ...]:
        """The formats of all outputs of all recipes, sorted."""
        return tuple(sorted({output.format for recipe in self._by_name.values() for output in recipe.outputs}))

    def find(self, name: str | None) -> Recipe | None:
        """Returns the recipe of this name, the default one for None; None if this process does not know it."""
        return self._by_name.get(DEFAULT_NAME if name is None else name)


def made_with(recipe: str | None, output: str, fingerprint: str | None) -> str | None:
    """Returns the fingerprint of the output that a recorded file was made with; None if that is unknown.

    Versions before recipes recorded none for a file, but only that of their built-in recipe for the image.

    Args:
        recipe: The recorded fingerprint of the image's recipe.
        output: The name of the file's output.
        fingerprint: The recorded fingerprint of the file's output.
    """
    if fingerprint is not None or recipe != _BUILT_IN:
        return fingerprint
    return next((each.fingerprint for each in DEFAULT_RECIPE.outputs if each.name == output), None)


DEFAULT_NAME: Final = "default"
_RENDERER: Final = 2
"""Raised when the renderer makes other files of the same presets, so that a backfill finds the images made before."""
_QUICK_FORMATS: Final = frozenset({OutputFormat.AUTO, OutputFormat.JPEG})
_QUICK_PIXELS: Final = 3_000_000
"""Twice those of the default recipe."""
_BUILT_IN: Final = "d14f07af7fad0bc2"
"""The fingerprint of the built-in default recipe, as versions before recipes computed it."""


def _outputs(preset: Preset) -> tuple[Output, ...]:
    quality = preset.quality
    given = dict.fromkeys(OutputFormat, quality) if isinstance(quality, int) else dict(quality)
    qualities = DEFAULT_QUALITY | given
    return tuple(
        Output(
            preset=preset.name,
            format=each,
            width=None if preset.width is None else preset.width * dpr,
            height=None if preset.height is None else preset.height * dpr,
            dpr=dpr,
            default=each is preset.formats[0],
            fit=preset.fit,
            gravity=preset.gravity,
            background=preset.background,
            enlarge=preset.enlarge,
            quality=qualities[OutputFormat.JPEG if each is OutputFormat.AUTO else each],
            # Of other formats, neither files nor fingerprints depend on it.
            webp_quality=given.get(OutputFormat.WEBP, _AUTO_WEBP_QUALITY)
            if each is OutputFormat.AUTO
            else _AUTO_WEBP_QUALITY,
            effort=preset.effort,
            sharpen=preset.sharpen,
            linear=preset.linear,
            animation=preset.animation,
            optional=preset.optional,
        )
        for dpr in preset.dpr
        for each in preset.formats
    )


@cache
def _fingerprint(output: Output) -> str:
    # Neither changes the file.
    fields = {key: value for key, value in asdict(output).items() if key not in {"preset", "optional"}}
    return _digest({"renderer": _RENDERER, **fields})


@cache
def _fingerprint_of_all(outputs: tuple[Output, ...], *, named: bool) -> str:
    if outputs == DEFAULT_RECIPE.outputs and not named:
        return _BUILT_IN
    # Never that of the built-in recipe, which tells which files early versions made: also of a named copy of it.
    return "r" + _digest(sorted((each.name, each.optional, each.fingerprint) for each in outputs))[1:]


@cache
def _is_quick(outputs: tuple[Output, ...]) -> bool:
    slow = any(each.format not in _QUICK_FORMATS or each.linear or each.animation is Animation.KEEP for each in outputs)
    pixels = sum((each.width or each.height or 0) * (each.height or each.width or 0) for each in outputs)
    return not slow and pixels <= _QUICK_PIXELS


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


DEFAULT_RECIPE: Final = Recipe(
    presets=(
        Preset(name="100x100", width=100, height=100),
        Preset(name="300x300", width=300, height=300),
        Preset(name="1200x1200", width=1200, height=1200),
    )
)
