"""Judges an upload by its header, in the process that received it, without a decoder."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from image_service.domain.image import DEFAULT_FORMATS, ImageFormat, ImageHeader
from image_service.errors import CorruptImage, ImageTooLarge, UnsupportedFormat
from image_service.imaging.cost import least_memory
from image_service.imaging.headers import DIMENSIONS
from image_service.imaging.headers.magic import identify
from image_service.imaging.headers.reader import Reader

DEFAULT_MAX_PIXELS: Final = 50_000_000
"""Width times height that is still accepted."""
_HEAD: Final = 4096


class HeaderInspector:
    """The ``Inspector`` that parses headers itself.

    An image library's own ``open`` may allocate the whole canvas or inflate megabytes of metadata; this reads a few
    kilobytes at most and takes microseconds, whatever a file claims.
    """

    def __init__(
        self,
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        max_memory: int | None = None,
        allowed: Iterable[ImageFormat] = DEFAULT_FORMATS,
    ) -> None:
        """Make an inspector.

        Args:
            max_pixels: Width times height that is still accepted.
            max_memory: Address space that a decoder may use, in bytes; any, if left out.
            allowed: The formats that are.
        """
        self._max_pixels = max_pixels
        self._max_memory = max_memory
        self._allowed = frozenset(allowed)

    def sniff(self, head: bytes) -> ImageFormat:
        """The format that the first bytes belong to; see ``Inspector.sniff``."""
        found = identify(head)
        if found in self._allowed:
            return found
        accepted = ", ".join(sorted(name.value.upper() for name in self._allowed))
        what = "no image in a format known here" if found is None else f"a {found.value.upper()} image"
        raise UnsupportedFormat(
            f"The file's content is {what}; accepted are {accepted}. Its name and Content-Type do not matter."
        )

    def inspect(self, path: Path) -> ImageHeader:
        """Format and dimensions from the file's header; see ``Inspector.inspect``."""
        with path.open("rb") as file:
            image_format = self.sniff(file.read(_HEAD))
            file.seek(0)
            reader = Reader(file)
            width, height = DIMENSIONS[image_format](reader)
            check_size(width, height, self._max_pixels)
            if self._max_memory is not None:
                _check_memory(least_memory(image_format, width, height, reader), self._max_memory)
        return ImageHeader(format=image_format, width=width, height=height)


def _check_memory(least: int, limit: int) -> None:
    if least > limit:
        raise ImageTooLarge(
            f"Decoding the image takes {least / 1e6:.0f} MB of memory or more; this service allows {limit / 1e6:.0f} "
            "MB. Scale it down and upload it again."
        )


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Return if an image of this size may be decoded.

    Raises:
        CorruptImage: a side is zero.
        ImageTooLarge: more than ``max_pixels`` pixels.
    """
    if not width or not height:
        raise CorruptImage(f"The image is {width}x{height} pixels: it holds nothing to show.")
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"The image is {width}x{height} pixels, {width * height / 1e6:.1f} megapixels; this service accepts up to "
            f"{max_pixels / 1e6:g} megapixels. Scale it down and upload it again."
        )
