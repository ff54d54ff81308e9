"""Our own WebP decoder compared with Pillow's, on the same files."""

import io
import random
import sys
from typing import Any

import pytest
from PIL import Image, ImageStat, _webp
from PIL.WebPImagePlugin import WebPImageFile

from harness.images import display_p3, encoded, gradient, noise
from image_service.imaging.decoders import libwebp
from image_service.imaging.decoders.webp import StillWebP, open_webp
from tests.unit.imaging.decoders.comparison import assert_same, outcome, translucent

SIZES = [(1, 1), (2, 3), (15, 16), (17, 33), (129, 64), (400, 301)]


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


def test_scaled_webp_keeps_brightness() -> None:
    picture = noise(300, 300)
    image = open_webp(io.BytesIO(encoded(picture, "WEBP", lossless=True)))
    image.draft(None, (50, 50))
    assert ImageStat.Stat(image).mean == pytest.approx(ImageStat.Stat(picture).mean, abs=0.6)
