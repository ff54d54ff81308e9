"""HEIC: libheif through pillow-heif, an optional dependency that is loaded only where HEIC is enabled."""

import io
from importlib import import_module
from typing import TYPE_CHECKING, BinaryIO, cast

from PIL import ImageFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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


def decode_samples(content: bytes) -> "NDArray[np.uint16]":
    """Return the samples of the primary image with sixteen bits, upright, of shape (height, width, channels).

    Raises:
        Exception: of many kinds, where libheif cannot decode it.
    """
    import numpy as np  # noqa: PLC0415 — loaded for the first file that needs it, as it takes 20 MB
    from pillow_heif import open_heif  # noqa: PLC0415 — see above

    return np.asarray(open_heif(io.BytesIO(content), convert_hdr_to_8bit=False))
