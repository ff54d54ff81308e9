"""HEIC: libheif through pillow-heif, an optional dependency that is loaded only where HEIC is enabled."""

from importlib import import_module
from typing import BinaryIO, cast

from PIL import ImageFile


def prepare() -> None:
    """Load the library before the sandbox forbids it and before an image's time runs.

    Raises:
        ImportError: it is not installed.
    """
    import_module("pillow_heif")


def open_heic(file: BinaryIO) -> ImageFile.ImageFile:
    """Return the primary image. libheif applies its orientation, and Pillow then reports none."""
    from pillow_heif import HeifImageFile, options  # noqa: PLC0415 — see above

    # One thread, as the pool keeps every core busy; and only the picture itself.
    options.DECODE_THREADS = 1
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    return cast("ImageFile.ImageFile", HeifImageFile(file))  # type: ignore[no-untyped-call]  # half its types are missing
