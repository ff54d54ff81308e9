"""JPEG XL files are written as the picture is, with the library that also reads them."""

import ctypes
import io
from itertools import pairwise

import pytest
from PIL import Image, ImageChops, ImageStat

from harness.images import gradient, noise
from image_service.domain.image import ImageFormat
from image_service.imaging.decoders.jxl import JpegXl
from image_service.imaging.encoders import libjxl
from image_service.imaging.formats import find_metadata, read_dimensions
from image_service.imaging.formats.magic import identify

TRANSLUCENT = gradient(90, 60).convert("RGBA")
TRANSLUCENT.putalpha(Image.linear_gradient("L").resize(TRANSLUCENT.size))
PICTURES = {"L": gradient(90, 60).convert("L"), "RGB": gradient(90, 60), "RGBA": TRANSLUCENT}


def decoded(content: bytes | bytearray) -> Image.Image:
    image = JpegXl(io.BytesIO(content))
    image.load()
    assert image.signals == ()
    return image


@pytest.mark.parametrize("mode", PICTURES)
@pytest.mark.parametrize("effort", [3, 5])
def test_picture_comes_back(mode: str, effort: int) -> None:
    found = decoded(libjxl.encode(PICTURES[mode], 90, effort))
    assert found.mode == mode
    difference = ImageStat.Stat(ImageChops.difference(found, PICTURES[mode]))
    assert max(difference.mean) < 3


@pytest.mark.parametrize("mode", PICTURES)
def test_highest_quality_loses_nothing(mode: str) -> None:
    assert decoded(libjxl.encode(PICTURES[mode], 100, 3)).tobytes() == PICTURES[mode].tobytes()


def test_transparency_loses_nothing() -> None:
    found = decoded(libjxl.encode(TRANSLUCENT, 30, 3)).getchannel("A")
    assert found.tobytes() == TRANSLUCENT.getchannel("A").tobytes()


def test_quality_and_effort_decide_on_bytes() -> None:
    picture = noise(200, 200)
    sizes = [len(libjxl.encode(picture, quality, 3)) for quality in (1, 30, 60, 80, 99, 100)]
    assert all(a < b for a, b in pairwise(sizes))
    assert libjxl.encode(picture, 80, 3) != libjxl.encode(picture, 80, 5)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (257, 255)])
def test_file_is_a_bare_codestream_without_metadata(size: tuple[int, int]) -> None:
    content = bytes(libjxl.encode(noise(*size), 80, 3))
    assert identify(content) is ImageFormat.JXL
    assert content.startswith(b"\xff\x0a")
    assert read_dimensions(content, ImageFormat.JXL) == size
    assert find_metadata(content, ImageFormat.JXL) == ()


def test_files_larger_than_the_buffer_are_complete() -> None:
    picture = noise(600, 500)
    content = libjxl.encode(picture, 100, 3)
    assert len(content) > 3 * libjxl._BUFFER
    assert decoded(content).tobytes() == picture.tobytes()


def test_lack_of_memory_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    library = libjxl.load()
    for name in ("Create", "AddImageFrame", "ProcessOutput"):
        with monkeypatch.context() as patch:
            patch.setattr(library, f"JxlEncoder{name}", lambda *_, name=name: None if name == "Create" else 1)
            with pytest.raises(MemoryError):
                libjxl.encode(gradient(8, 8), 80, 3)


def test_too_little_memory_is_known_before(monkeypatch: pytest.MonkeyPatch) -> None:
    needed: list[int] = []
    monkeypatch.setattr(libjxl, "is_available", needed.append)
    with pytest.raises(MemoryError):
        libjxl.encode(gradient(1000, 1000), 80, 3)
    assert needed == [(64 << 20) + 48_000_000]


def test_file_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libjxl, "_BYTES_PER_PIXEL", 0)
    monkeypatch.setattr(libjxl, "_BYTES_BESIDE_PIXELS", 1 << 16)
    with pytest.raises(MemoryError):
        libjxl.encode(noise(600, 500), 100, 3)


def test_needs_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> ctypes.CDLL:
        raise ImportError("imagecodecs is not installed")

    libjxl.load.cache_clear()
    monkeypatch.setattr("image_service.imaging.decoders.libjxl.load", missing)
    with pytest.raises(ImportError, match="not installed"):
        libjxl.encode(gradient(8, 8), 80, 3)
