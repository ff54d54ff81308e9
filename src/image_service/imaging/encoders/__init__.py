"""Encoders that Pillow lacks, or whose use of memory it does not bound; and which encoders are installed.

Importing this package loads no codec and no Pillow: settings are checked with it.
"""

from importlib.util import find_spec
from typing import Final

from image_service.domain.recipe import OutputFormat

_JXL: Final = (
    "JPEG XL outputs need the package imagecodecs, which is not installed: install image-processing-service[jxl], or "
    "build the container images with --build-arg EXTRA_FORMATS=jxl"
)
_AVIF: Final = "AVIF outputs need a Pillow with AVIF, which its wheels on PyPI have: install pillow from there"


def explain_missing_encoder(output_format: OutputFormat) -> str | None:
    """Return what is missing for outputs of a format, and how to install it; None if nothing is."""
    match output_format:
        case OutputFormat.JXL:
            return None if find_spec("imagecodecs") else _JXL
        case OutputFormat.AVIF:
            # A process without Pillow, such as the API, encodes nothing.
            return None if find_spec("PIL") is None or find_spec("PIL._avif") else _AVIF
        case _:
            return None
