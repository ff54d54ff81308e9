"""What GIF, PNG and WebP have in common as animations: frames that are drawn on a canvas, one after the other."""

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

_SHORTEST: Final = 10
_INSTEAD: Final = 100
"""Milliseconds. Browsers show frames of ten or fewer for so long, as the first of them did."""


class Disposal(Enum):
    """What happens to a frame's area before the next frame is drawn."""

    KEEP = "keep"
    CLEAR = "clear"
    """It becomes transparent."""
    RESTORE = "restore"
    """It becomes what it was before the frame."""


class Place(NamedTuple):
    """An area of the canvas in pixels; it may reach beyond the right and lower edges."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame."""

    place: Place
    milliseconds: float
    """How long it is shown."""
    disposal: Disposal
    blend: bool
    """Whether it is drawn over what is there, rather than in its place."""
    still: bytes
    """Its picture as a file of the animation's format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """An animation as its file's structure shows it; nothing is decoded."""

    plays: int
    """How many times it is shown; zero: for ever."""
    places: tuple[Place, ...]
    """Of its frames."""


def shown_for(milliseconds: float) -> float:
    """Return how long browsers show a frame that is to be shown for so many milliseconds."""
    return _INSTEAD if milliseconds <= _SHORTEST else milliseconds
