"""JPEG XL files are decoded with their colours, transparency, orientation and layers; damaged ones are refused."""

import ctypes
import io
import random
import subprocess
import sys
from collections.abc import Iterator

import pytest
from PIL import Image

from harness.images import display_p3, encoded, gradient, linear_grey, noise
from harness.jxl import CONTAINER, encoded_jxl, jxl, jxl_of_jpeg
from image_service.imaging.decoders import libjxl
from image_service.imaging.decoders.jxl import JpegXl, prepare
from image_service.imaging.decoders.libjxl_structures import ColourEncoding
from image_service.imaging.render.colour.conversion import to_srgb

PICTURE = gradient(60, 40)
P3 = ColourEncoding(0, 1, (0, 0), 11, (0,) * 6, 13, 0, 1)
PQ, HLG = (ColourEncoding(0, 1, (0, 0), 9, (0,) * 6, transfer, 0, 1) for transfer in (16, 18))
ORANGE = (200, 100, 50)


def decoded(content: bytes) -> Image.Image:
    """The picture in sRGB."""
    image = JpegXl(io.BytesIO(content))
    image.load()
    return to_srgb(image, image.signals)


def pixel(content: bytes) -> tuple[int, ...]:
    found = decoded(content).getpixel((5, 5))
    return found if isinstance(found, tuple) else (int(found or 0),)


def close(found: tuple[int, ...], wanted: tuple[int, ...], tolerance: int = 3) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(found, wanted, strict=True))


def test_keeps_every_pixel_of_lossless_files() -> None:
    for image in (PICTURE, PICTURE.convert("L")):
        found = decoded(jxl(image, lossless=True))
        assert (found.mode, found.tobytes()) == (image.mode, image.tobytes())


def test_restores_transparency_also_where_colours_are_premultiplied() -> None:
    image = PICTURE.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    assert decoded(jxl(image, lossless=True)).tobytes() == image.tobytes()
    plain = Image.new("RGBA", (16, 16), (100, 50, 25, 128))
    assert close(pixel(jxl(plain, lossless=True, premultiplied=True)), (199, 100, 50, 128))
    grey = decoded(jxl(Image.new("LA", (16, 16), (90, 7)), lossless=True))
    assert (grey.mode, grey.getpixel((0, 0))) == ("RGBA", (90, 90, 90, 7))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_applies_orientation_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # which does not count in this format
    content = jxl(
        PICTURE, lossless=True, orientation=orientation, boxes=[(b"Exif", bytes(4) + exif.tobytes()[6:], False)]
    )
    found = JpegXl(io.BytesIO(content))
    assert found.size == ((40, 60) if orientation > 4 else (60, 40))
    found.load()
    assert not found.getexif()
    first = {1: (0, 0), 2: (59, 0), 3: (59, 39), 4: (0, 39), 5: (0, 0), 6: (0, 39), 7: (59, 39), 8: (59, 0)}
    assert found.getpixel((0, 0)) == PICTURE.getpixel(first[orientation])


@pytest.mark.parametrize("lossless", [True, False])
def test_converts_wide_gamut_and_profiles(*, lossless: bool) -> None:
    orange = Image.new("RGB", (32, 32), ORANGE)
    assert close(pixel(jxl(orange, lossless=lossless)), ORANGE)
    assert close(pixel(jxl(orange, lossless=lossless, colours=P3)), (214, 94, 31), 8)
    assert close(pixel(jxl(orange, lossless=lossless, profile=display_p3())), (214, 94, 31), 8)
    grey = Image.new("L", (32, 32), 55)
    assert close(pixel(jxl(grey, lossless=lossless, profile=linear_grey()))[:1], (128,), 4)


def test_ignores_an_enormous_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libjxl, "MAX_PROFILE_BYTES", 100)
    assert pixel(jxl(Image.new("RGB", (32, 32), ORANGE), lossless=True, profile=display_p3())) == ORANGE


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize(("colours", "white", "least"), [(PQ, 0.58, 185), (HLG, 0.75, 185)], ids=["PQ", "HLG"])
def test_reduces_high_dynamic_range(colours: ColourEncoding, white: float, least: int, *, lossless: bool) -> None:
    def level(value: float) -> int:
        raw = round(value * 65535).to_bytes(2, "little") * (3 * 32 * 32)
        return pixel(jxl(raw, size=(32, 32), bits=16, lossless=lossless, colours=colours))[0]

    levels = [level(value) for value in (0, 0.25, 0.5, white, white + 0.1, 1)]
    assert levels == sorted(set(levels))
    assert least <= levels[3] <= 200
    assert (levels[0], levels[-1]) == (0, 255)


def test_scales_samples_of_every_depth() -> None:
    for bits in (10, 12, 16):
        raw = (1 << bits - 1).to_bytes(2, "little") * (32 * 32)
        (grey,) = pixel(jxl(raw, size=(32, 32), mode="L", bits=bits, lossless=True))
        assert 127 <= grey <= 128, bits


def test_takes_the_first_frame_and_all_of_its_layers() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("blue", "lime")]
    assert pixel(jxl(*frames, lossless=True, duration=5)) == (0, 0, 255)
    layer = jxl(Image.new("RGB", (100, 100), "red"), size=(16, 16), offset=(-3, -3), lossless=True)
    found = decoded(layer)
    assert (found.size, found.getpixel((5, 5))) == ((16, 16), (255, 0, 0))


def test_decodes_what_was_a_jpeg_from_its_coefficients() -> None:
    content = encoded(gradient(64, 48), "JPEG", quality=95)
    found, wanted = decoded(jxl_of_jpeg(content)), Image.open(io.BytesIO(content))
    assert close(found.getpixel((32, 24)), wanted.getpixel((32, 24)), 6)  # type: ignore[arg-type]


def test_refuses_cmyk(monkeypatch: pytest.MonkeyPatch) -> None:
    # No encoder at hand writes such a file.
    monkeypatch.setattr(libjxl, "_CMYK", b"RGB ")
    with pytest.raises(SyntaxError, match="CMYK are not supported"):
        JpegXl(io.BytesIO(jxl(PICTURE, lossless=True, profile=display_p3())))


def test_file_cut_anywhere_is_refused() -> None:
    for whole in (jxl(noise(64, 64)), jxl(noise(64, 64), container=True), encoded_jxl(PICTURE)):
        for length in range(2, len(whole) - 8, max(1, len(whole) // 60)):
            with pytest.raises((OSError, SyntaxError)):
                decoded(whole[:length])


def _damaged(count: int) -> Iterator[bytes]:
    wholes = [
        jxl(noise(48, 48)),
        jxl(gradient(48, 48).convert("RGBA"), lossless=True, profile=display_p3(), boxes=[(b"Exif", bytes(40), True)]),
        jxl(PICTURE, PICTURE, lossless=True, duration=2),
        jxl_of_jpeg(encoded(gradient(48, 48), "JPEG")),
    ]
    randomness = random.Random(1962)
    for _ in range(count):
        content = bytearray(randomness.choice(wholes))
        for _ in range(randomness.randrange(1, 4)):
            content[randomness.randrange(2, len(content))] ^= 1 << randomness.randrange(8)
        yield bytes(content)


def test_damaged_files_give_a_picture_of_the_announced_size_or_are_refused() -> None:
    pictures = 0
    for content in _damaged(600):
        try:
            picture = libjxl.read_picture(content)
            if picture.size[0] * picture.size[1] > 1_000_000:
                continue
            pixels = libjxl.decode(content)
        except libjxl.Refused:
            continue
        channels = {"L": 1, "RGB": 3, "RGBA": 4}[picture.mode]
        assert len(pixels) == picture.size[0] * picture.size[1] * channels
        pictures += 1
    assert pictures


def test_refuses_what_is_no_jpeg_xl() -> None:
    for content in (b"", b"\xff\x0a", CONTAINER, encoded(PICTURE, "PNG")):
        with pytest.raises(SyntaxError, match="no image"):
            JpegXl(io.BytesIO(content))


def test_library_is_needed_in_a_version_whose_structures_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare()
    monkeypatch.setattr(libjxl, "_VERSIONS", range(1))
    libjxl.load.cache_clear()
    try:
        with pytest.raises(ImportError, match=r"version of libjxl in imagecodecs is not supported: [0-9]+"):
            prepare()
        monkeypatch.setattr(ctypes, "CDLL", _broken)
        with pytest.raises(ImportError, match="cannot be loaded: no such symbol"):
            prepare()
        monkeypatch.setitem(sys.modules, "imagecodecs", None)
        with pytest.raises(ImportError, match="is not installed"):
            prepare()
    finally:
        libjxl.load.cache_clear()


def _broken(_: str) -> ctypes.CDLL:
    raise OSError("no such symbol")


LOADED = """
import sys
from image_service.imaging.decoders.jxl import prepare
prepare()
with open("/proc/self/maps", encoding="ascii") as maps:
    files = {line.split("/")[-1].split("-")[0].split(".")[0].strip() for line in maps if "imagecodecs" in line}
print("imagecodecs" in sys.modules, *files)
"""


def test_loads_one_codec_of_its_package_and_no_python_code() -> None:
    # In a process of its own: other tests write their files with the whole package.
    command = [sys.executable, "-c", LOADED]
    python, *files = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603  (fixed)
    assert python == "False"
    assert "libjxl" in files
    assert not set(files) & {"libtiff", "libaom", "libavif", "libblosc2", "libopenjp2"}
