"""Our own decoders compared with Pillow's, on the same files."""

import io
import random
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageFile, ImageStat, _webp
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from harness.images import display_p3, encoded, gradient, noise, oriented, png, png_chunk
from image_service.imaging.decoders import libwebp
from image_service.imaging.decoders import png as png_decoder
from image_service.imaging.decoders.png import Png
from image_service.imaging.decoders.webp import StillWebP, open_webp

SIZES = [(1, 1), (2, 3), (15, 16), (17, 33), (129, 64), (400, 301)]


def translucent(width: int, height: int) -> Image.Image:
    image = gradient(width, height).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((width, height)))
    return image


def outcome(opener: Callable[[io.BytesIO], ImageFile.ImageFile], content: bytes) -> Image.Image | None:
    """Return the picture; None for a damaged file."""
    try:
        image = opener(io.BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return None
    return image


def assert_same(one: Image.Image, other: Image.Image, tolerance: int = 0) -> None:
    assert (one.mode, one.size) == (other.mode, other.size)
    for channel in ImageChops.difference(one, other).split():
        assert channel.getextrema()[1] <= tolerance  # type: ignore[operator]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [gradient, noise, translucent])
@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True}, {"quality": 30, "exact": True}], ids=str)
def test_webp_decoders_agree(size: tuple[int, int], make: Any, options: dict[str, Any]) -> None:  # noqa: ANN401
    content = encoded(make(*size), "WEBP", **options)
    image = open_webp(io.BytesIO(content))
    assert type(image) is StillWebP
    assert_same(image, WebPImageFile(io.BytesIO(content)))


@pytest.mark.parametrize("wanted", [(199, 149), (100, 75), (40, 30), (7, 5), (1, 1)])
@pytest.mark.parametrize("lossless", [True, False])
def test_webp_is_scaled_on_load(wanted: tuple[int, int], *, lossless: bool) -> None:
    content = encoded(gradient(400, 300), "WEBP", lossless=lossless)
    image = StillWebP(io.BytesIO(content))
    width, height = 2 * wanted[0], 2 * wanted[1]
    assert image.draft(None, wanted) == ("RGB", (0, 0, width, height))
    image.load()
    assert image.size == (width, height)
    expected = WebPImageFile(io.BytesIO(content)).resize((width, height), Image.Resampling.BOX)
    assert_same(image.resize((20, 15)), expected.resize((20, 15)), 3)


def test_webp_is_not_scaled_with_alpha_or_small_reduction() -> None:
    for content in (encoded(translucent(400, 300), "WEBP"), encoded(gradient(200, 150), "WEBP")):
        image = open_webp(io.BytesIO(content))
        assert image.draft(None, (100, 75)) is None
        assert_same(image, WebPImageFile(io.BytesIO(content)))


def test_webp_keeps_profile_and_exif() -> None:
    exif = oriented(gradient(3, 3), 6)
    content = encoded(gradient(30, 20), "WEBP", exif=exif, icc_profile=display_p3(), xmp=b"<x/>")
    image, other = open_webp(io.BytesIO(content)), WebPImageFile(io.BytesIO(content))
    assert image.info == {key: other.info[key] for key in ("exif", "icc_profile")}
    assert image.getexif()[0x0112] == 6


def test_webp_animation_uses_pillow() -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("blue", "lime")]
    content = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    assert type(open_webp(io.BytesIO(content))) is WebPImageFile


def test_webp_falls_back_to_pillow_without_libwebp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_webp, "__file__", "/nothing/here.so")
    assert libwebp._load() is None
    monkeypatch.setattr(_webp, "__file__", sys.modules["_ctypes"].__file__)
    assert libwebp._load() is None
    monkeypatch.setattr(libwebp, "_library", None)
    image = open_webp(io.BytesIO(encoded(gradient(9, 9), "WEBP")))
    assert type(image) is WebPImageFile
    with pytest.raises(libwebp.Refused):
        libwebp.decode(b"", "RGB", (1, 1))


def test_webp_falls_back_to_pillow_on_libwebp_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(gradient(90, 60), "WEBP")
    image = open_webp(io.BytesIO(content))
    image.draft(None, (20, 10))

    def refuse(*_: object) -> None:
        raise libwebp.Refused

    monkeypatch.setattr(libwebp, "decode", refuse)
    image.load()
    assert_same(image, WebPImageFile(io.BytesIO(content)))


def test_webp_falls_back_to_pillow_on_other_libwebp_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libwebp, "_INTERFACE", 0x0309)
    assert type(open_webp(io.BytesIO(encoded(gradient(9, 9), "WEBP")))) is WebPImageFile
    with pytest.raises(libwebp.Refused):
        libwebp.decode(encoded(gradient(9, 9), "WEBP"), "RGB", (9, 9))


def test_libwebp_never_exceeds_the_buffer() -> None:
    content = encoded(noise(64, 64), "WEBP", lossless=True)
    before = libwebp.decode(content, "RGB", (64, 64))
    # As if the file had changed between two reads: neither size nor mode is taken from the second.
    for size in ((1, 1), (63, 64), (64, 1)):
        assert len(libwebp.decode(content, "RGB", size)) == 3 * size[0] * size[1]
    assert libwebp.decode(content, "RGB", (64, 64)) == before


WEBPS = {
    "lossy": encoded(noise(64, 48), "WEBP"),
    "lossless": encoded(gradient(64, 48), "WEBP", lossless=True),
    "translucent": encoded(translucent(64, 48), "WEBP"),
    "extended": encoded(gradient(64, 48), "WEBP", icc_profile=display_p3()),
}


@pytest.mark.parametrize("content", WEBPS.values(), ids=WEBPS)
def test_truncated_webp_is_damaged_at_any_length(content: bytes) -> None:
    for length in range(len(content)):
        assert outcome(open_webp, content[:length]) is None


@pytest.mark.parametrize("content", WEBPS.values(), ids=WEBPS)
def test_webp_decoders_agree_on_damage(content: bytes) -> None:
    rng = random.Random(1)
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(12, len(damaged))] = rng.randrange(256)
        ours, pillows = outcome(open_webp, bytes(damaged)), outcome(WebPImageFile, bytes(damaged))
        assert (ours is None) == (pillows is None)
        if ours is not None and pillows is not None:
            assert_same(ours, pillows)


def test_webp_with_canvas_unlike_frame_is_damaged() -> None:
    content = bytearray(WEBPS["extended"])
    content[24:27] = (4000).to_bytes(3, "little")
    assert outcome(open_webp, bytes(content)) is None


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the other decoder for pictures of any size."""
    assert find_spec("kornia_rs"), "the PNG decoder is missing: install requirements-dev.txt, on glibc"
    monkeypatch.setattr(png_decoder, "_WORTHWHILE", 0)


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
def test_png_reads_exif_after_pixels() -> None:
    content = encoded(gradient(60, 20), "PNG")
    chunk = png_chunk(b"eXIf", oriented(gradient(1, 1), 6).removeprefix(b"Exif\0\0"))
    assert Png(io.BytesIO(content[:-12] + chunk + content[-12:])).getexif()[0x0112] == 6


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

    monkeypatch.setattr(png_decoder, "_WORTHWHILE", 0)
    monkeypatch.setitem(sys.modules, "kornia_rs", SimpleNamespace(io=SimpleNamespace(decode_image_png_u8=fail)))
    picture = gradient(60, 20)
    assert_same(Png(io.BytesIO(encoded(picture, "PNG"))), picture)


def test_png_falls_back_to_pillow_without_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_decoder, "_WORTHWHILE", 0)
    monkeypatch.setitem(sys.modules, "kornia_rs", None)
    picture = gradient(60, 20)
    assert_same(Png(io.BytesIO(encoded(picture, "PNG"))), picture)


def test_png_propagates_keyboard_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(png_decoder, "_WORTHWHILE", 0)
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


def test_scaled_webp_keeps_brightness() -> None:
    picture = noise(300, 300)
    image = open_webp(io.BytesIO(encoded(picture, "WEBP", lossless=True)))
    image.draft(None, (50, 50))
    assert ImageStat.Stat(image).mean == pytest.approx(ImageStat.Stat(picture).mean, abs=0.6)
