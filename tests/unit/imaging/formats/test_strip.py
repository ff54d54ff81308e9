"""Flawed or large content around a picture neither changes it nor takes time."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from harness.images import display_p3, encoded, gradient, jpeg_segment, oriented, png, png_chunk, tiff, tiff_size
from image_service.domain.image import ImageFormat, RenderedThumbnail
from image_service.domain.recipe import Preset, Recipe
from image_service.errors import CorruptImage
from image_service.imaging.formats import strip
from image_service.imaging.render.pipeline import render

SMALL = Recipe(presets=(Preset(name="small", width=40, height=40, quality=95),))
PICTURE = gradient(120, 60)
PNG, JPEG, GIF = (encoded(PICTURE, name) for name in ("PNG", "JPEG", "GIF"))
PNG_PIXELS, PNG_END = PNG.index(b"IDAT") - 4, len(PNG) - 12
JPEG_SCAN = JPEG.index(b"\xff\xda")
GIF_SCREEN = 13 + 3 * 256

Make = Callable[[bytes], tuple[RenderedThumbnail, ...]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(content: bytes) -> tuple[RenderedThumbnail, ...]:
        source = tmp_path / "source"
        source.write_bytes(content)
        return render(source, SMALL, tmp_path).thumbnails

    return make


def with_wrong_checksum(chunk: bytes) -> bytes:
    return chunk[:-1] + bytes((chunk[-1] ^ 1,))


def frame_control(number: int, width: int, height: int) -> bytes:
    return png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, 0, 0, 1, 1, 0, 0))


INFLATES_TO_MEGABYTES = zlib.compress(bytes(5_000_000))
FLAWED_CHUNKS = {
    "an unknown chunk": png_chunk(b"prVt", b"private"),
    "text with a wrong checksum": with_wrong_checksum(png_chunk(b"tEXt", b"Author\0someone")),
    "text that inflates to megabytes": png_chunk(b"zTXt", b"Comment\0\0" + INFLATES_TO_MEGABYTES),
    "international text that inflates to megabytes": png_chunk(
        b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + INFLATES_TO_MEGABYTES
    ),
    "text with an unknown compression method": png_chunk(b"zTXt", b"Comment\0\7" + bytes(10)),
    "text named like a decoder's variable": png_chunk(b"tEXt", b"transparency\0none")
    + png_chunk(b"tEXt", b"interlace\0no")
    + png_chunk(b"tEXt", b"bbox\0none"),
    "a profile that inflates to megabytes": png_chunk(b"iCCP", b"Photo\0\0" + INFLATES_TO_MEGABYTES),
    "a profile with an unknown compression method": png_chunk(b"iCCP", b"Photo\0\1" + zlib.compress(display_p3())),
    "an uncompressed profile": png_chunk(b"iCCP", b"Photo\0\0" + display_p3()),
    "a profile with a wrong checksum": with_wrong_checksum(
        png_chunk(b"iCCP", b"Photo\0\0" + zlib.compress(display_p3()))
    ),
    "an empty profile": png_chunk(b"iCCP", b""),
    "short colour chunks": png_chunk(b"gAMA", b"\0") + png_chunk(b"cHRM", b"\0") + png_chunk(b"sRGB", b""),
    "a short density": png_chunk(b"pHYs", b"\0"),
    "transparency of the wrong length": png_chunk(b"tRNS", b"\0\0"),
    "transparency with a wrong checksum": with_wrong_checksum(png_chunk(b"tRNS", bytes(6))),
    "empty EXIF": png_chunk(b"eXIf", b""),
    "EXIF with a wrong checksum": with_wrong_checksum(png_chunk(b"eXIf", oriented(PICTURE, 6)[6:])),
    "short animation chunks": png_chunk(b"acTL", b"\0") + png_chunk(b"fcTL", b"\0"),
    "animation frames out of order": png_chunk(b"acTL", struct.pack(">II", 2, 0)) + frame_control(7, 120, 60),
    "animation frames larger than the image": png_chunk(b"acTL", struct.pack(">II", 2, 0)) + frame_control(0, 999, 60),
}


@pytest.mark.parametrize("at", [PNG_PIXELS, PNG_END], ids=["before the pixels", "after the pixels"])
@pytest.mark.parametrize("chunks", FLAWED_CHUNKS.values(), ids=FLAWED_CHUNKS)
def test_png_renders_despite_flawed_optional_chunks(make: Make, chunks: bytes, at: int) -> None:
    assert make(PNG[:at] + chunks + PNG[at:]) == make(PNG)


@pytest.mark.parametrize("rest", [b"", b"\0\0", struct.pack(">I", 1000) + b"tEXtAuth", bytes(100)])
def test_png_renders_whatever_follows_its_pixels(make: Make, rest: bytes) -> None:
    assert make(PNG[:PNG_END] + rest) == make(PNG)


def test_png_keeps_a_large_profile(make: Make) -> None:
    image = Image.new("RGB", (80, 80), (200, 100, 50))
    small = make(encoded(image, "PNG", icc_profile=display_p3() + bytes(2_000_000)))[0]
    assert small == make(encoded(image, "PNG", icc_profile=display_p3()))[0]
    assert small != make(encoded(image, "PNG"))[0]


@pytest.mark.parametrize(
    "content",
    [
        png(8, 8, bytes(64), colour=3),
        PNG[:PNG_PIXELS] + with_wrong_checksum(png_chunk(b"IHDR", PNG[16:29])) + PNG[PNG_PIXELS:],
        PNG[: PNG_PIXELS + 50] + PNG[PNG_END:],
        PNG[:PNG_PIXELS] + b"\0\0\0\0????\0\0\0\0" + PNG[PNG_PIXELS:],
        PNG[:PNG_PIXELS] + png_chunk(b"IDAT", PNG[PNG_PIXELS + 8 :][:9]) + png_chunk(b"tEXt", b"") + PNG[PNG_PIXELS:],
    ],
    ids=["no palette", "damaged critical chunk", "pixels missing", "chunk without a name", "scattered pixels"],
)
def test_png_with_damaged_picture_is_corrupt(make: Make, content: bytes) -> None:
    with pytest.raises(CorruptImage, match=r"cannot be decoded \(.+\)"):
        make(content)


FLAWED_SEGMENTS = {
    "an empty JFIF header": jpeg_segment(0xE0, b"JFIF"),
    "half an Adobe header": jpeg_segment(0xEE, b"Adobe"),
    "an empty profile": jpeg_segment(0xE2, b"ICC_PROFILE\0"),
    "half a Photoshop resource": jpeg_segment(0xED, b"Photoshop 3.0\0008BIM\3\xed"),
    "empty EXIF": jpeg_segment(0xE1, b"Exif\0\0"),
    "an invalid multi-picture index": jpeg_segment(0xE2, b"MPF\0none"),
    "an empty comment": jpeg_segment(0xFE, b""),
    "a thumbnail": jpeg_segment(0xE0, b"JFXX\0\x10" + encoded(gradient(16, 16), "JPEG")),
}


@pytest.mark.parametrize("at", [2, JPEG_SCAN], ids=["at the start", "before the scan"])
@pytest.mark.parametrize("segments", FLAWED_SEGMENTS.values(), ids=FLAWED_SEGMENTS)
def test_jpeg_renders_despite_flawed_metadata(make: Make, segments: bytes, at: int) -> None:
    assert make(JPEG[:at] + segments + JPEG[at:]) == make(JPEG)


@pytest.mark.parametrize("length", [b"\0\0", b"\0\1", b"\xff\xff"])
def test_strip_keeps_jpeg_before_segment_of_wrong_length(length: bytes) -> None:
    assert strip(JPEG[:20] + b"\xff\xfe" + length, ImageFormat.JPEG) == JPEG[:20]


ODD_EXTENSIONS = {
    "an empty application block": b"!\xff\0",
    "half a loop count": b"!\xff\x0bNETSCAPE2.0\1\1\0",
    "a short control block": b"!\xf9\1\1\0",
    "a comment in sub-blocks of one byte": b"!\xfe" + b"\1a" * 100_000 + b"\0",
    "a comment that holds an image": b"!\xfe\xff" + GIF[GIF_SCREEN:][:255] + b"\0",
    "plain text": b"!\1\x0c" + bytes(12) + b"\2hi\0",
    "junk": bytes(1000),
}


@pytest.mark.parametrize("extension", ODD_EXTENSIONS.values(), ids=ODD_EXTENSIONS)
def test_gif_renders_despite_odd_extensions(make: Make, extension: bytes) -> None:
    assert make(GIF[:GIF_SCREEN] + extension + GIF[GIF_SCREEN:]) == make(GIF)


def test_strips_gif_without_frame_to_its_screen() -> None:
    for rest in (b";" + GIF[GIF_SCREEN:], b"!\xfe\xffcomment", b""):
        assert strip(GIF[:GIF_SCREEN] + rest, ImageFormat.GIF) == GIF[:GIF_SCREEN]


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
def test_strip_keeps_ordinary_file_unchanged(name: str) -> None:
    content = encoded(PICTURE, name)
    assert strip(content, ImageFormat(name.lower())) == content


def test_memory_error_of_conversion_is_not_a_verdict(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("image_service.imaging.render.pipeline.normalise", exhausted)
    with pytest.raises(MemoryError):
        make(PNG)


@pytest.mark.parametrize("big", [False, True])
def test_strip_keeps_only_first_page_of_tiff(*, big: bool) -> None:
    pages = {"save_all": True, "append_images": [gradient(9, 9)] * 5}
    content = encoded(PICTURE, "TIFF", big_tiff=big, description="secret", icc_profile=display_p3(), **pages)
    kept = strip(content, ImageFormat.TIFF)
    assert len(kept) == len(content)
    image = TiffImageFile(io.BytesIO(kept))
    assert image.n_frames == 1
    assert {256, 257, 273} <= set(image.tag_v2)
    assert not {270, 34675} & set(image.tag_v2)
    assert image.convert("RGB").tobytes() == PICTURE.tobytes()


def test_strip_keeps_first_of_duplicate_tags() -> None:
    duplicate = tiff(*tiff_size(8, 8), *tiff_size(9, 9))
    assert strip(duplicate, ImageFormat.TIFF).startswith(tiff(*tiff_size(8, 8)))
