"""PNG: photographs by a decoder in Rust, in half the time; everything else, and every doubt, by Pillow."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from image_service.imaging.essentials.png import chunks
from image_service.imaging.resizing import resize

if TYPE_CHECKING:
    from PIL._imaging import PixelAccess

_KINDS: Final = {"L": "mono", "RGB": "rgb", "RGBA": "rgba"}
"""What kornia-rs decodes, by Pillow's mode, which is also the raw mode of an image with 8 bits a sample."""
_WORTHWHILE: Final = 1_000_000
"""Pixels below which the time saved does not repay loading the decoder, and NumPy with it."""
_STRIP: Final = 256
"""Rows that are made narrow at a time."""


class Png(PngImageFile):
    """A PNG file."""

    _wanted_width: int | None = None

    def draft(
        self,
        mode: str | None,  # noqa: ARG002 — for Pillow's interface
        size: tuple[int, int] | None,
    ) -> tuple[str, tuple[int, int, float, float]] | None:
        """Remember the width: the picture may come out as narrow, and yet as high as it is."""
        self._wanted_width = size[0] if size else None
        return None

    def load(self) -> "PixelAccess | None":
        """Decode, unless that was done."""
        if self.tile and self._is_plain():
            self._load_quickly()
        return super().load()

    def _is_plain(self) -> bool:
        """Whether the other decoder knows it, and to the same effect: no palette, no colour key, nothing interlaced."""
        return (
            self.width * self.height >= _WORTHWHILE
            and self.mode in _KINDS
            and self.tile[0].args == self.mode
            and not {"transparency", "interlace"} & self.info.keys()
        )

    def _load_quickly(self) -> None:
        """Decode, if the other decoder can: it refuses what is not perfect, which Pillow then judges."""
        assert self.fp  # noqa: S101 — it is there until the image is loaded
        position = self.fp.tell()
        self.fp.seek(0)
        content = self.fp.read()
        self.fp.seek(position)
        pixels = _decode(content, self.size, _KINDS[self.mode])
        if pixels is None:
            return
        for kind, chunk in chunks(content):
            # It may also stand after the pixels, where Pillow has not been.
            if kind == b"eXIf":
                self.info["exif"] = b"Exif\0\0" + bytes(chunk[8:-4])
        image = self._image(pixels)
        self.im, self._size, self.tile = image.im, image.size, []

    def _image(self, pixels: memoryview) -> Image.Image:
        """The pixels as an image, already narrow where it would have to be a copy."""
        if self.mode != "RGB" or not self._wanted_width or self._wanted_width >= self.width:
            return _as_image(self.mode, self.size, pixels)
        stride, image = self.width * len(self.mode), Image.new(self.mode, (self._wanted_width, self.height))
        for top in range(0, self.height, _STRIP):
            rows = min(_STRIP, self.height - top)
            strip = pixels[top * stride : (top + rows) * stride]
            image.paste(resize(_as_image(self.mode, (self.width, rows), strip), (image.width, rows)), (0, top))
        return image


def _as_image(mode: str, size: tuple[int, int], pixels: memoryview) -> Image.Image:
    """The pixels as they are or, of RGB, a copy: Pillow keeps a fourth byte there."""
    return Image.frombuffer(mode, size, pixels, "raw", mode, 0, 1)  # type: ignore[arg-type]  # takes any buffer


def _decode(content: bytes, size: tuple[int, int], kind: str) -> memoryview | None:
    """The pixels, row by row without gaps; None if the decoder is missing or refuses the file."""
    width, height = size
    try:
        # At the first file that needs it: few processes ever see one, and it takes 20 MB.
        decoder: Any = import_module("kornia_rs").io
        return memoryview(decoder.decode_image_png_u8(content, (height, width), kind)).cast("B")
    except Exception:  # noqa: BLE001 — whatever the reason, Pillow does it then
        return None
    except BaseException as error:
        # This is what a panic in Rust becomes, and there is no class to import for it.
        if type(error).__name__ != "PanicException":
            raise
        return None
