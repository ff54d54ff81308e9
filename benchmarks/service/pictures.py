"""The pictures that are uploaded."""

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageFilter


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG of that size, in pixels."""

    name: str
    width: int
    height: int
    quality: int = 85

    def content(self) -> bytes:
        """The file."""
        return picture(self.width, self.height, self.quality)


LARGE: Final = Picture("12 MP", 4000, 3000)
SMALL: Final = Picture("100 KB", 816, 612, quality=67)
MEGABYTE: Final = Picture("1 MB", 2080, 1560)


def picture(width: int, height: int, quality: int = 85) -> bytes:
    """A JPEG with the statistics of a photograph: detail at every scale, the less the finer (1/f noise)."""
    random = np.random.default_rng(7)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    falloff = 1 / np.maximum(np.hypot(rows, columns), 1 / max(width, height))
    planes = []
    for _ in range(3):
        spectrum = np.fft.rfft2(random.standard_normal((height, width))) * falloff
        plane = np.fft.irfft2(spectrum, s=(height, width))
        planes.append(np.clip(128 + 48 * plane / plane.std(), 0, 255).astype(np.uint8))
    data = io.BytesIO()
    Image.fromarray(np.dstack(planes)).filter(ImageFilter.GaussianBlur(0.7)).save(data, "JPEG", quality=quality)
    return data.getvalue()


def padded(content: bytes, size: int) -> bytes:
    """A JPEG made longer: it may be followed by anything."""
    return content + bytes(size - len(content))
