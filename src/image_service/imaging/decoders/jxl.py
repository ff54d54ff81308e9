"""JPEG XL: libjxl, an optional dependency that is loaded only where JPEG XL is enabled."""

from typing import TYPE_CHECKING

from PIL import Image, ImageFile

from image_service.imaging.decoders import libjxl
from image_service.imaging.formats.colour import Signal

if TYPE_CHECKING:
    from PIL._imaging import PixelAccess


def prepare() -> None:
    """Load the library before the sandbox forbids it and before an image's time runs.

    Raises:
        ImportError: it is not installed, or its version is not known.
    """
    libjxl.load()


class JpegXl(ImageFile.ImageFile):
    """A JPEG XL file. libjxl applies its orientation, and Pillow then reports none."""

    format = "JXL"
    format_description = "JPEG XL"

    def _open(self) -> None:
        assert self.fp  # noqa: S101 — the constructor has just set it
        self._content = self.fp.read()
        try:
            self._picture = libjxl.read_picture(self._content)
        except libjxl.Refused as error:
            raise SyntaxError(f"libjxl finds no image: {error}") from error
        self._mode, self._size = self._picture.mode, self._picture.size

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What the file says about the colours of its pixels."""
        return (self._picture.signal,) if self._picture.signal else ()

    @property
    def bits(self) -> int:
        """Bits of a sample."""
        return self._picture.bits

    def load(self) -> "PixelAccess | None":
        """Decode, unless that is done.

        Raises:
            OSError: the data is damaged, incomplete or of a kind that is not supported, or there is too little memory.
        """
        if self._im is None:
            try:
                pixels = libjxl.decode(self._content)
            except libjxl.Refused as error:
                raise OSError(str(error)) from error
            self._content = b""
            self.im = Image.frombuffer(self.mode, self.size, pixels, "raw", self.mode, 0, 1).im
        return Image.Image.load(self)
