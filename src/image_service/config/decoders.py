"""Which formats can be read: the decoders of some are optional dependencies. None of them is loaded here."""

from collections.abc import Collection
from importlib.util import find_spec
from typing import Final, NamedTuple

from image_service.domain.image import ImageFormat

_PACKAGES: Final = {ImageFormat.HEIC: ("pillow-heif", "pillow_heif"), ImageFormat.JXL: ("imagecodecs", "imagecodecs")}
"""The package with each optional decoder, and the name of its module. Each is in an extra named like the format."""


class Formats(NamedTuple):
    """Every format, by whether it is read; names in order, separated by commas."""

    enabled: str
    """Those that ENABLED_FORMATS names."""
    available: str
    """Those that it could name as well."""
    not_installed: str
    """Those that it could name if their decoder were installed."""


def explain_missing(name: str) -> str | None:
    """Return what is missing for reading a format, and how to install it; None if nothing is."""
    package, module = _PACKAGES.get(ImageFormat(name), (None, None))
    if module is None or find_spec(module) is not None:
        return None
    return (
        f"{name} needs the package {package}, which is not installed: install image-processing-service[{name}], or "
        f"build the container images with --build-arg EXTRA_FORMATS={name}"
    )


def formats(enabled: Collection[ImageFormat]) -> Formats:
    """Return which formats are enabled and which could be."""
    others = [each for each in sorted(ImageFormat) if each not in enabled]
    return Formats(
        enabled=",".join(sorted(enabled)),
        available=",".join(each for each in others if not explain_missing(each)),
        not_installed=",".join(each for each in others if explain_missing(each)),
    )
