"""WebP: stills scaled by libwebp while it decodes them; animations, and whatever it refuses, by Pillow.

Pillow decodes stills too as animations, at full size on two canvases of it.
"""

import io
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Final

from PIL import Image, ImageFile
from PIL.WebPImagePlugin import WebPImageFile

from image_service.imaging.decoders import libwebp

if TYPE_CHECKING:
    from PIL._imaging import PixelAccess

_MARGIN: Final = 2
"""How many times the wanted size is decoded: libwebp averages areas, which would show with less."""
_RIFF_HEADER: Final = 12
_CHUNK_HEADER: Final = 8
_METADATA: Final = {b"ICCP": "icc_profile", b"EXIF": "exif"}
"""Chunks that matter, with Pillow's names for their content (RFC 9649 §2.7.1)."""
_ALPHA: Final = 0x10
_UNKNOWN: Final = 0xC1
"""Flags of the VP8X chunk (RFC 9649 §2.7): that there is transparency, and those that mean nothing yet."""


def open_webp(file: BinaryIO) -> ImageFile.ImageFile:
    """The image or, of an animation, its first frame."""
    try:
        return StillWebP(file)
    except SyntaxError:
        file.seek(0)
        return WebPImageFile(file)


class StillWebP(ImageFile.ImageFile):
    """A WebP file that is no animation."""

    format = "WEBP"
    format_description = "WebP still image"

    def _open(self) -> None:
        assert self.fp  # noqa: S101 — the constructor has just set it
        self._content = self.fp.read()
        try:
            features = libwebp.read_features(self._content)
        except libwebp.Refused as error:
            raise SyntaxError("libwebp finds no image") from error
        if features.has_animation:
            raise SyntaxError("the file is an animation")
        self._mode = "RGBA" if features.has_alpha else "RGB"
        self._size = features.width, features.height
        flags = 0
        for kind, content in _chunks(self._content):
            if kind == b"VP8X":
                flags = content[0]
            if flags & _UNKNOWN or (kind == b"ALPH" and not flags & _ALPHA):
                raise SyntaxError("the flags do not fit")
            # Where there are two, libwebp goes by the first.
            if kind in _METADATA:
                self.info.setdefault(_METADATA[kind], content)

    def draft(
        self,
        mode: str | None,  # noqa: ARG002 — for Pillow's interface
        size: tuple[int, int] | None,
    ) -> tuple[str, tuple[int, int, float, float]] | None:
        """Average what an image of the given size does not show.

        Not with transparency: libwebp would mix the colours of invisible pixels in.
        """
        if not size or self.mode != "RGB":
            return None
        width, height = math.ceil(size[0] * _MARGIN), math.ceil(size[1] * _MARGIN)
        if width >= self.width or height >= self.height:
            return None
        self._size = width, height
        return self.mode, (0, 0, width, height)

    def load(self) -> "PixelAccess | None":
        """Decode, unless that was done."""
        if self._im is None:
            try:
                pixels = libwebp.decode(self._content, self.mode, self.size)
            except libwebp.Refused:
                self._take_over(WebPImageFile(io.BytesIO(self._content)))
            else:
                self._take_over(Image.frombuffer(self.mode, self.size, pixels, "raw", self.mode, 0, 1))
            self._content = b""
        return Image.Image.load(self)

    def _take_over(self, image: Image.Image) -> None:
        image.load()
        self.im, self._mode, self._size = image.im, image.mode, image.size


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of every chunk (RFC 9649 §2.3).

    Raises:
        SyntaxError: they do not fill the file to the end that it gives. libwebp would not mind, as long as it finds
            the pixels somewhere; Pillow does.
    """
    position, end = _RIFF_HEADER, _CHUNK_HEADER + int.from_bytes(content[4:8], "little")
    while position < end <= len(content):
        start = position + _CHUNK_HEADER
        length = int.from_bytes(content[position + 4 : start], "little")
        yield content[position : position + 4], content[start : start + length]
        position = start + length + length % 2
    if position != end:
        raise SyntaxError("the chunks do not fill the file")
