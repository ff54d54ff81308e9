"""Tells formats apart by their first bytes; names and declared types never matter."""

from typing import Final

from image_service.domain.image import ImageFormat
from image_service.imaging.formats import bmp, heif, jxl
from image_service.imaging.formats.tiff import LAYOUTS

_SIGNATURES: Final = {
    b"\xff\xd8\xff": ImageFormat.JPEG,
    b"\x89PNG\r\n\x1a\n": ImageFormat.PNG,
    b"GIF87a": ImageFormat.GIF,
    b"GIF89a": ImageFormat.GIF,
    jxl.CODESTREAM: ImageFormat.JXL,
    jxl.CONTAINER: ImageFormat.JXL,
    **dict.fromkeys(LAYOUTS, ImageFormat.TIFF),
}


def identify(head: bytes) -> ImageFormat | None:
    """Return the format of a file that begins with ``head``; None for anything else."""
    for signature, image_format in _SIGNATURES.items():
        if head.startswith(signature):
            return image_format
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return ImageFormat.WEBP
    if bmp.matches(head):
        return ImageFormat.BMP
    return heif.identify(head)
