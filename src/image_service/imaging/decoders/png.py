"""PNG: photographs with a decoder in Rust, in half the time; everything else, and every doubtful file, with Pillow."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Final

from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngImageFile

from image_service.imaging.formats.png import has_all_pixels
from image_service.imaging.resizing import resize

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL._imaging import PixelAccess

_KINDS: Final = {"L": "mono", "RGB": "rgb", "RGBA": "rgba"}
"""Image kinds that kornia-rs decodes, by Pillow's mode: also the raw mode of an image with 8 bits a sample."""
_LEAST_PIXELS: Final = 1_000_000
"""Pixels below which the time saved is less than that for loading the decoder, and NumPy with it."""
_FILLING: Final = (90, 171, 37, 202)
"""Pixels that few pictures have."""
_STRIP: Final = 256
"""Rows that are scaled to the wanted width at a time."""

_TRANSPARENCY_SCALE: Final[dict[str, Callable[[int], int]]] = {
    "L;2": lambda value: value * 85,
    "L;4": lambda value: value * 17,
    "RGB;16B": lambda value: value >> 8,
}
"""From a PNG's transparent sample at its own depth to the 8 bits that Pillow decodes it to, by Pillow raw mode."""


class Png(PngImageFile):
    """A PNG file."""

    _wanted_width: int | None = None
    _last_pixels: Sequence[tuple[int, int]] = ()
    """Places in the row that is decoded last."""
    _filling: Sequence[Any] = ()
    """What stands in them before."""

    def draft(
        self,
        mode: str | None,  # noqa: ARG002 — for Pillow's interface
        size: tuple[int, int] | None,
    ) -> tuple[str, tuple[int, int, float, float]] | None:
        """Remember the width: the decoded picture may be as narrow, with its height unchanged."""
        self._wanted_width = size[0] if size else None
        return None

    def load(self) -> "PixelAccess | None":
        """Decode, unless that is done.

        Raises:
            OSError: the data is damaged or cut off.
            ValueError: it ends before the last row.
        """
        if self.tile and self._is_plain():
            self._load_with_kornia()
        file = self.fp if self.tile else None
        loaded = super().load()
        if file and not ImageFile.LOAD_TRUNCATED_IMAGES and self._lacks_rows(file):
            raise ValueError("the pixels end before the last row")
        return loaded

    def load_prepare(self) -> None:
        """Make the canvas; for Pillow's decoder."""
        super().load_prepare()
        # It takes any end of the compressed data for the regular one: then its last row keeps what stands there now.
        last = self.height - 1
        if "interlace" in self.info:
            last -= self.height > 1 and self.height % 2
        self._last_pixels = [(left, last) for left in range(min(self.width, len(_FILLING)))]
        for place, value in zip(self._last_pixels, _FILLING, strict=False):
            self.im.putpixel(place, value)
        self._filling = self._read_last_pixels()

    def _lacks_rows(self, file: IO[bytes]) -> bool:
        """Whether the compressed data ended before the last row, which may also be like the filling by chance."""
        if not self._last_pixels or self._read_last_pixels() != self._filling:
            return False
        file.seek(0)
        return not has_all_pixels(file.read())

    def _read_last_pixels(self) -> list[Any]:
        return [self.im.getpixel(place) for place in self._last_pixels]

    def _is_plain(self) -> bool:
        """Whether the other decoder gives the same result: no palette, no colour key, not interlaced."""
        return (
            self.width * self.height >= _LEAST_PIXELS
            and self.mode in _KINDS
            and self.tile[0].args == self.mode
            and not {"transparency", "interlace"} & self.info.keys()
        )

    def _load_with_kornia(self) -> None:
        """Decode, if the other decoder can: it refuses files with any flaw, which Pillow then judges."""
        assert self.fp  # noqa: S101 — it is set until the image is loaded
        position = self.fp.tell()
        self.fp.seek(0)
        content = self.fp.read()
        self.fp.seek(position)
        pixels = _decode(content, self.size, _KINDS[self.mode])
        if pixels is None:
            return
        image = self._image(pixels)
        self.im, self._size, self.tile = image.im, image.size, []

    def _image(self, pixels: memoryview) -> Image.Image:
        """Return the pixels as an image, already scaled to the wanted width where it would have to be a copy."""
        if self.mode != "RGB" or not self._wanted_width or self._wanted_width >= self.width:
            return _as_image(self.mode, self.size, pixels)
        stride, image = self.width * len(self.mode), Image.new(self.mode, (self._wanted_width, self.height))
        for top in range(0, self.height, _STRIP):
            rows = min(_STRIP, self.height - top)
            strip = pixels[top * stride : (top + rows) * stride]
            image.paste(resize(_as_image(self.mode, (self.width, rows), strip), (image.width, rows)), (0, top))
        return image


def _as_image(mode: str, size: tuple[int, int], pixels: memoryview) -> Image.Image:
    """Return the pixels as an image that shares them or, for RGB, a copy: Pillow keeps a fourth byte there."""
    return Image.frombuffer(mode, size, pixels, "raw", mode, 0, 1)  # type: ignore[arg-type]  # takes any buffer


def _decode(content: bytes, size: tuple[int, int], kind: str) -> memoryview | None:
    """Return the pixels, row by row without gaps; None if the decoder is missing or refuses the file."""
    samples = decode_samples(content, size, kind, 8)
    return None if samples is None else samples.data.cast("B")


def decode_samples(content: bytes, size: tuple[int, int], kind: str, depth: int) -> "NDArray[Any] | None":
    """Return the pixels as a NumPy array of rows; None if the decoder is missing or refuses the file.

    Args:
        content: The file.
        size: Width and height in pixels.
        kind: ``mono``, ``rgb`` or ``rgba``, which has to be the file's.
        depth: 8 or 16 bits a sample, likewise.
    """
    width, height = size
    try:
        # Loaded for the first file that needs it: few processes ever get one, and it takes 20 MB.
        decoder = getattr(import_module("kornia_rs").io, f"decode_image_png_u{depth}")
        samples: NDArray[Any] = decoder(content, (height, width), kind)
    except Exception:  # noqa: BLE001 — whatever the reason, Pillow decodes the file then
        return None
    except BaseException as error:
        # A panic in Rust is raised as this class, which cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        return None
    return samples


def repair_transparency(image: ImageFile.ImageFile) -> None:
    """Scale a PNG's transparent colour to the depth of the decoded image, which Pillow does not do."""
    scale = _TRANSPARENCY_SCALE.get(str(image.tile[0].args)) if image.tile else None
    match image.info.get("transparency"), scale:
        case int(value), Callable() as scaled:
            image.info["transparency"] = scaled(value)
        case tuple(values), Callable() as scaled:
            image.info["transparency"] = tuple(scaled(value) for value in values)
