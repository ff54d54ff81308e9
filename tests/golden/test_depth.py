"""Slow gradients of more than 8 bits get no steps that the file does not have, whatever its values mean."""

import io
from collections.abc import Callable
from typing import Any, Final

import imagecodecs
import numpy as np
import pillow_heif
import pytest

from harness.images import png_chunk
from tests.golden.files import png_of
from tests.golden.profiles import LINEAR_NAMED_SRGB
from tests.golden.reference import Pixels, linear_to_srgb
from tests.golden.rendering import Make, boxes
from tests.golden.test_colour import icc

WIDTH, HEIGHT = 128, 64
DARK: Final = np.linspace(0, 0.05, WIDTH)
"""Linear light of which 8 bits have 14 values, and sRGB has 61."""
MIDDLE: Final = np.linspace(0.5, 0.56, WIDTH)
"""Values of PQ, from 92 to 165 nits: 16 of 8 bits, 61 of 10."""
LINEAR, PQ = (1, 8), (9, 16)
"""Primaries and transfer (ITU-T H.273)."""
_NEAR: Final = 2.0
"""Levels of 255 by which a column may differ: the thumbnail's own loss."""

_STEP: Final = 2.0
"""Levels from one column to the next, at most: a value of 8 bits is more in both gradients."""


def stored(values: Pixels, depth: int) -> Pixels:
    """Return the nearest values that a file of the depth can hold."""
    return np.asarray(np.round(values * (2**depth - 1)) / (2**depth - 1))


def picture(values: Pixels) -> Pixels:
    """Return a picture of grey columns, in three channels."""
    return np.asarray(np.broadcast_to(values[None, :, None], (HEIGHT, WIDTH, 3)))


def samples(values: Pixels, depth: int) -> Any:  # noqa: ANN401  (what encoders take)
    return np.round(picture(values) * (2**depth - 1)).astype("<u2")


def avif(values: Pixels, depth: int, meaning: tuple[int, int]) -> bytes:
    primaries, transfer = meaning
    return bytes(
        imagecodecs.avif_encode(
            samples(values, depth),
            level=100,
            speed=9,
            bitspersample=depth,
            pixelformat=1,
            primaries=primaries,
            transfer=transfer,
            matrix=0,
            numthreads=1,
        )
    )


def heic(values: Pixels, depth: int, meaning: tuple[int, int]) -> bytes:
    data = io.BytesIO()
    primaries, transfer = meaning
    pillow_heif.encode(
        f"RGB;{depth}",
        (WIDTH, HEIGHT),
        samples(values, depth).tobytes(),
        data,
        quality=-1,
        chroma=444,
        color_primaries=primaries,
        transfer_characteristics=transfer,
        matrix_coefficients=0,
        full_range_flag=1,
    )
    return data.getvalue()


def png(values: Pixels, depth: int, meaning: tuple[int, int]) -> bytes:
    return png_of(picture(values), png_chunk(b"cICP", bytes((*meaning, 0, 1))), depth=depth)


def png_with_gamma(values: Pixels, depth: int, _: tuple[int, int]) -> bytes:
    return png_of(picture(values), png_chunk(b"gAMA", (100_000).to_bytes(4)), depth=depth)


def png_with_profile(values: Pixels, depth: int, _: tuple[int, int]) -> bytes:
    return png_of(picture(values), icc(LINEAR_NAMED_SRGB.content), depth=depth)


Write = Callable[[Pixels, int, tuple[int, int]], bytes]
FILES: Final[list[tuple[Write, int]]] = [
    (png, 16),
    (png_with_gamma, 16),
    (png_with_profile, 16),
    (avif, 10),
    (avif, 12),
    (heic, 10),
]


def columns(make: Make, content: bytes) -> Pixels:
    """Return the thumbnail's columns in levels of 255, each as the mean of its pixels."""
    return np.asarray(make(content, boxes(WIDTH)).pixels(WIDTH).mean(axis=(0, 2)) * 255)


def named(each: Write | int) -> str:
    return str(getattr(each, "__name__", each))


def test_the_thumbnails_own_loss_is_small(make: Make) -> None:
    for wanted in (linear_to_srgb(DARK), np.linspace(0.5, 0.66, WIDTH)):
        found = columns(make, png_of(picture(wanted)))
        assert np.abs(found - wanted * 255).max() <= _NEAR
        assert np.abs(np.diff(found)).max() <= _STEP + 1e-9


@pytest.mark.parametrize(("write", "depth"), FILES, ids=named)
def test_dark_linear_gradients_have_no_steps(make: Make, write: Write, depth: int) -> None:
    found = columns(make, write(DARK, depth, LINEAR))
    wanted = linear_to_srgb(stored(DARK, depth)) * 255
    in_eight_bits = linear_to_srgb(stored(DARK, 8)) * 255
    assert np.abs(in_eight_bits - wanted).max() > 2 * _NEAR
    assert np.abs(found - wanted).max() <= _NEAR


@pytest.mark.parametrize(("write", "depth"), [(png, 16), (avif, 10), (avif, 12), (heic, 10)], ids=named)
def test_hdr_gradients_have_no_steps(make: Make, write: Write, depth: int) -> None:
    found = columns(make, write(MIDDLE, depth, PQ))
    assert np.ptp(found) > 20
    steps = np.diff(found)
    assert steps.min() >= -1
    assert steps.max() <= _STEP + 1e-9
