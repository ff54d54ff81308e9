"""WebP: stills scaled by libwebp while it decodes them; animations, and files that it refuses, with Pillow.

Pillow decodes stills as animations too, at full size with two canvases of that size.
"""

import io
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Final

from PIL import Image, ImageFile
from PIL.WebPImagePlugin import WebPImageFile

from image_service.imaging.decoders import libwebp
from image_service.imaging.formats.webp import ALPHA, FIRST_CHUNK, Chunk, chunks

if TYPE_CHECKING:
    from PIL._imaging import PixelAccess

_MARGIN: Final = 2
"""How many times the wanted size is decoded: libwebp averages areas, which would be visible with less."""
_UNKNOWN: Final = 0xC1
"""Reserved flags of the VP8X chunk (RFC 9649 §2.7)."""


def open_webp(file: BinaryIO) -> ImageFile.ImageFile:
    """Return the image or, of an animation, its first frame."""
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
        for chunk in _chunks(self._content):
            if chunk.kind == b"VP8X":
                flags = self._content[chunk.body]
            if flags & _UNKNOWN or (chunk.kind == b"ALPH" and not flags & ALPHA):
                raise SyntaxError("the flags contradict the chunks")

    def draft(
        self,
        mode: str | None,  # noqa: ARG002 — for Pillow's interface
        size: tuple[int, int] | None,
    ) -> tuple[str, tuple[int, int, float, float]] | None:
        """Average detail that an image of the given size does not show.

        Not with transparency: libwebp would blend in the colours of invisible pixels.
        """
        if not size or self.mode != "RGB":
            return None
        width, height = math.ceil(size[0] * _MARGIN), math.ceil(size[1] * _MARGIN)
        if width >= self.width or height >= self.height:
            return None
        self._size = width, height
        return self.mode, (0, 0, width, height)

    def load(self) -> "PixelAccess | None":
        """Decode, unless that is done."""
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


def _chunks(content: bytes) -> Iterator[Chunk]:
    """Yield every chunk in the RIFF chunk around them (RFC 9649 §2.3).

    Raises:
        SyntaxError: they do not fill it, or the file, exactly. libwebp would accept that, as long as it finds the
            pixels somewhere; Pillow does not.
    """
    position, end = FIRST_CHUNK, 8 + int.from_bytes(content[4:8], "little")
    for chunk in chunks(content) if end <= len(content) else ():
        if chunk.start >= end:
            break
        yield chunk
        position = chunk.next
    if position != end:
        raise SyntaxError("the chunks do not fill the file")
