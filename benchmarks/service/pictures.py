"""Test pictures to upload."""

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageFilter


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG of a width and height in pixels."""

    name: str
    width: int
    height: int
    quality: int = 85

    def content(self) -> bytes:
        """Returns the file's content."""
        return picture(self.width, self.height, self.quality)


LARGE: Final = Picture("12 MP", 4000, 3000)
SMALL: Final = Picture("100 KB", 816, 612, quality=67)
MEGABYTE: Final = Picture("1 MB", 2080, 1560)


def picture(width: int, height: int, quality: int = 85) -> bytes:
    """Returns a JPEG with the statistics of a photograph: 1/f noise, that is, detail at every scale."""
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
    """Returns a JPEG that is extended to ``size`` bytes: decoders ignore what follows the image."""
    return content + bytes(size - len(content))
