"""JPEG: libjpeg-turbo through Pillow, scaled while it decodes."""

import math
from typing import Final

from PIL.JpegImagePlugin import JpegImageFile

_MARGIN: Final = 1.2
"""How many times the wanted size is decoded, or more, as the scales are 1/2, 1/4 and 1/8. See docs/decisions/0011."""
_ALL: Final = 1 << 30
"""More bytes than any file has: libjpeg works faster on the whole than on pieces of 64 KB."""


class Jpeg(JpegImageFile):
    """A JPEG file, which is in memory anyway."""

    def _open(self) -> None:
        super()._open()
        self.decodermaxblock = _ALL

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> tuple[str, tuple[int, int, float, float]] | None:
        """Skip what an image of the given size does not show."""
        return super().draft(mode, size and (math.ceil(size[0] * _MARGIN), math.ceil(size[1] * _MARGIN)))
