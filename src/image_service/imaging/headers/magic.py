"""Tells formats apart by their first bytes; names and declared types never matter."""

from typing import Final

from image_service.domain.image import ImageFormat

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})


def identify(head: bytes) -> ImageFormat | None:
    """The format of a file that begins with ``head``; None for anything else, HEIC, TIFF and BMP included."""
    if head.startswith(b"\xff\xd8\xff"):
        return ImageFormat.JPEG
    if head.startswith(_PNG):
        return ImageFormat.PNG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return ImageFormat.GIF
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return ImageFormat.WEBP
    if head[4:8] == b"ftyp" and _AVIF_BRANDS & set(_brands(head)):
        return ImageFormat.AVIF
    return None


def _brands(head: bytes) -> list[bytes]:
    """Major and compatible brands of a file type box (ISO 14496-12 §4.3)."""
    box = head[: int.from_bytes(head[:4])]
    # Bytes 12 to 16 are the minor version: a number, which could spell a brand by accident.
    return [box[8:12], *(box[at : at + 4] for at in range(16, len(box), 4))]
