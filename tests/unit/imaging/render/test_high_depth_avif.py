"""AVIF of 10 and 12 bits, which Pillow reduces to eight."""

import ctypes

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from image_service.imaging.decoders import high_depth, libavif
from tests.unit.imaging.render.rendered import Make
from tests.unit.imaging.render.test_high_depth import CRISP, HALF, HEIGHT, WIDTH, expected_row, levels, ramp

_YUV444, _GREY = 1, 4


def avif(depth: int, channels: int = 3, alpha: float | None = None) -> bytes:
    """A file of dark linear tones, without loss."""
    samples: NDArray[np.uint16] = np.asarray(ramp(channels, alpha) >> (16 - depth), np.uint16)
    return bytes(
        imagecodecs.avif_encode(
            samples[..., 0] if channels == 1 else samples,
            level=100,
            speed=10,
            bitspersample=depth,
            pixelformat=_GREY if channels == 1 else _YUV444,
            primaries=1,
            transfer=8,
            matrix=6 if channels == 1 else 0,
            numthreads=1,
        )
    )


@pytest.mark.parametrize(("depth", "channels", "steps"), [(10, 3, 50), (12, 3, 62), (12, 1, 62)])
def test_dark_linear_tones_have_as_many_levels_as_the_file(make: Make, depth: int, channels: int, steps: int) -> None:
    small = make(avif(depth, channels), CRISP).small
    assert levels(small) >= steps
    found = np.asarray(small.convert("L"))[HEIGHT // 2].astype(float)
    # Ten bits have 62 tones up to there, of which the darkest are apart.
    assert np.abs(found - expected_row())[WIDTH // 4 :].max() <= (3 if depth == 10 else 2)


def test_transparency_is_kept(make: Make) -> None:
    small = make(avif(10, alpha=0.4), CRISP).small
    assert small.mode == "RGBA"
    low, high = small.getchannel("A").getextrema()
    assert (low, high) == pytest.approx((102, 102), abs=1)


FAILURES = ["no library", "another size", "no success"]


@pytest.mark.parametrize("failure", FAILURES)
def test_what_the_library_refuses_is_decoded_with_eight_bits(
    make: Make, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = avif(10)
    if failure == "no library":
        monkeypatch.setattr(libavif, "_library", None)
    elif failure == "another size":
        decode = libavif.decode
        monkeypatch.setattr(
            libavif, "decode", lambda data, size, channels: decode(data, (size[0] + 1, size[1]), channels)
        )
    else:
        monkeypatch.setattr(libavif, "_OK", 99)
    assert levels(make(content, HALF).small) < 20


def test_damaged_file_is_refused() -> None:
    content = avif(10)
    assert len(libavif.decode(content, (WIDTH, HEIGHT), 4)) == WIDTH * HEIGHT * 8
    for damaged in (b"", content[:100], content[:-400]):
        with pytest.raises(libavif.Refused):
            libavif.decode(damaged, (WIDTH, HEIGHT), 4)


def test_conversion_that_fails_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert libavif._library
    monkeypatch.setattr(libavif, "_FORMATS", {3: 99})
    with pytest.raises(libavif.Refused):
        libavif.decode(avif(10), (WIDTH, HEIGHT), 3)


@pytest.mark.parametrize("version", [b"0.11.1", b"2.0.0"])
def test_other_versions_are_not_used(version: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert libavif._load()
    monkeypatch.setattr(libavif, "_VERSION", version)
    assert libavif._load() is None


def test_module_without_the_functions_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (ctypes.__file__, "/nowhere"):
        monkeypatch.setattr("image_service.imaging.decoders.libavif._avif.__file__", module)
        assert libavif._load() is None


def test_large_picture_is_decoded_with_eight_bits(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(high_depth, "_MAX_PIXELS", WIDTH * HEIGHT - 1)
    assert levels(make(avif(12), CRISP).small) < 30
