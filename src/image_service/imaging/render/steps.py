"""The steps of the pipeline, by the names that replies, metrics and traces use."""

from enum import StrEnum
from typing import Final


class Step(StrEnum):
    """A step of rendering an image, in the order in which they run."""

    INSPECT = "inspect"
    """Read the header and check the limits."""
    FIND_METADATA = "find_metadata"
    """List the kinds of metadata that the file carries, and read what decides on colours and orientation."""
    STRIP = "strip"
    """Remove what the picture does not need."""
    OPEN = "open"
    """Have the decoder read the file's structure."""
    CHECK_SIZE = "check_size"
    """Check the size that the decoder sees."""
    SCALE_ON_LOAD = "scale_on_load"
    """Choose the fraction of the size that is decoded."""
    DECODE = "decode"
    """Decode the first frame."""
    READ_METADATA = "read_metadata"
    """Read the orientation that only the decoder knows."""
    NORMALISE = "normalise"
    """Convert to one of a few pixel modes."""
    SHRINK = "shrink"
    """Resize to the largest thumbnail."""
    CONVERT_COLOUR = "convert_colour"
    """Convert to sRGB."""
    ORIENT = "orient"
    """Turn upright."""
    CLASSIFY = "classify"
    """Tell graphics from photographs."""
    RESIZE = "resize"
    """Resize to one output."""
    ENCODE = "encode"
    """Encode and write one output."""
    PLACEHOLDER = "placeholder"
    """Compute ThumbHash and dominant colour."""


STEPS_OF_AN_OUTPUT: Final = frozenset({Step.RESIZE, Step.ENCODE})
"""Steps that each output has: the output's name follows in their labels."""
STEPS_OF_AN_IMAGE: Final = frozenset(Step) - STEPS_OF_AN_OUTPUT


def label(step: Step, output: str | None = None) -> str:
    """Return the name under which the time of a step is reported."""
    return step.value if output is None else f"{step.value} {output}"
