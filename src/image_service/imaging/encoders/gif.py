"""GIF: stills and animations, written frame by frame, each with a palette of its own (GIF89a §18 to §26).

Pillow's writer keeps all frames of an animation in memory, and takes a pixel for opaque unless its alpha is zero.
"""

import struct
from dataclasses import dataclass
from typing import Final

from PIL import GifImagePlugin, Image, ImageChops

_COLOURS: Final = 255
"""In a palette; one more entry stands for pixels that are not drawn."""
_HALF: Final = 128
"""Alpha from which a pixel is opaque."""
_KEEP, _CLEAR = 1, 2
"""Disposal methods: the frame stays, or its area becomes transparent."""
_TRANSPARENT: Final = 1
_LOCAL_TABLE: Final = 0x80
_LOOPING: Final = b"!\xff\x0bNETSCAPE2.0\x03\x01"
_DESCRIPTOR: Final = 10
"""Bytes of the image descriptor, which Pillow writes without a palette."""
_TRAILER: Final = b";"
_SHORTEST: Final = 2
"""Hundredths of a second; browsers show frames of fewer for ten."""
_LONGEST: Final = 0xFFFF

_Area = tuple[int, int, int, int]


@dataclass(slots=True)
class _Drawn:
    """A frame that is not written yet: how it ends depends on the next one."""

    pixels: Image.Image
    """In mode P: what changes on the canvas."""
    undrawn: int
    """The palette entry of all other pixels."""
    partly: bool
    """Whether there are any."""
    left: int
    top: int
    milliseconds: float


def encode(image: Image.Image, background: str) -> bytes:
    """Return a picture as a still, with 255 colours and without metadata.

    Args:
        image: In mode L, RGB or RGBA.
        background: What pixels stand on that are partly transparent, as #rrggbb.
    """
    writer = Writer(image.size, background=background)
    writer.add(image, 0)
    return writer.finish()


class Writer:
    """Writes an animation."""

    def __init__(self, size: tuple[int, int], *, plays: int = 1, background: str = "#ffffff") -> None:
        """Begin a file.

        Args:
            size: Of the canvas, in pixels.
            plays: How many times it is shown; zero: for ever.
            background: What pixels stand on that are partly transparent, as #rrggbb.
        """
        self.size = size
        """Of the canvas, in pixels."""
        self._background = Image.new("RGB", size, background)
        self._canvas = Image.new("RGBA", size)
        """What is shown after the frames so far."""
        self._content = bytearray(b"GIF89a" + struct.pack("<HHBBB", *size, 0x70, 0, 0))
        if plays != 1:
            # It counts repetitions, not plays.
            self._content += _LOOPING + struct.pack("<HB", min(max(plays - 1, 0), _LONGEST), 0)
        self._is_empty = True
        self._last: _Drawn | None = None
        self._due, self._passed = 0.0, 0

    @property
    def size_bytes(self) -> int:
        """The length of the file so far."""
        return len(self._content)

    def add(self, image: Image.Image, milliseconds: float) -> None:
        """Append a frame.

        Args:
            image: All of the canvas, in mode L, RGB or RGBA.
            milliseconds: How long it is shown.
        """
        frame = self._visible(image)
        last = self._last
        if last and _vanishes(self._canvas, frame):
            self._write(self._on_whole_canvas(last), _CLEAR)
            self._canvas = Image.new("RGBA", self.size)
            last = self._last = None
        changed = _changes(self._canvas, frame)
        area = changed.getbbox()
        if last and not area:
            last.milliseconds += milliseconds
            return
        if self._is_empty:
            # Some viewers paint what the first frame leaves.
            area, self._is_empty = (0, 0, *self.size), False
        if last:
            self._write(last, _KEEP)
        self._last = _draw(frame, changed, area or (0, 0, 1, 1), milliseconds)
        self._canvas = frame

    def finish(self) -> bytes:
        """Return the file."""
        if self._last:
            self._write(self._last, _KEEP)
            self._last = None
        return bytes(self._content + _TRAILER)

    def _visible(self, image: Image.Image) -> Image.Image:
        """Return the picture in RGBA with every pixel either opaque or transparent black."""
        if image.mode != "RGBA":
            return image.convert("RGBA")
        made = self._background.copy()
        made.paste(image, mask=image)
        opaque = image.getchannel("A").point(lambda alpha: 255 if alpha >= _HALF else 0)
        frame = Image.new("RGBA", image.size)
        frame.paste(made, mask=opaque)
        return frame

    def _on_whole_canvas(self, drawn: _Drawn) -> _Drawn:
        """Return the frame with an area that covers the canvas, so that all of it is cleared afterwards."""
        pixels = drawn.pixels.resize(self.size)
        pixels.paste(drawn.undrawn, (0, 0, *self.size))
        pixels.paste(drawn.pixels, (drawn.left, drawn.top))
        return _Drawn(pixels, drawn.undrawn, True, 0, 0, drawn.milliseconds)  # noqa: FBT003 — a field

    def _write(self, drawn: _Drawn, disposal: int) -> None:
        self._due += drawn.milliseconds / 10
        hundredths = min(max(round(self._due) - self._passed, _SHORTEST), _LONGEST) if drawn.milliseconds else 0
        self._passed += hundredths
        palette = bytes(drawn.pixels.getpalette() or b"")[: 3 * drawn.undrawn]
        exponent = max(1, drawn.undrawn.bit_length())
        flags = disposal << 2 | (_TRANSPARENT if drawn.partly else 0)
        self._content += b"!\xf9\x04" + struct.pack("<BHBB", flags, hundredths, drawn.undrawn, 0)
        self._content += b"," + struct.pack(
            "<HHHHB", drawn.left, drawn.top, *drawn.pixels.size, _LOCAL_TABLE | exponent - 1
        )
        self._content += palette.ljust(3 << exponent, b"\0")
        self._content += b"".join(GifImagePlugin.getdata(drawn.pixels))[_DESCRIPTOR:]


def _vanishes(before: Image.Image, after: Image.Image) -> bool:
    """Whether a pixel that was opaque no longer is."""
    return ImageChops.subtract(before.getchannel("A"), after.getchannel("A")).getbbox() is not None


def _changes(before: Image.Image, after: Image.Image) -> Image.Image:
    """Return a mask of the pixels that differ and are visible afterwards."""
    red, green, blue, alpha = ImageChops.difference(before, after).split()
    most = ImageChops.lighter(ImageChops.lighter(red, green), ImageChops.lighter(blue, alpha))
    return ImageChops.multiply(most.point(lambda value: 255 if value else 0), after.getchannel("A"))


def _draw(frame: Image.Image, changed: Image.Image, area: _Area, milliseconds: float) -> _Drawn:
    """Return the changed pixels of the area as a frame."""
    part, mask = frame.crop(area).convert("RGB"), changed.crop(area)
    # Exact, but slow for many colours.
    method = Image.Quantize.MEDIANCUT if part.getcolors(_COLOURS) else Image.Quantize.FASTOCTREE
    pixels = part.quantize(_COLOURS, method, dither=Image.Dither.NONE)
    undrawn = int(pixels.getextrema()[1]) + 1  # type: ignore[arg-type]  # of one channel
    pixels.paste(undrawn, mask=ImageChops.invert(mask))
    partly = mask.getextrema()[0] == 0
    return _Drawn(pixels, undrawn, partly, area[0], area[1], milliseconds)
