"""TIFF: the first page, with its colours and orientation (TIFF 6.0 §2 and §8 to §22)."""

from typing import Final

from image_service.imaging.directory import LAYOUTS

_STRUCTURE: Final = {256, 257, 258, 259, 262, 266, 274, 277, 284, 332, 338, 339}
"""Size, kind of samples, compression, orientation, channels."""
_PIECES: Final = {273, 278, 279, 322, 323, 324, 325}
"""Where the strips or tiles are."""
_CODECS: Final = {292, 293, 317, 347, *range(512, 522)}
"""What the fax, differencing and JPEG decoders have to know."""
_COLOURS: Final = {320, 529, 530, 531, 532, 34675}
"""Palette, the colours of YCbCr, and the profile."""
_NEEDED: Final = frozenset(_STRUCTURE | _PIECES | _CODECS | _COLOURS)


def essentials(content: bytes) -> bytes:
    """The file with a directory that leads to nothing but the picture of its first page.

    The new directory stands where the old one stood, and is no longer: all else keeps its place.
    """
    layout = LAYOUTS[content[:4]]
    (start,) = layout.start.unpack_from(content)
    (count,) = layout.count.unpack_from(content, start)
    position = start + layout.count.size
    kept: dict[int, bytes] = {}
    for at in range(position, position + count * layout.entry.size, layout.entry.size):
        tag, *_ = layout.entry.unpack_from(content, at)
        if tag in _NEEDED:
            kept.setdefault(tag, content[at : at + layout.entry.size])
    directory = b"".join((layout.count.pack(len(kept)), *kept.values(), layout.next.pack(0)))
    return b"".join((content[:start], directory, content[start + len(directory) :]))
