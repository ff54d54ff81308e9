"""Formats are identified by their first bytes."""

import pytest

from harness.images import (
    HEIC,
    bmp_header,
    box,
    gif_header,
    tiff,
    tiff_size,
)
from image_service.domain.image import ImageFormat
from image_service.errors import UnsupportedFormat
from image_service.imaging.formats import jxl
from image_service.imaging.inspect import HeaderInspector

INSPECTOR = HeaderInspector(allowed=ImageFormat)
BY_DEFAULT = HeaderInspector()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8",
        b"\x89PNG\r\n",
        b"\x89PNG\n\x1a\n\0\0\0\0",
        b"GIF88a\1\0\1\0",
        b"BM" + bytes(60),
        b"II*\0" + bytes(60),
        b"MM\0*" + bytes(60),
        b"RIFF\0\0\0\0WAVEfmt ",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"%!PS-Adobe",
        box(b"ftyp", b"heic\0\0\0\0mif1heic"),
        # Brands end with their box, and the minor version is not a brand.
        box(b"ftyp", b"heic\0\0\0\0mif1") + b"avif",
        box(b"ftyp", b"heicavifmif1"),
    ],
)
def test_refuses_unknown_formats(content: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="accepted are AVIF, GIF, JPEG, PNG, WEBP"):
        BY_DEFAULT.sniff(content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("HEIC", box(b"ftyp", HEIC)),
        ("JXL", jxl.CODESTREAM + bytes(9)),
        ("JXL", jxl.CONTAINER),
        ("TIFF", tiff(*tiff_size(7, 5))),
        ("BMP", bmp_header(7, 5)),
    ],
)
def test_names_the_format_that_is_not_enabled(name: str, content: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match=f"is a {name} image; accepted are AVIF, GIF, JPEG, PNG, WEBP"):
        BY_DEFAULT.sniff(content)


@pytest.mark.parametrize(
    "content",
    [
        b"BM" + bytes(60),
        b"BMW is a car maker, not an image format; this text is long enough.",
        b"II*",
        b"II\0*" + bytes(60),
        b"MM*\0" + bytes(60),
        b"II*\1" + bytes(60),
        box(b"ftyp", b"mif1\0\0\0\0mif1miaf"),
        box(b"ftyp", b"msf1\0\0\0\0iso8"),
        box(b"ftyp", b"isom\0\0\0\0mp41"),
    ],
)
def test_rejects_similar_signatures(content: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="no image in a known format"):
        INSPECTOR.sniff(content)


def test_refuses_disabled_formats() -> None:
    inspector = HeaderInspector(allowed={ImageFormat.JPEG, ImageFormat.PNG})
    with pytest.raises(UnsupportedFormat, match="a GIF image; accepted are JPEG, PNG"):
        inspector.sniff(gif_header(1, 1))


@pytest.mark.parametrize("brands", [b"avif\0\0\0\0", b"avis\0\0\0\0", b"mif1\0\0\0\0miafavif", b"MA1B\0\0\0\0avis"])
def test_identifies_avif_by_brand(brands: bytes) -> None:
    assert INSPECTOR.sniff(box(b"ftyp", brands)) is ImageFormat.AVIF


@pytest.mark.parametrize("brands", [b"heic\0\0\0\0", b"heix\0\0\0\0mif1", b"mif1\0\0\0\0mif1heic", b"hevc\0\0\0\0msf1"])
def test_identifies_heic_by_brand(brands: bytes) -> None:
    assert INSPECTOR.sniff(box(b"ftyp", brands)) is ImageFormat.HEIC


def test_avif_brand_precedes_heic_brand() -> None:
    assert INSPECTOR.sniff(box(b"ftyp", b"heic\0\0\0\0avif")) is ImageFormat.AVIF
