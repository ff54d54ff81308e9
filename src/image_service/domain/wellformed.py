"""The forms of values that may have been made up: by a decoder process, or by whatever wrote a row."""

import re
from typing import Final

from image_service.domain.image import ImageFormat
from image_service.domain.recipe import OutputFormat

COLOUR: Final = re.compile("#[0-9a-f]{6}")
PLACEHOLDER: Final = re.compile("[A-Za-z0-9+/]{4,62}={0,2}")
"""Base64 of a ThumbHash, which has 5 to 25 bytes; never more than the 64 characters of its column."""
DIGEST: Final = re.compile("[0-9a-f]{64}")
"""SHA-256 in hex digits."""

MAX_DETAIL: Final = 300
"""Characters of the explanation of an error; the longest that this service writes has some 200."""


def output_formats(output: OutputFormat) -> frozenset[ImageFormat]:
    """Returns the file formats that an output of this kind can have."""
    if output is OutputFormat.AUTO:
        return frozenset({ImageFormat.JPEG, ImageFormat.WEBP})
    return frozenset({ImageFormat(output.value)})


OUTPUT_TYPES: Final = frozenset(each.content_type for kind in OutputFormat for each in output_formats(kind))
"""The media types that a thumbnail can have."""


def one_line(text: str, limit: int) -> str:
    """Returns at most ``limit`` characters of a text: letters, digits, signs and blanks, all others as a blank.

    Line breaks, other control characters, and marks that change the direction of writing could forge a log line or a
    message; halves of a surrogate pair cannot be encoded.
    """
    return "".join(each if each.isprintable() else " " for each in text[:limit])
