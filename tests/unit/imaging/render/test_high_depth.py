"""Pictures of more than eight bits a sample are converted before they are reduced, where a decoder can do that."""

import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from harness.images import encoded, gradient, jpeg_segment, linear_grey, png, png_chunk
from image_service.domain.recipe import Preset, Recipe
from image_service.imaging.decoders import high_depth
from image_service.imaging.isolation.pool import RenderPool
from image_service.imaging.limits import RenderLimits
from tests.golden.profiles import PRESS
from tests.unit.imaging.render.rendered import Make, assert_close

WIDTH, HEIGHT = 256, 64
CRISP = Recipe(presets=(Preset(name="small", width=WIDTH, height=WIDTH, quality=100),))
HALF = Recipe(presets=(Preset(name="small", width=WIDTH // 2, height=WIDTH, quality=100),))
LINEAR = png_chunk(b"gAMA", struct.pack(">I", 100_000))
DARK = 0.06
"""The brightest light of the ramp: 15 levels of eight bits, and 70 of sRGB."""
Samples = NDArray[np.uint16]


def ramp(channels: int = 3, alpha: float | None = None) -> Samples:
    """Dark linear tones from left to right."""
    row = np.round(np.linspace(0, DARK, WIDTH) * 65535).astype(np.uint16)
    samples = np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, channels))
    if alpha is None:
        return samples
    return np.dstack((samples, np.full((HEIGHT, WIDTH), round(alpha * 65535), np.uint16)))


def png16(samples: Samples, *chunks: bytes) -> bytes:
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[samples.shape[2]]
    return png(samples.shape[1], samples.shape[0], samples.astype(">u2").tobytes(), *chunks, depth=16, colour=colour)


def levels(image: Image.Image) -> int:
    """Return how many greys a picture has, counted in its middle row."""
    return len(set(np.asarray(image.convert("L"))[image.height // 2].tolist()))


def expected_row() -> NDArray[np.float64]:
    light = np.linspace(0, DARK, WIDTH)
    return np.asarray(np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_dark_linear_tones_have_no_steps(make: Make, channels: int) -> None:
    small = make(png16(ramp(channels), LINEAR), CRISP).small
    found = np.asarray(small.convert("L"))[HEIGHT // 2].astype(float)
    assert np.abs(found - expected_row()).max() <= 2
    assert levels(small) >= 60


def test_profiles_for_grey_leave_no_steps(make: Make) -> None:
    profile = png_chunk(b"iCCP", b"a\0\0" + zlib.compress(linear_grey()))
    assert levels(make(png16(ramp(1), profile), CRISP).small) >= 60


def test_smaller_pictures_have_no_steps_either(make: Make) -> None:
    small = make(png16(ramp(), LINEAR), HALF).small
    assert small.size == (128, 32)
    assert levels(small) >= 55


def test_transparency_is_kept(make: Make) -> None:
    small = make(png16(ramp(alpha=0.4), LINEAR), CRISP).small
    assert small.mode == "RGBA"
    assert small.getchannel("A").getextrema() == (102, 102)
    assert levels(small.convert("RGB")) >= 50


def interlaced(samples: Samples, *chunks: bytes) -> bytes:
    """A PNG file in seven passes (PNG specification §8)."""
    import zlib  # noqa: PLC0415 — only here

    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = b"".join(
        b"\0" + row.astype(">u2").tobytes()
        for top, left, down, right in passes
        for row in samples[top::down, left::right]
        if row.size
    )
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 1))
    pixels = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"".join((b"\x89PNG\r\n\x1a\n", header, *chunks, pixels))


def test_interlaced_picture_has_no_steps(make: Make) -> None:
    assert levels(make(interlaced(ramp(), LINEAR), CRISP).small) >= 60


def bright(channels: int) -> Samples:
    return np.full((HEIGHT, WIDTH, channels), 32_768, np.uint16)


OTHERS = {
    "grey with alpha": png16(np.dstack((bright(1), bright(1) * 0 + 65_535)), LINEAR),
    "a colour key": png16(bright(3), LINEAR, png_chunk(b"tRNS", bytes(6))),
    "cut off": png16(bright(3), LINEAR),
    "eight bits": png(WIDTH, HEIGHT, bytes((128,)) * WIDTH * HEIGHT * 3, LINEAR),
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_others_are_converted_with_eight_bits(make: Make, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    if content is OTHERS["cut off"]:
        content = content[:-30]
        small = make(content, CRISP, truncated=True).small
        assert_close(small, (188, 188, 188), tolerance=2)
        return
    monkeypatch.setattr(high_depth, "decode", lambda *_: pytest.fail("decoded with sixteen bits"))
    assert_close(make(content, CRISP).small, (188, 188, 188), tolerance=2)


def test_what_needs_no_conversion_is_decoded_with_eight_bits(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(high_depth, "decode", lambda *_: pytest.fail("decoded with sixteen bits"))
    for chunks in ((), (png_chunk(b"sRGB", b"\0"),), (png_chunk(b"cICP", bytes((2, 2, 0, 1))),)):
        assert_close(make(png16(bright(3), *chunks), CRISP).small, (128, 128, 128), tolerance=2)


@pytest.mark.parametrize("module", ["kornia_rs", "cykooz_resizer"])
def test_missing_library_means_eight_bits(make: Make, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    small = make(png16(ramp(), LINEAR), HALF).small
    assert 5 < levels(small) < 30


class PanicException(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError, MemoryError, PanicException])
def test_decoder_that_fails_means_eight_bits(
    make: Make, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "kornia_rs", SimpleNamespace(io=SimpleNamespace(decode_image_png_u16=fail)))
    assert 5 < levels(make(png16(ramp(), LINEAR), CRISP).small) < 30


LIMITS = {"_MAX_PIXELS": WIDTH * HEIGHT - 1, "_MAX_SIDE": WIDTH - 1, "_BYTES_PER_PIXEL": 1 << 40}


@pytest.mark.parametrize(("limit", "value"), LIMITS.items(), ids=LIMITS)
def test_pictures_beyond_a_limit_are_decoded_with_eight_bits(
    make: Make, limit: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = png16(ramp(), LINEAR)
    if limit != "_BYTES_PER_PIXEL":
        monkeypatch.setattr(high_depth, limit, value + 1)
        assert levels(make(content, CRISP).small) >= 60
    monkeypatch.setattr(high_depth, limit, value)
    assert 5 < levels(make(content, CRISP).small) < 30


def test_profile_with_a_table_of_colours_is_left_to_littlecms(make: Make) -> None:
    from tests.golden.profiles import TABLE_OF_COLOURS  # noqa: PLC0415 — only here
    from tests.golden.test_colour import icc  # noqa: PLC0415 — only here

    deep = make(png16(bright(3), icc(TABLE_OF_COLOURS.content)), CRISP).small
    plain = make(png(WIDTH, HEIGHT, bytes((128,)) * WIDTH * HEIGHT * 3, icc(TABLE_OF_COLOURS.content)), CRISP).small
    assert deep.getpixel((9, 9)) == plain.getpixel((9, 9))
    # One for CMYK changes nothing.
    assert_close(make(png16(bright(3), icc(PRESS.content)), CRISP).small, (128, 128, 128), tolerance=2)


def test_gain_map_is_ignored(make: Make) -> None:
    """An Ultra HDR file: a JPEG in SDR, XMP that announces a gain map, and the map as a second JPEG behind it."""
    base, gains = (
        encoded(Image.new("RGB", (80, 80), (200, 100, 50)), "JPEG", quality=95),
        encoded(gradient(40, 40), "JPEG"),
    )
    announced = (
        b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        b'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" hdrgm:GainMapMax="3"/></rdf:RDF>'
        b"</x:xmpmeta>"
    )
    index = b"MPF\0MM\0*\0\0\0\x08" + struct.pack(">H", 0) + bytes(4)
    content = base[:2] + jpeg_segment(0xE1, announced) + jpeg_segment(0xE2, index) + base[2:] + gains
    assert make(content).small.tobytes() == make(base).small.tobytes()
    assert_close(make(content).small, (200, 100, 50))


async def test_decoder_process_survives_where_memory_is_short(tmp_path: Path) -> None:
    # The decoder and the resizer, both in Rust, end the process if they do not get the memory for these.
    shapes = {"square": (2000, 2000, 4), "tall": (1_500_000, 1, 3)}
    pool = RenderPool(1, RenderLimits(memory_bytes=224 << 20))
    try:
        for name, shape in shapes.items():
            source = tmp_path / name
            source.write_bytes(png16(np.full(shape, 32_768, np.uint16), LINEAR))
            rendering = await pool.render(source, HALF, tmp_path)
            with Image.open(rendering.thumbnails[0].path) as small:
                assert_close(small, (188, 188, 188), at=(0, 0), tolerance=2)
    finally:
        await pool.close()
