"""Metadata is found in every format, in bounded time."""

import struct
import zlib
from collections.abc import Iterable
from time import process_time
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.images import display_p3, encoded, gradient, jpeg_segment, png_chunk
from image_service.domain.image import ImageFormat, MetadataKind
from image_service.imaging.formats import find_metadata

PICTURE = gradient(64, 48)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmp:CreatorTool="camera"/></x:xmpmeta>'
XMP_WITH_POSITION = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description exif:GPSLatitude="47,22N"/></x:xmpmeta>'
VERSION, LATITUDE = 0, 2
MAKE, EXIF_DIRECTORY, GPS_DIRECTORY = 0x010F, 0x8769, 0x8825


def find(content: bytes, image_format: ImageFormat) -> set[str]:
    found = find_metadata(content, image_format)
    assert list(found) == [kind for kind in MetadataKind if kind in found]
    return {kind.value for kind in found}


def directory(tags: Iterable[tuple[int, int]], following: int = 0, order: Literal["<", ">"] = "<") -> bytes:
    """Return a TIFF directory of numbers."""
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack(f"{order}H", len(entries) // 12) + entries + struct.pack(f"{order}I", following)


def exif(
    *tags: tuple[int, int], gps: Iterable[int] = (), thumbnail: bool = False, order: Literal["<", ">"] = "<"
) -> bytes:
    """Return an EXIF block with a GPS directory of these tags, and optionally a thumbnail's directory."""
    second = directory([(tag, 1) for tag in gps], order=order)
    first = directory([(MAKE, 1), (GPS_DIRECTORY, 1), *tags], order=order)
    at = 8 + len(first)
    first = directory(
        [(MAKE, 1), *([(GPS_DIRECTORY, at)] if gps else []), *tags], at + len(second) if thumbnail else 0, order=order
    )
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", 8) + first.ljust(at - 8, b"\0") + second + directory([(0x0201, 1)], 0, order)


CAMERA = exif(gps=[VERSION, LATITUDE], thumbnail=True)
JPEG, PNG, GIF = (encoded(PICTURE, name) for name in ("JPEG", "PNG", "GIF"))
GIF_FRAME = 13 + 3 * 256


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    return JPEG[:2] + b"".join(jpeg_segment(*segment) for segment in segments) + JPEG[2:]


def with_chunks(*chunks: tuple[bytes, bytes], at: int = 33) -> bytes:
    return PNG[:at] + b"".join(png_chunk(*chunk) for chunk in chunks) + PNG[at:]


def blocks(content: bytes) -> bytes:
    """Return the content as GIF sub-blocks."""
    return b"".join(bytes((len(piece),)) + piece for piece in cut(content)) + b"\0"


def cut(content: bytes) -> list[bytes]:
    return [content[at : at + 255] for at in range(0, len(content), 255)]


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "HEIF", "JXL", "TIFF", "BMP"])
def test_plain_file_has_no_metadata(name: str) -> None:
    image_format = ImageFormat("heic" if name == "HEIF" else name.lower())
    assert find(encoded(PICTURE, name), image_format) == set()


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "JXL"])
def test_metadata_in_every_format(name: str) -> None:
    image_format = ImageFormat("heic" if name == "HEIF" else name.lower())
    block = b"Exif\0\0" + CAMERA
    content = encoded(PICTURE, name, exif=block, icc_profile=display_p3(), xmp=XMP)
    expected = {"exif", "gps", "thumbnail", "icc", "xmp"}
    if name == "PNG":
        content = content[:33] + png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP) + content[33:]
    assert find(content, image_format) == expected


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "AVIF", "HEIF", "JXL"])
def test_finds_gps_position_in_xmp(name: str) -> None:
    image_format = ImageFormat("heic" if name == "HEIF" else name.lower())
    assert find(encoded(PICTURE, name, xmp=XMP_WITH_POSITION), image_format) == {"xmp", "gps"}


EXIF_BLOCKS: dict[str, tuple[bytes, set[str]]] = {
    "camera": (exif(), {"exif"}),
    "position": (exif(gps=[VERSION, LATITUDE]), {"exif", "gps"}),
    "big-endian": (exif(gps=[LATITUDE], thumbnail=True, order=">"), {"exif", "gps", "thumbnail"}),
    "a GPS directory with only its version": (exif(gps=[VERSION]), {"exif"}),
    "a thumbnail": (exif(thumbnail=True), {"exif", "thumbnail"}),
    "XMP and IPTC": (exif((0x02BC, 1), (0x83BB, 1)), {"exif", "xmp", "iptc"}),
    "empty": (b"", {"exif"}),
    "garbage": (b"garbage garbage", {"exif"}),
    "a missing directory": (b"II*\0\xff\xff\xff\xff", {"exif"}),
    "a missing GPS directory": (exif((GPS_DIRECTORY, 0xFFFFFFF0)), {"exif"}),
}


@pytest.mark.parametrize(("block", "expected"), EXIF_BLOCKS.values(), ids=EXIF_BLOCKS)
def test_metadata_in_exif(block: bytes, expected: set[str]) -> None:
    assert find(jpeg((0xE1, b"Exif\0\0" + block)), ImageFormat.JPEG) == expected
    assert find(with_chunks((b"eXIf", block)), ImageFormat.PNG) == expected
    assert find(with_chunks((b"eXIf", block), at=len(PNG) - 12), ImageFormat.PNG) == expected


SEGMENTS: dict[str, tuple[int, bytes, set[str]]] = {
    "a comment": (0xFE, b"hello", {"comment"}),
    "IPTC": (0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x04abcd", {"iptc"}),
    "a Photoshop thumbnail": (0xED, b"Photoshop 3.0\x008BIM\x04\x0c\0\0\0\0\0\x04abcd", {"thumbnail"}),
    "other Photoshop resources": (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x04abcd", set()),
    "a JFIF extension": (0xE0, b"JFXX\0\x10", {"thumbnail"}),
    "a JFIF thumbnail": (0xE0, b"JFIF\0\1\1\0\0\1\0\1\1\1abc", {"thumbnail"}),
    "a multi-picture index": (0xE2, b"MPF\0II*\0", {"thumbnail"}),
    "a profile": (0xE2, b"ICC_PROFILE\0\1\1", {"icc"}),
    "extended XMP": (0xE1, b"http://ns.adobe.com/xmp/extension/\0", {"xmp"}),
    "a preview in XMP": (0xE1, b"http://ns.adobe.com/xap/1.0/\0<xmpGImg:image>", {"xmp", "thumbnail"}),
    "an unknown segment": (0xE7, b"Ducky", set()),
}


@pytest.mark.parametrize(("code", "body", "expected"), SEGMENTS.values(), ids=SEGMENTS)
def test_metadata_in_jpeg(code: int, body: bytes, expected: set[str]) -> None:
    assert find(jpeg((code, body)), ImageFormat.JPEG) == expected
    # After the end of the picture it belongs to another one.
    assert find(JPEG + jpeg_segment(code, body), ImageFormat.JPEG) == set()


TEXTS: dict[str, tuple[bytes, bytes, set[str]]] = {
    "text": (b"tEXt", b"Author\0someone", {"text"}),
    "compressed text": (b"zTXt", b"Author\0\0" + zlib.compress(b"someone"), {"text"}),
    "a comment": (b"iTXt", b"Comment\0\0\0\0\0hello", {"comment"}),
    "EXIF as ImageMagick writes it": (b"zTXt", b"Raw profile type exif\0\0", {"exif"}),
    "IPTC as ImageMagick writes it": (b"zTXt", b"Raw profile type iptc\0\0", {"iptc"}),
    "a keyword without an end": (b"tEXt", b"Author" * 100, {"text"}),
    "a profile": (b"iCCP", b"Photo\0\0", {"icc"}),
    "no metadata": (b"pHYs", bytes(9), set()),
}


@pytest.mark.parametrize(("name", "body", "expected"), TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("at", [33, len(PNG) - 12], ids=["before the pixels", "after the pixels"])
def test_metadata_in_png(at: int, name: bytes, body: bytes, expected: set[str]) -> None:
    assert find(with_chunks((name, body), at=at), ImageFormat.PNG) == expected


EXTENSIONS: dict[str, tuple[bytes, set[str]]] = {
    "a comment": (b"!\xfe" + blocks(b"hello" * 100), {"comment"}),
    "plain text": (b"!\1" + blocks(bytes(12)), {"text"}),
    "XMP": (b"!\xff\x0bXMP DataXMP" + blocks(XMP), {"xmp"}),
    "a position in XMP": (b"!\xff\x0bXMP DataXMP" + blocks(XMP_WITH_POSITION), {"xmp", "gps"}),
    "a profile": (b"!\xff\x0bICCRGBG1012" + blocks(bytes(300)), {"icc"}),
    "a loop": (b"!\xff\x0bNETSCAPE2.0" + blocks(b"\1\0\0"), set()),
}


@pytest.mark.parametrize(("extension", "expected"), EXTENSIONS.values(), ids=EXTENSIONS)
@pytest.mark.parametrize("at", [GIF_FRAME, len(GIF) - 1], ids=["before the frame", "after the frame"])
def test_metadata_in_gif(at: int, extension: bytes, expected: set[str]) -> None:
    assert find(GIF[:at] + extension + GIF[at:], ImageFormat.GIF) == expected


def test_metadata_in_tiff() -> None:
    content = exif((0x8773, 1), (EXIF_DIRECTORY, 1), gps=[LATITUDE])
    assert find(content, ImageFormat.TIFF) == {"exif", "gps", "icc"}


WHOLE = {
    image_format: encoded(PICTURE, name, exif=b"Exif\0\0" + CAMERA, icc_profile=display_p3(), xmp=XMP, comment=b"hello")
    for image_format, name in {
        ImageFormat.JPEG: "JPEG",
        ImageFormat.PNG: "PNG",
        ImageFormat.GIF: "GIF",
        ImageFormat.WEBP: "WEBP",
        ImageFormat.AVIF: "AVIF",
        ImageFormat.HEIC: "HEIF",
        ImageFormat.JXL: "JXL",
        ImageFormat.TIFF: "TIFF",
    }.items()
}


@settings(max_examples=300, deadline=None)
@given(data=st.data(), image_format=st.sampled_from(sorted(WHOLE)))
def test_find_metadata_never_raises_on_damage(data: st.DataObject, image_format: ImageFormat) -> None:
    content = bytearray(WHOLE[image_format])
    changes = st.lists(st.tuples(st.integers(0, min(len(content), 1500) - 1), st.integers(0, 255)), max_size=8)
    for at, value in data.draw(changes):
        content[at] = value
    find(bytes(content[: data.draw(st.integers(1, len(content)))]), image_format)


ENDLESS = {
    "JPEG of comments": (JPEG[:2] + jpeg_segment(0xFE, b"") * 2_000_000, ImageFormat.JPEG),
    "JPEG of EXIF": (JPEG[:2] + jpeg_segment(0xE1, b"Exif\0\0" + exif(*[(7, 7)] * 5000)) * 100, ImageFormat.JPEG),
    "PNG of empty chunks": (PNG[:33] + png_chunk(b"prVt", b"") * 600_000, ImageFormat.PNG),
    "GIF of sub-blocks of one byte": (GIF[:GIF_FRAME] + b"!\xfe" + b"\1a" * 4_000_000, ImageFormat.GIF),
    "GIF of empty comments": (GIF[:GIF_FRAME] + b"!\xfe\0" * 2_500_000, ImageFormat.GIF),
    "WebP of empty chunks": (WHOLE[ImageFormat.WEBP][:30] + b"prVt\0\0\0\0" * 1_000_000, ImageFormat.WEBP),
    "AVIF of empty boxes": (WHOLE[ImageFormat.AVIF][:32] + b"\0\0\0\x08free" * 1_000_000, ImageFormat.AVIF),
    "AVIF of boxes in boxes": (b"\0\0\0\0iprp" * 1_000_000, ImageFormat.AVIF),
    "TIFF of one directory": (b"II*\0\x08\0\0\0\xff\xff" + bytes(800_000), ImageFormat.TIFF),
}


@pytest.mark.parametrize(("content", "image_format"), ENDLESS.values(), ids=ENDLESS)
def test_find_metadata_time_is_bounded(content: bytes, image_format: ImageFormat) -> None:
    began = process_time()
    find(content, image_format)
    assert process_time() - began < 0.5
