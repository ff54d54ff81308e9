"""HEIC: libheif through pillow-heif, an extra that is loaded only where it is asked for."""

from importlib import import_module
from typing import BinaryIO, cast

from PIL import ImageFile


def prepare() -> None:
    """Load the library, while the process may still do so and before an image's time runs.

    Raises:
        ImportError: it is not installed.
    """
    import_module("pillow_heif")


def open_heic(file: BinaryIO) -> ImageFile.ImageFile:
    """The primary image. It will be turned as the file says, and says that nothing is left to turn."""
    from pillow_heif import HeifImageFile, options  # noqa: PLC0415 — see above

    # One thread, as the pool keeps every core busy; and nothing but the picture itself.
    options.DECODE_THREADS = 1
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    return cast("ImageFile.ImageFile", HeifImageFile(file))  # type: ignore[no-untyped-call]  # half its types are missing
