"""The recipes of the fault suite: as the file that the service reads, and what the checker expects of each.

Independent of the service's code: names of outputs and their sizes are worked out here again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEFAULT, AVATAR, LATE = "default", "avatar", "late"
NAMED: Final = (AVATAR, LATE)
TEXT: Final = """
[[recipes.avatar.presets]]
name = "square"
width = 64
height = 64
fit = "cover"
formats = ["jpeg", "webp"]

[[recipes.late.presets]]
name = "100x100"
width = 100
height = 100

[[recipes.late.presets]]
name = "wide"
width = 640
height = 320
formats = ["webp"]
optional = true

[[recipes.late.presets]]
name = "tile"
width = 200
height = 150
fit = "cover"
formats = ["webp", "jpeg"]
optional = true
"""
"""``avatar`` has a variant; ``late`` has one output that must be there at once, and three that follow."""
CHANGED: Final = TEXT.replace("width = 640", "width = 640\nquality = 40")
"""The same recipes, but one output of ``late`` is made in another way."""
WITHIN: Final = 1
"""Pixels by which a side may differ from the exact size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """One output of a recipe."""

    box: tuple[int, int]
    formats: frozenset[str]
    """The file formats that it may have, as Pillow names them."""
    cover: bool = False
    """Whether the box is filled."""
    required: bool = True
    """Whether a DONE image always has it; others may be left out."""

    def fits(self, size: tuple[int, int], original: tuple[int, int]) -> bool:
        """Whether the size is right for an upright original of that size, within a pixel; nothing is enlarged."""
        if self.cover and all(side >= least for side, least in zip(original, self.box, strict=True)):
            return size == self.box
        if self.cover:
            # The largest part of the original that has the shape of the box.
            scale = min(original[0] / self.box[0], original[1] / self.box[1])
            wanted = [side * scale for side in self.box]
        else:
            scale = min(1.0, self.box[0] / original[0], self.box[1] / original[1])
            wanted = [side * scale for side in original]
        return all(abs(is_ - max(1.0, should_be)) <= WITHIN for is_, should_be in zip(size, wanted, strict=True))


_AUTO = frozenset({"JPEG", "WEBP"})
_JPEG, _WEBP = frozenset({"JPEG"}), frozenset({"WEBP"})

EXPECTED: Final[Mapping[str, Mapping[str, Expected]]] = {
    DEFAULT: {
        "100x100": Expected(box=(100, 100), formats=_AUTO),
        "300x300": Expected(box=(300, 300), formats=_AUTO),
        "1200x1200": Expected(box=(1200, 1200), formats=_AUTO),
    },
    AVATAR: {
        "square": Expected(box=(64, 64), formats=_JPEG, cover=True),
        "square.webp": Expected(box=(64, 64), formats=_WEBP, cover=True, required=False),
    },
    LATE: {
        "100x100": Expected(box=(100, 100), formats=_AUTO),
        "wide": Expected(box=(640, 320), formats=_WEBP, required=False),
        "tile": Expected(box=(200, 150), formats=_WEBP, cover=True, required=False),
        "tile.jpg": Expected(box=(200, 150), formats=_JPEG, cover=True, required=False),
    },
}
"""By recipe and output."""


def outputs_of(recipe: str | None) -> Mapping[str, Expected]:
    """Return the outputs of a recipe by name; None: the default one. Nothing for a recipe that is not of this suite."""
    return EXPECTED.get(recipe or DEFAULT, {})


def write_recipes(folder: Path, text: str = TEXT) -> Path:
    """Write the file with the recipes into a folder; return its path."""
    path = folder / "recipes.toml"
    path.write_text(text)
    return path
