import struct
from pathlib import Path

import pytest
from PIL import Image

from harness.images import (
    LONG,
    SHORT,
    encoded,
    gradient,
    jpeg_frame_header,
    jpeg_segment,
    noise,
    raw_tiff,
)
from image_service.errors import ImageTooLarge, UnsupportedFormat
from image_service.imaging.formats.jpeg_scans import check_scans
from image_service.imaging.render.pipeline import render
from tests.unit.imaging.render.rendered import SMALL, Make


def test_refuses_tiff_with_overlapping_strips(make: Make) -> None:
    # Each strip is nearly the whole image, and all have the same position.
    content = raw_tiff(80, 80, bytes(3 * 6400), (273, SHORT, 20, 200), (278, LONG, 1, 79))
    with pytest.raises(ImageTooLarge, match="on top of each other"):
        make(content)


def test_refuses_unknown_content(make: Make) -> None:
    with pytest.raises(UnsupportedFormat):
        make(b"%!PS\n{} loop")


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "HEIF", "JXL", "TIFF", "BMP"])
def test_refuses_more_pixels_than_allowed(make: Make, name: str) -> None:
    content = encoded(gradient(100, 80), name)
    with pytest.raises(ImageTooLarge, match="100x80"):
        make(content, max_pixels=7999)
    assert make(content, max_pixels=8000).small.size == (40, 32)


def test_checks_size_that_the_decoder_reports(make: Make) -> None:
    # Two frame headers: the first gives a small size, but the decoder uses the second.
    content = encoded(gradient(300, 300), "JPEG")
    at = content.index(b"\xff\xc0")
    with pytest.raises(ImageTooLarge, match="300x300"):
        make(
            content[:at] + jpeg_segment(0xC0, struct.pack(">BHHB", 8, 9, 9, 3) + bytes(9)) + content[at:],
            max_pixels=5000,
        )


def test_decompression_bomb_error_is_image_too_large(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageTooLarge):
        make(encoded(gradient(100, 80), "WEBP", save_all=True, append_images=[gradient(100, 80).rotate(90)]))


def test_refuses_jpeg_of_1000_scans(make: Make) -> None:
    content = encoded(gradient(64, 64), "JPEG", progressive=True)
    start = content.index(b"\xff\xda")
    scan = content[start : content.index(b"\xff\xc4", start)]
    with pytest.raises(ImageTooLarge, match="more than 100 scans"):
        make(content[:start] + scan * 1000 + content[start:])


def test_refuses_sequential_jpeg_of_1000_scans(make: Make) -> None:
    # Each channel in a scan of its own, of which libjpeg accepts any number.
    scans = jpeg_segment(0xDA, bytes((1, 1, 0, 0, 63, 0))) * 1000
    with pytest.raises(ImageTooLarge, match="more than 100 scans"):
        make(b"\xff\xd8" + jpeg_frame_header(64, 64) + scans)


@pytest.mark.parametrize(
    "frames",
    [b"", jpeg_frame_header(9, 9, 0xC2), jpeg_frame_header(9, 9) * 2, jpeg_frame_header(9, 9)[:-10]],
    ids=["none", "progressive", "two", "cut"],
)
def test_counts_scans_of_other_frames(frames: bytes) -> None:
    with pytest.raises(ImageTooLarge):
        check_scans(b"\xff\xd8" + frames + jpeg_segment(0xDA, bytes((3, *range(9)))) * 102, 81)


def test_counts_no_scans_in_metadata(make: Make) -> None:
    content = encoded(gradient(64, 64), "JPEG")
    assert make(content[:2] + jpeg_segment(0xFE, b"\xff\xda" * 500) + content[2:]).small.size == (40, 40)


def test_memory_error_of_decoder_is_not_a_verdict(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", exhausted)
    with pytest.raises(MemoryError):
        make(encoded(gradient(64, 64), "PNG"))


def test_decoder_error_without_free_memory_is_memory_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    # Decoders that report a lack of memory as damage, as those of WebP and AVIF do.
    def refused(*_: object) -> None:
        raise OSError("Cannot allocate memory")

    content = encoded(noise(200, 200), "WEBP")
    monkeypatch.setattr("mmap.mmap", refused)
    with pytest.raises(MemoryError):
        make(content[: len(content) // 2])


def test_missing_source_raises_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        render(tmp_path / "nothing", SMALL, tmp_path)
