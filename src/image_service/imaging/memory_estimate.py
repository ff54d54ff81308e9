"""The least memory that decoding an image takes, as far as its header shows."""

from collections.abc import Callable
from typing import Final, TypeAlias

from image_service.domain.image import ImageFormat
from image_service.imaging.formats import jpeg, webp
from image_service.imaging.formats.content import FileContent
from image_service.imaging.formats.png import read_header

_PROCESS: Final = 48 << 20
"""Address space of a decoder process at rest."""
_ROW: Final = 8
"""Bytes for each row of a picture, whatever it holds: narrow pictures consist of them."""

_Pictures: TypeAlias = tuple[float, ...]
"""The copies of the picture that are in memory at once, by their bytes a pixel. Measured on 5000x4000 and 1x10,000,000
pixels, and rounded down: what is refused for them would have ended in a lack of memory."""

_PNG: Final[dict[tuple[int, bool], _Pictures]] = {
    (0, False): (1,),
    (0, True): (1, 4, 4),
    (2, False): (4,),
    (2, True): (4, 4, 4),
    (3, False): (1, 4),
    (3, True): (1, 4, 4),
    (4, False): (4, 4),
    (6, False): (4, 4),
}
"""By colour type, and whether one colour is transparent."""
_PNG_GREY16: Final[dict[bool, _Pictures]] = {False: (2, 4, 1), True: (2, 4, 1, 1, 4)}
_WEBP: Final[dict[bytes, _Pictures]] = {b"VP8 ": (), b"VP8L": (4,)}
"""By the kind of the first chunk."""
_MONOCHROME: Final = 0x10
_OTHERS: Final[dict[ImageFormat, _Pictures]] = {
    ImageFormat.GIF: (1, 4),
    ImageFormat.HEIC: (4, 1),
    ImageFormat.JXL: (4,),
    ImageFormat.TIFF: (1,),
    ImageFormat.BMP: (1,),
}


def least_memory(image_format: ImageFormat, width: int, height: int, content: FileContent) -> int:
    """Return the bytes of address space that a process takes to decode the file, at the least.

    Args:
        image_format: The format that the file has.
        width: As its header says, in pixels.
        height: Likewise.
        content: The file.
    """
    if image_format is ImageFormat.JPEG:
        # Decoded at a fraction of its size; but progressive files keep every coefficient until the last scan.
        return _PROCESS + int(2 * jpeg.buffered_samples(content) * width * height)
    pictures = _PICTURES[image_format](content.head) if image_format in _PICTURES else _OTHERS[image_format]
    return _PROCESS + int(sum((each * width + _ROW) * height for each in pictures))


def _png(head: bytes) -> _Pictures:
    header, transparent = read_header(head), b"tRNS" in head
    if header.colour == 0 and header.depth == 16:  # noqa: PLR2004 — bits
        return _PNG_GREY16[transparent]
    return _PNG.get((header.colour, transparent), _PNG[header.colour, False])


def _webp(head: bytes) -> _Pictures:
    first = next(webp.chunks(head))
    if first.kind in _WEBP:
        return _WEBP[first.kind]
    flags = head[first.body]
    if flags & webp.ANIMATION:
        return 4, 4, 4, 4
    return (4, 4) if flags & webp.ALPHA else ()


def _avif(head: bytes) -> _Pictures:
    if b"auxC" in head:
        return 4, 4, 4, 1
    configuration = head.partition(b"av1C")[2]
    return (1, 1, 1) if any(flags & _MONOCHROME for flags in configuration[2:3]) else (4, 3, 1)


_PICTURES: Final[dict[ImageFormat, Callable[[bytes], _Pictures]]] = {
    ImageFormat.PNG: _png,
    ImageFormat.WEBP: _webp,
    ImageFormat.AVIF: _avif,
}
