"""Tells formats apart by their first bytes; names and declared types never matter."""

from typing import Final

from image_service.domain.image import ImageFormat
from image_service.imaging.directory import LAYOUTS
from image_service.imaging.headers import bmp

_BEGINNINGS: Final = {
    b"\xff\xd8\xff": ImageFormat.JPEG,
    b"\x89PNG\r\n\x1a\n": ImageFormat.PNG,
    b"GIF87a": ImageFormat.GIF,
    b"GIF89a": ImageFormat.GIF,
    **dict.fromkeys(LAYOUTS, ImageFormat.TIFF),
}
_BRANDS: Final = {
    ImageFormat.AVIF: frozenset({b"avif", b"avis"}),
    ImageFormat.HEIC: frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}),
}
"""The brands that name a codec, by what they make of a file; a file that has several kinds is the first of these."""


def identify(head: bytes) -> ImageFormat | None:
    """The format of a file that begins with ``head``; None for anything else."""
    for beginning, image_format in _BEGINNINGS.items():
        if head.startswith(beginning):
            return image_format
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return ImageFormat.WEBP
    if head.startswith(b"BM") and int.from_bytes(head[bmp.HEADER_AT :][:4], "little") in bmp.HEADER_LENGTHS:
        return ImageFormat.BMP
    if head[4:8] == b"ftyp":
        brands = set(_brands(head))
        return next((name for name, own in _BRANDS.items() if own & brands), None)
    return None


def _brands(head: bytes) -> list[bytes]:
    """Major and compatible brands of a file type box (ISO 14496-12 §4.3)."""
    box = head[: int.from_bytes(head[:4])]
    # Bytes 12 to 16 are the minor version: a number, which could spell a brand by accident.
    return [box[8:12], *(box[at : at + 4] for at in range(16, len(box), 4))]
