"""One file, and what is known of it beforehand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from image_service.domain.image import ImageFormat

CONTENT_TYPES: Final = {
    ImageFormat.PNG: "image/png",
    ImageFormat.JPEG: "image/jpeg",
    ImageFormat.WEBP: "image/webp",
    ImageFormat.AVIF: "image/avif",
    ImageFormat.JXL: "image/jxl",
    ImageFormat.GIF: "image/gif",
    ImageFormat.BMP: "image/bmp",
}
"""How the browser learns of the format; it shows no TIFF and no HEIC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A file whose thumbnail is compared with what the browser shows of it."""

    format: ImageFormat
    mode: str
    """Grey, RGB, palette, with alpha or with a transparent colour."""
    depth: int
    """Bits a sample."""
    signal: str
    """How the file says what its values mean, or how it is turned."""
    make: Callable[[], bytes]
    """Returns the file."""
    stand_in: Callable[[], bytes] | None = None
    """Returns a PNG of the same picture, for formats that the browser does not show."""
    difference: str = ""
    """Why the service shows another picture on purpose; empty if it must show the same."""

    @property
    def name(self) -> str:
        """The case in one word."""
        return f"{self.format.value}-{self.mode}-{self.depth}-{self.signal}"
