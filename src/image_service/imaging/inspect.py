"""Inspects uploads by their header, without a decoder, in the process that received them."""

from collections.abc import Iterable
from pathlib import Path

from image_service.domain.image import DEFAULT_FORMATS, ImageFormat, ImageHeader
from image_service.domain.limits import MAX_PIXELS
from image_service.errors import CorruptImage, ImageTooLarge, UnsupportedFormat
from image_service.imaging.formats import read_dimensions
from image_service.imaging.formats.content import FileContent
from image_service.imaging.formats.magic import identify
from image_service.imaging.memory_estimate import least_memory


class HeaderInspector:
    """The ``Inspector`` that parses headers itself.

    An image library's own ``open`` may allocate the whole canvas or inflate megabytes of metadata; this reads a few
    kilobytes at most and takes microseconds, whatever a file claims.
    """

    def __init__(
        self,
        *,
        max_pixels: int = MAX_PIXELS,
        max_memory: int | None = None,
        allowed: Iterable[ImageFormat] = DEFAULT_FORMATS,
    ) -> None:
        """Create an inspector.

        Args:
            max_pixels: The largest accepted width times height.
            max_memory: Address space that a decoder may use, in bytes; any, if left out.
            allowed: The accepted formats.
        """
        self._max_pixels = max_pixels
        self._max_memory = max_memory
        self._allowed = frozenset(allowed)

    def sniff(self, head: bytes) -> ImageFormat:
        """Return the format that the first bytes belong to; see ``Inspector.sniff``."""
        found = identify(head)
        if found in self._allowed:
            return found
        accepted = ", ".join(sorted(name.value.upper() for name in self._allowed))
        what = "no image in a known format" if found is None else f"a {found.value.upper()} image"
        raise UnsupportedFormat(
            f"The file's content is {what}; accepted are {accepted}. Its name and Content-Type do not matter."
        )

    def inspect(self, path: Path) -> ImageHeader:
        """Return format and dimensions from the file's header; see ``Inspector.inspect``."""
        with FileContent(path) as content:
            image_format = self.sniff(content.head)
            width, height = read_dimensions(content, image_format)
            check_size(width, height, self._max_pixels)
            if self._max_memory is not None:
                _check_memory(least_memory(image_format, width, height, content), self._max_memory)
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
        raise CorruptImage(f"The image is {width}x{height} pixels: it has no content.")
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"The image is {width}x{height} pixels, {width * height / 1e6:.1f} megapixels; this service accepts up to "
            f"{max_pixels / 1e6:g} megapixels. Scale it down and upload it again."
        )
