"""JPEG: libjpeg-turbo through Pillow, scaled while it decodes; files without an end marker."""

import hashlib
import io
import math
from typing import IO, TYPE_CHECKING, BinaryIO, Final

from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from image_service.imaging.formats.jpeg_scans import end_of_image, ends_in_scan, lacks_detail

if TYPE_CHECKING:
    from PIL._imaging import PixelAccess

_MARGIN: Final = 1.2
"""How many times the wanted size is decoded, or more, as the scales are 1/2, 1/4 and 1/8. See docs/decisions/0011."""
_ALL: Final = 1 << 30
"""More bytes than any file has: libjpeg works faster on the whole than on pieces of 64 KB."""

_END_OF_IMAGE: Final = b"\xff\xd9"
_NOISE: Final = bytes(37 * index % 251 for index in range(512))
"""Without markers, and after a byte FF none either: it begins with a zero."""
_STRIP: Final = 64
_FILLING: Final = frozenset({127, 128})
"""The value that libjpeg gives all samples of missing blocks; Pillow inverts CMYK."""


class Jpeg(JpegImageFile):
    """A JPEG file, which is in memory anyway."""

    _wanted: tuple[int, int] | None = None

    def _open(self) -> None:
        super()._open()
        self.decodermaxblock = _ALL

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> tuple[str, tuple[int, int, float, float]] | None:
        """Skip what an image of the given size does not show."""
        self._wanted = size and (math.ceil(size[0] * _MARGIN), math.ceil(size[1] * _MARGIN))
        return super().draft(mode, self._wanted)

    def load(self) -> "PixelAccess | None":
        """Decode, unless that is done.

        Raises:
            OSError: the data is damaged, or the file ends before the end marker.
            ValueError: the data ends before the last row, although the end is marked.
        """
        file = self.fp if self.tile else None
        loaded = super().load()
        if file and not ImageFile.LOAD_TRUNCATED_IMAGES and self._depends_on_end(file):
            raise ValueError("the picture ends before its last row")
        return loaded

    def _ends_in_filling(self) -> bool:
        """Whether the last pixel looks as if its block were missing."""
        pixel = self.getpixel((self.width - 1, self.height - 1))
        return _FILLING.issuperset(pixel if isinstance(pixel, tuple) else (pixel,))

    def _depends_on_end(self, file: IO[bytes]) -> bool:
        """Whether the picture is another one with other data before its end marker.

        It is decoded a second time for that, if it looks incomplete at all.
        """
        filled, progressive = self._ends_in_filling(), "progressive" in self.info
        if not filled and not progressive:
            return False
        file.seek(0)
        data = file.read()
        end = end_of_image(data) if filled or lacks_detail(data) else None
        if end is None:
            return False
        again = JpegImageFile(io.BytesIO(b"".join((data[:end], _NOISE, data[end:]))))
        again.draft(None, self._wanted)
        again.load()
        return _digest(again) != _digest(self)


def decode_without_end(file: BinaryIO) -> Image.Image:
    """Return the picture of a JPEG file that lacks nothing but its end marker, at full size.

    libjpeg fills in what is missing, and does not report that through Pillow. But if nothing is missing, the picture
    does not depend on what follows the file's last byte.

    Raises:
        OSError: the picture itself is incomplete.
    """
    file.seek(0)
    data = file.read()
    if not ends_in_scan(data):
        raise OSError("the file ends between two scans")
    # One after the other: at full size, a second picture is hundreds of megabytes.
    expected = _digest(_load(data + _NOISE + _END_OF_IMAGE))
    plain = _load(data + _END_OF_IMAGE)
    if _digest(plain) != expected:
        raise OSError("the picture ends before its last row")
    return plain


def _load(data: bytes) -> Image.Image:
    image = JpegImageFile(io.BytesIO(data))
    image.load()
    return image


def _digest(image: Image.Image) -> bytes:
    """Return a digest of the pixels, taken in strips: the bytes of the whole would need as much memory again."""
    digest = hashlib.sha256()
    for top in range(0, image.height, _STRIP):
        digest.update(image.crop((0, top, image.width, min(top + _STRIP, image.height))).tobytes())
    return digest.digest()
