import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.images import (
    HEIC,
    LONG,
    LONG8,
    SHORT,
    avif_header,
    bmp_header,
    box,
    encoded,
    extents,
    gif_frame,
    gif_header,
    gradient,
    jpeg_frame_header,
    jpeg_segment,
    png_chunk,
    png_header,
    tiff,
    tiff_size,
    webp,
)
from image_service.domain.image import ImageFormat, ImageHeader
from image_service.errors import CorruptImage, ImageTooLarge, UnsupportedFormat
from image_service.imaging.formats.content import FileContent
from image_service.imaging.inspect import HeaderInspector

INSPECTOR = HeaderInspector(max_pixels=1_000_000, allowed=ImageFormat)
SOI = b"\xff\xd8"


@pytest.fixture
def inspect(tmp_path: Path) -> Callable[[bytes], ImageHeader]:
    def inspect(content: bytes) -> ImageHeader:
        path = tmp_path / "upload"
        path.write_bytes(content)
        return INSPECTOR.inspect(path)

    return inspect


Inspect = Callable[[bytes], ImageHeader]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "comment": b"x" * 60_000, "exif": b"Exif\0\0" + bytes(5000)}),
        ("PNG", {}),
        ("GIF", {"comment": b"c" * 5000}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
        ("AVIF", {"speed": 10}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"big_tiff": True}),
        ("BMP", {}),
    ],
)
def test_reads_headers_of_encoded_images(inspect: Inspect, name: str, options: dict[str, object]) -> None:
    data = encoded(gradient(321, 123), name, **options)
    assert inspect(data) == ImageHeader(format=ImageFormat(name.lower()), width=321, height=123)
    assert INSPECTOR.sniff(data[:4096]) is ImageFormat(name.lower())


def test_reads_header_of_encoded_heic(inspect: Inspect) -> None:
    # The coded picture has even sides; a box that the decoder applies crops odd ones.
    for width, height in ((320, 122), (319, 121)):
        header = inspect(encoded(gradient(width, height), "HEIF"))
        assert header == ImageHeader(format=ImageFormat.HEIC, width=320, height=122)


def test_reads_animations(inspect: Inspect) -> None:
    frames = {"save_all": True, "append_images": [Image.new("RGB", (40, 30), "red")]}
    for name in ("GIF", "PNG", "WEBP", "AVIF"):
        header = inspect(encoded(gradient(40, 30), name, **frames))
        assert (header.width, header.height) == (40, 30)


LARGE = {
    "png": png_header(1001, 1000),
    "png, 2^31": png_header(2**31 - 1, 2**31 - 1),
    "gif screen": gif_header(1001, 1000) + gif_frame(0, 0, 1, 1),
    "gif frame beyond its screen": gif_header(1, 1) + gif_frame(901, 900, 100, 100),
    "jpeg": SOI + jpeg_frame_header(1001, 1000),
    "webp, extended": webp(b"VP8X", bytes(4) + (1000).to_bytes(3, "little") + (999).to_bytes(3, "little")),
    "webp, lossless": webp(b"VP8L", b"\x2f" + struct.pack("<I", 1000 | 999 << 14)),
    "webp, lossy": webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 1001, 1000)),
    "avif": avif_header(extents(60_000, 60_000)),
    "avif, a large one after a small one": avif_header(extents(1, 1), extents(1001, 1000)),
    "avif sequence": box(b"ftyp", b"avis\0\0\0\0")
    + box(b"moov", box(b"trak", box(b"tkhd", bytes(76), struct.pack(">II", 1001 << 16, 1000 << 16)))),
    "heic": avif_header(extents(60_000, 60_000), brands=HEIC),
    "tiff": tiff(*tiff_size(1001, 1000)),
    "tiff, big endian": tiff(*tiff_size(1001, 1000, SHORT), order=">"),
    "bigtiff": tiff(*tiff_size(2**40, 2**40, LONG8), big=True),
    "bmp": bmp_header(1001, 1000),
    "bmp, from the top": bmp_header(1001, -1000),
    "bmp of OS/2": bmp_header(1001, 1000, length=12),
    "bmp, 2^31": bmp_header(2**31 - 1, -(2**31)),
}


@pytest.mark.parametrize("content", LARGE.values(), ids=LARGE)
def test_refuses_more_pixels_than_allowed(inspect: Inspect, content: bytes) -> None:
    with pytest.raises(ImageTooLarge, match=r"up to 1 megapixels\. Scale it down"):
        inspect(content)


@pytest.mark.parametrize("tag", [273, 324], ids=["strips", "tiles"])
def test_refuses_tiff_of_too_many_strips_or_tiles(inspect: Inspect, tag: int) -> None:
    assert inspect(tiff(*tiff_size(7, 5), (tag, SHORT, 1 << 18, 0))).width == 7
    with pytest.raises(ImageTooLarge, match=r"cut into 262,145 pieces.*Export the image again"):
        inspect(tiff(*tiff_size(7, 5), (tag, SHORT, (1 << 18) + 1, 0)))


def test_reads_only_first_of_40000_tiff_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tiff(*tiff_size(7, 5))
    directory = page[8:-4]
    position = range(8, 8 + 40_000 * (len(directory) + 4), len(directory) + 4)
    path = tmp_path / "book.tiff"
    path.write_bytes(page[:8] + b"".join(directory + struct.pack("<I", at + len(directory) + 4) for at in position))
    read, read_slice = [], FileContent.__getitem__

    def counted(content: FileContent, place: slice, /) -> bytes:
        data = read_slice(content, place)
        read.append(len(data))
        return data

    monkeypatch.setattr(FileContent, "__getitem__", counted)
    assert INSPECTOR.inspect(path).width == 7
    assert 0 < sum(read) < 100


def test_accepts_exactly_as_many_pixels_as_allowed(inspect: Inspect) -> None:
    assert inspect(png_header(1000, 1000)).width == 1000


def too_short(header: bytes) -> dict[str, bytes]:
    return {f"{header[:12]!r} cut at {length}": header[:length] for length in range(12, len(header))}


DAMAGED = {
    **too_short(png_header(10, 10)),
    **too_short(gif_header(10, 10) + gif_frame(0, 0, 1, 1)[:-1]),
    **too_short(webp(b"VP8L", b"\x2f\0\0\0\0")),
    "png without IHDR": b"\x89PNG\r\n\x1a\n" + png_chunk(b"tEXt", bytes(13)),
    "png with a short IHDR": b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", bytes(12)),
    "png with a wrong checksum": png_header(10, 10)[:-1] + b"\0",
    "png of 2^31": png_header(2**31, 1),
    "png of 3 bits": png_header(10, 10, depth=3),
    "png of an unknown colour type": png_header(10, 10, colour=5),
    "png without width": png_header(0, 10),
    "gif without height": gif_header(10, 0) + gif_frame(0, 0, 10, 0),
    "gif without a frame": gif_header(10, 10) + b";",
    "jpeg of a marker only": SOI + b"\xff",
    "jpeg that ends": SOI + b"\xff\xd9" + bytes(100),
    "jpeg with a scan first": SOI + jpeg_segment(0xDA, bytes(10)) + jpeg_frame_header(10, 10),
    "jpeg without height": SOI + jpeg_frame_header(10, 0),
    "jpeg of a segment beyond its end": SOI + b"\xff\xe1\xff\xff" + bytes(10),
    "jpeg of junk": SOI + b"\xff\xd8" + bytes(100_000),
    "jpeg of a million segments": SOI + jpeg_segment(0xFE, b"") * 100_000,
    "webp of an unknown chunk": webp(b"JUNK", bytes(20)),
    "webp with a wrong lossless signature": webp(b"VP8L", bytes(5)),
    "webp with a wrong start code": webp(b"VP8 ", bytes(10)),
    "webp without a key frame": webp(b"VP8 ", b"\1\0\0\x9d\x01\x2a\1\0\1\0"),
    "avif of a file type box only": box(b"ftyp", b"avif\0\0\0\0"),
    "avif without a size": avif_header(),
    "avif with half a size": avif_header(box(b"ispe", bytes(8))),
    "avif with half a track header": box(b"ftyp", b"avis\0\0\0\0") + box(b"moov", box(b"trak", box(b"tkhd", bytes(4)))),
    "avif with a box too short": box(b"ftyp", b"avif\0\0\0\0") + struct.pack(">I4s", 7, b"meta") + bytes(100),
    "avif of a million boxes": box(b"ftyp", b"avif\0\0\0\0") + box(b"free") * 100_000,
    "avif without width": avif_header(extents(0, 10)),
    **too_short(box(b"ftyp", HEIC) + box(b"meta", bytes(4), box(b"iprp", box(b"ipco", extents(7, 5))))[:-8]),
    "heic without a size": avif_header(brands=HEIC),
    "heic of a million boxes": box(b"ftyp", HEIC) + box(b"free") * 100_000,
    **too_short(tiff(*tiff_size(7, 5))[:-4]),
    **too_short(tiff(*tiff_size(7, 5), big=True, order=">")[:-8]),
    "tiff without a directory": b"II*\0" + bytes(4),
    "tiff with its directory beyond the end": b"II*\0\xff\xff\xff\xff" + bytes(100),
    "bigtiff with its directory beyond anything": b"MM\0+\0\x08\0\0" + b"\xff" * 8 + bytes(100),
    "tiff without width": tiff((257, SHORT, 1, 5)),
    "tiff without height": tiff((256, SHORT, 1, 7)),
    "tiff of no pixels": tiff(*tiff_size(0, 5)),
    "tiff with a width in fractions": tiff((256, 5, 1, 8), (257, SHORT, 1, 5)),
    "tiff with several widths": tiff((256, SHORT, 2, 7), (257, SHORT, 1, 5)),
    "tiff with too many entries": tiff(*[(9, SHORT, 1, 0)] * 4095, *tiff_size(7, 5)),
    "bigtiff with 2^64 entries": b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + b"\xff" * 8 + bytes(100),
    **{f"bmp cut at {length}": bmp_header(7, 5)[:length] for length in range(18, 26)},
    "bmp without height": bmp_header(7, 0),
    "bmp without width": bmp_header(0, 5, length=12),
    "bmp with a negative width": bmp_header(-7, 5),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_refuses_damaged_headers(inspect: Inspect, content: bytes) -> None:
    with pytest.raises(CorruptImage):
        inspect(content)


ODD = {
    "jpeg with fill bytes": SOI + b"\xff\xff\xff" + jpeg_frame_header(7, 5),
    "jpeg with junk between segments": SOI + jpeg_segment(0xFE, b"a") + b"junk\xff\0\xff\xd0" + jpeg_frame_header(7, 5),
    "jpeg with a segment shorter than its length": SOI + b"\xff\xfe\0\0" + jpeg_frame_header(7, 5),
    "jpeg with tables first": SOI + jpeg_segment(0xC4, bytes(17)) + jpeg_frame_header(7, 5, marker=0xC2),
    "gif with an empty screen": gif_header(0, 0) + gif_frame(0, 0, 7, 5),
    "gif with junk": gif_header(7, 5) + bytes(5000),
    "avif with a box to the end": box(b"ftyp", b"avif\0\0\0\0")
    + struct.pack(">I4sI", 0, b"meta", 0)
    + box(b"iprp", box(b"ipco", extents(7, 5))),
    "avif with a 64-bit length": box(b"ftyp", b"avif\0\0\0\0")
    + struct.pack(">I4sQI", 1, b"meta", 20 + 16 + 20, 0)
    + box(b"iprp", box(b"ipco", extents(7, 5))),
    "avif with a box that leaves its area": box(b"ftyp", b"avif\0\0\0\0")
    + struct.pack(">I4sI", 2**31, b"meta", 0)
    + box(b"iprp", box(b"ipco", extents(7, 5))),
    "heic with tiles smaller than the picture": avif_header(extents(1, 1), extents(7, 5), brands=HEIC),
    "tiff with numbers of both kinds": tiff((256, LONG, 1, 7), (257, SHORT, 1, 5), order=">"),
    "tiff with its tags out of order": tiff((257, SHORT, 1, 5), (1, SHORT, 1, 9), (256, SHORT, 1, 7)),
    "tiff with duplicate sizes": tiff(*tiff_size(7, 5), *tiff_size(60_000, 60_000)),
    "tiff that begins in its middle": b"MM\0*"
    + struct.pack(">I", 20)
    + bytes(12)
    + tiff(*tiff_size(7, 5), order=">")[8:],
    "tiff that is its own next page": tiff(*tiff_size(7, 5))[:-4] + struct.pack("<I", 8),
    "bigtiff": tiff(*tiff_size(7, 5, LONG8), big=True),
    "bigtiff, big endian, small numbers": tiff(*tiff_size(7, 5, SHORT), big=True, order=">"),
    **{f"bmp with a header of {length}": bmp_header(7, 5, length=length) for length in (12, 40, 52, 56, 64, 108, 124)},
    "bmp from the top": bmp_header(7, -5),
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_reads_unusual_headers(inspect: Inspect, content: bytes) -> None:
    header = inspect(content)
    assert (header.width, header.height) == (7, 5)


BEGINNINGS = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    png_header(10, 10)[:16],
    b"GIF89a",
    gif_header(9, 9),
    b"RIFF\0\0\0\0WEBP",
    *(webp(kind, b"")[:20] for kind in (b"VP8 ", b"VP8L", b"VP8X")),
    box(b"ftyp", b"avif\0\0\0\0"),
    avif_header(),
    avif_header(extents(5, 5))[:-8],
    avif_header(brands=HEIC)[:-8],
    *(tiff(*tiff_size(5, 5), order=order, big=big)[:30] for order in ("<", ">") for big in (False, True)),
    *(start + struct.pack("<I", 8) for start in (b"II*\0", b"MM\0*")),
    bmp_header(0, 0)[:18],
    b"",
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(beginning=st.sampled_from(BEGINNINGS), rest=st.binary(max_size=300), repeat=st.integers(1, 50))
@example(beginning=BEGINNINGS[0], rest=b"\xe0\0\2\xff", repeat=50)
def test_any_bytes_give_header_or_verdict(inspect: Inspect, beginning: bytes, rest: bytes, repeat: int) -> None:
    try:
        header = inspect(beginning + rest * repeat)
    except (CorruptImage, ImageTooLarge, UnsupportedFormat):
        pass
    else:
        assert 0 < header.width * header.height <= 1_000_000
