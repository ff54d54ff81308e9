"""TIFF: the first directory (TIFF 6.0 §2 and §8; BigTIFF). Other pages are never looked at."""

import struct
from typing import Final

from image_service.errors import ImageTooLarge
from image_service.imaging.directory import LAYOUTS
from image_service.imaging.headers.reader import Reader, damaged

_WIDTH, _HEIGHT = 256, 257
_PIECES: Final = frozenset({273, 324})
"""StripOffsets and TileOffsets, which have a value for each strip or tile."""
_NUMBERS: Final = {3: "H", 4: "I", 16: "Q"}
"""SHORT, LONG and BigTIFF's LONG8, by the number of the type."""
_MAX_ENTRIES: Final = 4096
_MAX_PIECES: Final = 1 << 18
"""50 megapixels in the smallest legal tiles are 200,000 of them, and each costs the decoder a step."""


def dimensions(reader: Reader) -> tuple[int, int]:
    """Width and height in pixels of the first page.

    Raises:
        CorruptImage: its directory is incomplete, or does not give the size in plain numbers.
        ImageTooLarge: it is cut into more pieces than anyone needs.
    """
    layout = LAYOUTS[reader.take(4)]
    reader.seek(0)
    (position,) = layout.start.unpack(reader.take(layout.start.size))
    # Beyond the end lies nothing, however far.
    reader.seek(min(position, reader.size))
    (entries,) = layout.count.unpack(reader.take(layout.count.size))
    if entries > _MAX_ENTRIES:
        raise damaged("TIFF", "its directory has too many entries")
    size: dict[int, int] = {}
    for _ in range(entries):
        tag, kind, count, field = layout.entry.unpack(reader.take(layout.entry.size))
        if tag in _PIECES and count > _MAX_PIECES:
            raise ImageTooLarge(
                f"The TIFF image is cut into {count:,} pieces, which take too long to put together. Export the image "
                "again and upload the new file."
            )
        if tag in {_WIDTH, _HEIGHT} and count == 1 and kind in _NUMBERS:
            # The first of its kind counts, as it does for decoders.
            size.setdefault(tag, struct.unpack_from(layout.order + _NUMBERS[kind], field)[0])
    if len(size) < len((_WIDTH, _HEIGHT)):
        raise damaged("TIFF", "it does not say how large the image is")
    return size[_WIDTH], size[_HEIGHT]
