"""Every pixel layout of every format renders the same picture."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.images import png_chunk
from tests.golden.comparison import SMALL, USUAL, Tolerance, assert_alike
from tests.golden.files import FORMATS, TRUE_COLOUR, interlaced_png, packed_png, png_of, write
from tests.golden.pictures import grey_scene, quantised, scene, to_image
from tests.golden.reference import Indices, Pixels, over, resize, resize_visible
from tests.golden.rendering import Make, boxes

WIDTH, HEIGHT = 360, 240
SCENE, GREY = scene(WIDTH, HEIGHT), grey_scene(WIDTH, HEIGHT)
ALPHA = quantised(np.tile(0.5 + 0.45 * np.sin(np.linspace(0, 9, WIDTH)), (HEIGHT, 1)))


@cache
def large() -> Pixels:
    """Return a picture large enough for decoders that are only used, or only skip detail, for large pictures."""
    return scene(1290, 860)


def ramp(count: int) -> Pixels:
    """Return so many colours, each close to the next."""
    at = np.linspace(0, 1, count)
    return quantised(np.stack((0.15 + 0.8 * at, 0.1 + 0.75 * at, 0.05 + 0.6 * at), axis=-1))


def palette_chunk(colours: Pixels) -> bytes:
    return png_chunk(b"PLTE", np.round(colours * 255).astype(np.uint8).tobytes())


def indices(depth: int) -> Indices:
    """Return the grey picture as palette indices of a depth."""
    return np.asarray(np.round(GREY * (2**depth - 1)), dtype=np.uint8)


POSTER = Tolerance(mean=2.5, psnr=36, ssim=0.96)
"""For pictures of few colours, on whose hard edges filters differ."""


def assert_shows(make: Make, content: bytes, picture: Pixels, tolerance: Tolerance = USUAL) -> None:
    """Check that the file renders as an opaque picture, in colour or grey."""
    found = make(content, boxes(180)).pixels(180)
    expected = resize(picture, 180, 120)
    assert_alike(found, expected if expected.ndim > 2 else np.stack((expected,) * 3, axis=-1), tolerance)


def assert_shows_with_alpha(make: Make, content: bytes, picture: Pixels, tolerance: Tolerance = USUAL) -> None:
    """Check that the file renders as a picture with alpha, on any background."""
    found, expected = make(content, boxes(180)).pixels_with_alpha(180), resize_visible(picture, 180, 120)
    assert_alike(found[..., 3], expected[..., 3], tolerance)
    for background in (0, 0.5, 1):
        assert_alike(over(found, background), over(expected, background), tolerance)


def with_alpha(pixels: Pixels, alpha: Pixels = ALPHA) -> Pixels:
    return np.concatenate((np.atleast_3d(pixels), alpha[..., None]), axis=2)


def coloured(grey: Pixels, alpha: Pixels = ALPHA) -> Pixels:
    return with_alpha(np.stack((grey,) * 3, axis=-1), alpha)


@pytest.mark.parametrize("image_format", TRUE_COLOUR)
def test_colours(make: Make, image_format: str) -> None:
    assert_shows(make, write(to_image(SCENE), image_format), SCENE)


@pytest.mark.parametrize("image_format", [each for each in FORMATS if each != "gif"])
def test_greys(make: Make, image_format: str) -> None:
    assert_shows(make, write(to_image(GREY), image_format), GREY)


def test_16_bits(make: Make) -> None:
    # The middle of the range shows best whether a byte is cut off, or values are clipped.
    fine = quantised(0.25 + 0.5 * GREY, 16)
    assert_shows(make, png_of(fine, depth=16), fine)
    assert_shows(make, png_of(quantised(GREY, 16), depth=16), GREY)
    assert_shows(make, png_of(quantised(SCENE, 16), depth=16), SCENE)


def test_16_bits_with_alpha(make: Make) -> None:
    assert_shows_with_alpha(make, png_of(with_alpha(SCENE), depth=16), with_alpha(SCENE))
    assert_shows_with_alpha(make, png_of(with_alpha(GREY), depth=16), coloured(GREY))


def test_8_bits_with_alpha(make: Make) -> None:
    assert_shows_with_alpha(make, png_of(with_alpha(SCENE)), with_alpha(SCENE))
    assert_shows_with_alpha(make, png_of(with_alpha(GREY)), coloured(GREY))
    assert_shows_with_alpha(make, write(to_image(with_alpha(SCENE)), "webp", lossless=True), with_alpha(SCENE))


@pytest.mark.parametrize("image_format", [each for each in FORMATS if each in {"webp", "avif", "heic"}])
def test_lossy_webp_with_alpha(make: Make, image_format: str) -> None:
    assert_shows_with_alpha(make, write(to_image(with_alpha(SCENE)), image_format), with_alpha(SCENE))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_of_few_bits(make: Make, depth: int) -> None:
    few = quantised(GREY, depth)
    values = np.round(few * (2**depth - 1)).astype(np.uint8)
    assert_shows(make, packed_png(values, depth, colour=0), few, POSTER)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes(make: Make, depth: int) -> None:
    colours = ramp(2**depth)
    content = packed_png(indices(depth), depth, palette_chunk(colours))
    assert_shows(make, content, colours[indices(depth)], POSTER)


def test_palettes_with_alpha(make: Make) -> None:
    # Fewer alpha values than colours: the others are opaque.
    colours, alphas = ramp(256), quantised(np.minimum(np.linspace(0.2, 1.4, 256), 1))
    values = np.round(alphas[alphas < 1] * 255).astype(np.uint8)
    content = packed_png(indices(8), 8, palette_chunk(colours), png_chunk(b"tRNS", values.tobytes()))
    assert_shows_with_alpha(make, content, with_alpha(colours[indices(8)], alphas[indices(8)]))


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("transparent", [False, True])
def test_gif(make: Make, interlace: int, *, transparent: bool) -> None:
    image = Image.frombytes("P", (WIDTH, HEIGHT), indices(8).tobytes())
    image.putpalette(np.round(ramp(256) * 255).astype(np.uint8).tobytes())
    picture = ramp(256)[indices(8)]
    if transparent:
        clear = int(np.bincount(indices(8).flat).argmax())
        content = write(image, "gif", interlace=interlace, transparency=clear)
        assert_shows_with_alpha(make, content, with_alpha(picture, (indices(8) != clear) * 1.0), POSTER)
    else:
        assert_shows(make, write(image, "gif", interlace=interlace), picture)


def test_interlaced_png(make: Make) -> None:
    assert_shows(make, interlaced_png(SCENE), SCENE)


JPEGS: dict[str, dict[str, Any]] = {
    "progressive": {"progressive": True},
    "progressive, half the colours": {"progressive": True, "subsampling": "4:2:0"},
    "half the colours": {"subsampling": "4:2:0"},
    "half the colours across": {"subsampling": "4:2:2"},
    "with restart markers": {"restart_marker_blocks": 3},
    "with tables of its own": {"optimize": True},
    "RGB": {"keep_rgb": True},
}


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("box", [180, 60], ids=["whole", "scaled"])
def test_jpeg(make: Make, options: dict[str, Any], box: int) -> None:
    content = write(to_image(SCENE), "jpeg", **options)
    found = make(content, boxes(box)).pixels(box)
    assert_alike(found, resize(SCENE, box, box * 2 // 3), USUAL if box == 180 else SMALL)


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 98}, {"quality": 98, "method": 6}])
def test_webp(make: Make, options: dict[str, Any]) -> None:
    assert_shows(make, write(to_image(SCENE), "webp", **options), SCENE)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("value_range", ["full", "limited"])
def test_avif(make: Make, subsampling: str, value_range: str) -> None:
    content = write(to_image(SCENE), "avif", subsampling=subsampling, range=value_range)
    assert_shows(make, content, SCENE)


def test_avif_without_colours(make: Make) -> None:
    assert_shows(make, write(to_image(GREY), "avif", subsampling="4:0:0"), GREY)


@pytest.mark.parametrize("image_format", TRUE_COLOUR)
def test_photographs(make: Make, image_format: str) -> None:
    content = write(to_image(large()), image_format)
    assert_alike(make(content, boxes(180)).pixels(180), resize(large(), 180, 120))


@pytest.mark.parametrize(
    "write_png", [png_of, partial(png_of, depth=16), interlaced_png], ids=["8 bits", "16 bits", "interlaced"]
)
def test_large_png(make: Make, write_png: Callable[[Pixels], bytes]) -> None:
    assert_alike(make(write_png(large()), boxes(180)).pixels(180), resize(large(), 180, 120))


@pytest.mark.parametrize("depth", [8, 16])
def test_large_grey_png(make: Make, depth: int) -> None:
    grey = large()[..., 1]
    found, expected = make(png_of(grey, depth=depth), boxes(180)).pixels(180), np.stack((grey,) * 3, axis=-1)
    assert_alike(found, resize(expected, 180, 120))


@pytest.mark.parametrize("depth", [8, 16])
def test_large_png_with_alpha(make: Make, depth: int) -> None:
    picture = with_alpha(large(), large()[..., 0])
    for content, expected in (
        (png_of(picture, depth=depth), picture),
        (png_of(picture[..., 2:], depth=depth), coloured(large()[..., 2], large()[..., 0])),
    ):
        found, wanted = make(content, boxes(180)).pixels_with_alpha(180), resize_visible(expected, 180, 120)
        assert_alike(found[..., 3], wanted[..., 3])
        assert_alike(over(found, 1), over(wanted, 1))
