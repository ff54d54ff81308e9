"""Our own PNG decoder compared with Pillow's, on the same files."""

import io
import random
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from harness.images import display_p3, encoded, gradient, noise, oriented, png
from image_service.imaging.decoders import png as png_decoder
from image_service.imaging.decoders.png import Png
from tests.unit.imaging.decoders.comparison import assert_same, outcome, translucent


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the other decoder for pictures of any size."""
    assert find_spec("kornia_rs"), "the PNG decoder is missing: install requirements-dev.txt, on glibc"
    monkeypatch.setattr(png_decoder, "_LEAST_PIXELS", 0)


@pytest.fixture
def without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if Pillow decodes."""

    def refused(_: Png) -> None:
        raise AssertionError("decoded by Pillow")

    monkeypatch.setattr(PngImageFile, "load_prepare", refused)


PNG_MODES = [noise(1, 1).convert("L"), noise(130, 57).convert("L"), noise(130, 57), translucent(130, 57)]


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("picture", PNG_MODES, ids=lambda picture: f"{picture.mode} {picture.size}")
def test_png_decoders_agree(picture: Image.Image, request: pytest.FixtureRequest) -> None:
    content = encoded(picture, "PNG", icc_profile=display_p3(), exif=oriented(picture, 6))
    other = PngImageFile(io.BytesIO(content))
    other.load()
    request.getfixturevalue("without_pillow")
    image = Png(io.BytesIO(content))
    image.load()
    assert_same(image, other)
    assert image.getexif() == other.getexif()
    assert image.info["icc_profile"] == other.info["icc_profile"]


@pytest.mark.usefixtures("any_size", "without_pillow")
@pytest.mark.parametrize("height", [1, 255, 256, 700])
def test_png_is_decoded_at_wanted_width(height: int) -> None:
    picture = gradient(500, height)
    image = Png(io.BytesIO(encoded(picture, "PNG")))
    assert image.draft(None, (100, height)) is None
    image.load()
    assert image.size == (100, height)
    assert_same(image.convert("RGB"), picture.resize((100, height), Image.Resampling.LANCZOS), 2)


@pytest.mark.usefixtures("any_size", "without_pillow")
@pytest.mark.parametrize("picture", [gradient(50, 40), translucent(500, 40), gradient(500, 40).convert("L")])
def test_png_keeps_its_width_without_need(picture: Image.Image) -> None:
    image = Png(io.BytesIO(encoded(picture, "PNG")))
    image.draft(None, (60, 40))
    assert_same(image, picture)


OTHERS = {
    "palette": encoded(gradient(40, 30).quantize(16), "PNG"),
    "two channels": encoded(translucent(40, 30).convert("LA"), "PNG"),
    "1 bit": encoded(gradient(40, 30).convert("1"), "PNG"),
    "16 bits": png(40, 30, noise(60, 40).tobytes(), depth=16),
    "16 bits of grey": png(40, 30, noise(40, 20).tobytes(), depth=16, colour=0),
    "a colour key": encoded(gradient(40, 30), "PNG", transparency=(0, 0, 64)),
}


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_png_of_other_modes_uses_pillow(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_decoder, "_decode", lambda *_: pytest.fail("decoded by kornia"))
    image, other = Png(io.BytesIO(content)), PngImageFile(io.BytesIO(content))
    other.load()
    assert image.tobytes() == other.tobytes()
    assert image.info == other.info


def test_small_png_uses_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_decoder, "_decode", lambda *_: pytest.fail("decoded by kornia"))
    Png(io.BytesIO(encoded(gradient(999, 999), "PNG"))).load()


class PanicException(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError, MemoryError, PanicException])
def test_png_falls_back_to_pillow_on_decoder_failure(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(png_decoder, "_LEAST_PIXELS", 0)
    monkeypatch.setitem(sys.modules, "kornia_rs", SimpleNamespace(io=SimpleNamespace(decode_image_png_u8=fail)))
    picture = gradient(60, 20)
    assert_same(Png(io.BytesIO(encoded(picture, "PNG"))), picture)


def test_png_falls_back_to_pillow_without_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_decoder, "_LEAST_PIXELS", 0)
    monkeypatch.setitem(sys.modules, "kornia_rs", None)
    picture = gradient(60, 20)
    assert_same(Png(io.BytesIO(encoded(picture, "PNG"))), picture)


def test_png_propagates_keyboard_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(png_decoder, "_LEAST_PIXELS", 0)
    monkeypatch.setitem(sys.modules, "kornia_rs", SimpleNamespace(io=SimpleNamespace(decode_image_png_u8=interrupt)))
    with pytest.raises(KeyboardInterrupt):
        Png(io.BytesIO(encoded(gradient(60, 20), "PNG"))).load()


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("picture", PNG_MODES[1:], ids=lambda picture: picture.mode)
def test_png_decoders_agree_on_damage(picture: Image.Image) -> None:
    content, rng = encoded(picture, "PNG"), random.Random(1)
    damaged = [content[:length] for length in range(40, len(content), 97)]
    for _ in range(300):
        one = bytearray(content)
        one[rng.randrange(33, len(one))] = rng.randrange(256)
        damaged.append(bytes(one))
    for each in damaged:
        ours, pillows = outcome(Png, each), outcome(PngImageFile, each)
        assert (ours is None) == (pillows is None)
        if ours is not None and pillows is not None:
            assert_same(ours, pillows)
