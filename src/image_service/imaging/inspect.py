"""Judges an upload by its header, in the process that received it, without a decoder."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from image_service.domain.image import ImageFormat, ImageHeader
from image_service.errors import CorruptImage, ImageTooLarge, UnsupportedFormat
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
        self, *, max_pixels: int = DEFAULT_MAX_PIXELS, allowed: Iterable[ImageFormat] = frozenset(ImageFormat)
    ) -> None:
        self._max_pixels = max_pixels
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
            width, height = DIMENSIONS[image_format](Reader(file))
        check_size(width, height, self._max_pixels)
        return ImageHeader(format=image_format, width=width, height=height)


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
