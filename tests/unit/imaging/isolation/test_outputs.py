"""Thumbnails from a decoder process are what was announced, and are written without following links."""

import hashlib
from pathlib import Path

import pytest

from harness.images import encoded, gradient
from image_service.domain.image import ImageFormat
from image_service.imaging.isolation.outputs import CollectedFiles, store
from image_service.imaging.isolation.protocol import Announced

FORMATS = {"JPEG": ImageFormat.JPEG, "PNG": ImageFormat.PNG, "WEBP": ImageFormat.WEBP, "AVIF": ImageFormat.AVIF}
JPEG = encoded(gradient(64, 48), "JPEG")


def announced(content: bytes, image_format: ImageFormat = ImageFormat.JPEG, width: int = 64) -> Announced:
    return Announced(output="box", format=image_format, width=width, height=48, size_bytes=len(content))


@pytest.mark.parametrize("name", FORMATS)
def test_file_is_written_with_its_digest(tmp_path: Path, name: str) -> None:
    content = encoded(gradient(64, 48), name)
    (made,) = store([announced(content, FORMATS[name])], [content], tmp_path)
    assert made.path == tmp_path / "box"
    assert made.path.read_bytes() == content
    assert made.sha256 == hashlib.sha256(content).hexdigest()
    assert (made.size_bytes, made.content_type) == (len(content), FORMATS[name].content_type)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html><script>alert(1)</script>", announced(b"")),
        (b"", announced(b"")),
        (b"\xff\xd8\xff", announced(b"")),
        (JPEG[:60], announced(b"")),
        (JPEG, announced(JPEG, ImageFormat.PNG)),
        (JPEG, announced(JPEG, width=65)),
        (encoded(gradient(640, 480), "JPEG"), announced(JPEG)),
        (encoded(gradient(64, 48), "GIF"), announced(JPEG)),
    ],
    ids=["HTML", "nothing", "signature only", "cut off", "other format", "other size", "larger", "GIF"],
)
def test_file_that_is_not_what_was_announced_is_rejected(tmp_path: Path, content: bytes, said: Announced) -> None:
    good = Announced(output="good", format=ImageFormat.JPEG, width=64, height=48, size_bytes=len(JPEG))
    with pytest.raises(ValueError, match="the thumbnail box"):
        list(store([good, said], [JPEG, content], tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"kept")
    (tmp_path / "box").symlink_to(target)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        list(store([announced(JPEG)], [JPEG], tmp_path))
    assert target.read_bytes() == b"kept"


def test_collected_files_are_kept_in_memory(tmp_path: Path) -> None:
    files = CollectedFiles()
    assert (files / "box").write_bytes(memoryview(b"content")) == 7
    assert {name: bytes(content) for name, content in files.contents.items()} == {"box": b"content"}
    assert list(tmp_path.iterdir()) == []
