"""The reader of JPEG segments: the same in memory and on disk, and in linear time."""

from pathlib import Path
from time import process_time

import pytest

from harness.images import encoded, gradient, jpeg_frame_header, jpeg_segment
from image_service.domain.image import ImageFormat
from image_service.imaging.formats import find_metadata, strip
from image_service.imaging.formats.content import FileContent
from image_service.imaging.formats.jpeg import MAX_SEGMENTS, START_OF_SCAN, segments
from image_service.imaging.formats.jpeg_scans import check_scans, ends_in_scan

SOI = b"\xff\xd8"
PICTURE = gradient(300, 200)


@pytest.mark.parametrize(
    "content",
    [
        encoded(PICTURE, "JPEG", comment=b"x" * 60_000),
        encoded(PICTURE, "JPEG", progressive=True),
        SOI + jpeg_segment(0xFE, b"a") + b"junk\xff\0\xff\xd0" + b"\xff" * 100_000 + jpeg_frame_header(7, 5),
        SOI + jpeg_segment(0xE1, bytes(50_000)) + b"\xff\xe2\xff",
    ],
    ids=["sequential", "progressive", "junk and fill bytes", "cut off"],
)
def test_segments_are_the_same_on_disk_and_in_memory(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with FileContent(path) as file:
        assert list(segments(file)) == list(segments(content)) != []


def test_segments_end_with_the_first_image() -> None:
    content = encoded(PICTURE, "JPEG")
    assert list(segments(content + content)) == list(segments(content))
    assert [segment.code for segment in segments(content)].count(START_OF_SCAN) == 1


def test_number_of_segments_is_bounded() -> None:
    assert len(list(segments(SOI + jpeg_segment(0xFE, b"") * (MAX_SEGMENTS + 100)))) == MAX_SEGMENTS


def test_search_for_a_marker_is_bounded() -> None:
    content = SOI + bytes(9000) + jpeg_frame_header(7, 5)
    assert [segment.code for segment in segments(content)] == [0xC0]
    assert not list(segments(content, max_junk=8192))


@pytest.mark.parametrize("end", [b"", b"\0", b"\xd8", b"\xd9"], ids=["nothing", "a stuffed zero", "SOI", "EOI"])
def test_runs_of_fill_bytes_take_linear_time(end: bytes) -> None:
    # A pattern that tries every byte of such a run as its beginning takes minutes.
    head = encoded(PICTURE, "JPEG")
    content = head[: head.index(b"\xff\xda")] + b"\xff" * 4_000_000 + end + b"\xff\xda" * 200
    began = process_time()
    ends_in_scan(content)
    strip(content, ImageFormat.JPEG)
    find_metadata(content, ImageFormat.JPEG)
    check_scans(head + content[-400:], 300 * 200)
    assert process_time() - began < 1
