"""The fields of a preset in a recipe file: what each may be, and how it is read."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from image_service.domain.recipe import Animation, Effort, Fit, Gravity, OutputFormat

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
"""Names of recipes and presets: they are part of URLs, storage keys and file names."""
NAMES: Final = "1 to 32 letters, digits, hyphens and underscores, the first a letter or digit"
MAX_SIDE: Final = 8192
"""Of a box, in pixels, at its highest pixel density."""
COLOURS: Final = {
    "white": "#ffffff",
    "black": "#000000",
    "gray": "#808080",
    "grey": "#808080",
    "silver": "#c0c0c0",
    "red": "#ff0000",
    "green": "#008000",
    "blue": "#0000ff",
    "yellow": "#ffff00",
}
"""Colours with a name, as in CSS."""

_COLOUR: Final = re.compile("#([0-9a-f]{3}|[0-9a-f]{6})", re.IGNORECASE)
_LARGEST_DPR: Final = 4
_BEST: Final = 100
"""Quality."""
_WITHOUT_QUALITY: Final = frozenset({OutputFormat.AUTO, OutputFormat.PNG, OutputFormat.GIF})


class NotAllowed(ValueError):
    """A value is not allowed. The message is what is allowed; it is empty if that is the field's rule."""

    def __init__(self, message: str = "", at: str | int | None = None) -> None:
        """``at`` is the key or the position in the value that is wrong, if not all of it is."""
        super().__init__(message)
        self.at = at


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a preset."""

    read: Callable[[object], Any]
    """Returns the value as ``Preset`` has it. Raises ``NotAllowed``."""
    allowed: str
    """What it may be, such as ``a whole number from 1 to 100``, or a list of words."""
    default: str
    """How the default is written in a file; empty if there is none."""
    words: bool = False
    """Whether ``allowed`` is a list of words."""

    @property
    def rule(self) -> str:
        """What is allowed, as the end of a sentence."""
        return f"allowed {'are' if self.words else 'is'} {self.allowed}"


def has_quality(image_format: OutputFormat) -> bool:
    """Returns whether a quality can be set for the format."""
    return image_format not in _WITHOUT_QUALITY


def _name(value: object) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise NotAllowed
    return value


def _whole(least: int, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        # True is an int in Python, and no number in TOML.
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise NotAllowed
        return value

    return read


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise NotAllowed
    return value


def _word(words: type[StrEnum], default: StrEnum) -> Field:
    def read(value: object) -> StrEnum:
        if not isinstance(value, str) or value not in frozenset(words):
            raise NotAllowed
        return words(value)

    return Field(read, ", ".join(words), f'"{default}"', words=True)


def _colour(value: object) -> str:
    """Returns the colour as #rrggbb in lower case, so that its spelling does not change a fingerprint."""
    colour = COLOURS.get(value.lower(), value) if isinstance(value, str) else ""
    if not (found := _COLOUR.fullmatch(colour)):
        raise NotAllowed
    digits = found[1].lower()
    return "#" + (digits if len(digits) > 3 else "".join(digit * 2 for digit in digits))  # noqa: PLR2004 — #rgb


def _formats(value: object) -> tuple[OutputFormat, ...]:
    if not isinstance(value, list) or not value:
        raise NotAllowed
    found: list[OutputFormat] = []
    for at, each in enumerate(value):
        if not isinstance(each, str) or each not in frozenset(OutputFormat):
            raise NotAllowed(at=at)
        if each in found:
            raise NotAllowed(f"{each} is there twice; each is allowed once", at)
        found.append(OutputFormat(each))
        if at and found[-1] is OutputFormat.AUTO:
            raise NotAllowed("auto is allowed as the first only", at)
    return tuple(found)


def _quality(value: object) -> int | tuple[tuple[OutputFormat, int], ...]:
    read = _whole(1, _BEST)
    if not isinstance(value, dict):
        return read(value)
    with_quality = [each for each in OutputFormat if has_quality(each)]
    for name, quality in value.items():
        if name not in with_quality:
            raise NotAllowed(f"allowed are {', '.join(with_quality)}", name)
        try:
            read(quality)
        except NotAllowed:
            raise NotAllowed(f"allowed is a whole number from 1 to {_BEST}", name) from None
    # The order in the file does not matter, nor does it change a fingerprint.
    return tuple((each, value[each]) for each in with_quality if each in value)


def _dpr(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise NotAllowed
    read = _whole(1, _LARGEST_DPR)
    for at, each in enumerate(value):
        try:
            read(each)
        except NotAllowed:
            raise NotAllowed(at=at) from None
        if each in value[:at]:
            raise NotAllowed(f"{each} is there twice; each is allowed once", at)
    if 1 not in value:
        raise NotAllowed("1 is missing, which is always needed")
    return tuple(sorted(value))


_SIDE: Final = Field(_whole(1, MAX_SIDE), f"a whole number of pixels from 1 to {MAX_SIDE}", "")
_FLAG: Final = Field(_flag, "true or false", "false")

PRESET_FIELDS: Final[Mapping[str, Field]] = {
    "name": Field(_name, NAMES, ""),
    "width": _SIDE,
    "height": _SIDE,
    "fit": _word(Fit, Fit.INSIDE),
    "gravity": _word(Gravity, Gravity.CENTRE),
    "background": Field(_colour, f"#rrggbb, #rgb, {', '.join(COLOURS)}", '"#ffffff"', words=True),
    "enlarge": _FLAG,
    "formats": Field(_formats, f"a list of {', '.join(OutputFormat)}, each once", '["auto"]'),
    "quality": Field(
        _quality,
        f"a whole number from 1 to {_BEST}, or a table of them by format, such as {{ jpeg = 82, webp = 78 }}",
        "82 for jpeg, and what looks like it for the others",
    ),
    "effort": _word(Effort, Effort.FAST),
    "sharpen": _FLAG,
    "linear": _FLAG,
    "animation": _word(Animation, Animation.FIRST),
    "dpr": Field(_dpr, f"a list of whole numbers from 1 to {_LARGEST_DPR}, each once, with 1", "[1]"),
    "optional": _FLAG,
}
"""The fields of a preset, in the order of the documentation."""

RECIPE_FIELDS: Final[Mapping[str, Field]] = {"negotiate": _FLAG}
"""The fields of a recipe, besides its presets."""
