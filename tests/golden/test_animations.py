"""Of animations, the first frame is rendered: at its position on the canvas, without any other frame."""

import numpy as np
import pytest
from PIL import Image

from tests.golden.comparison import Tolerance, assert_alike
from tests.golden.files import gif_animation, gif_frame, png_animation, webp_animation, webp_frame, write
from tests.golden.pictures import quantised, scene, to_image
from tests.golden.reference import Indices, Pixels, over, resize, resize_visible
from tests.golden.rendering import Make, Rendered, boxes

WIDTH, HEIGHT = 180, 120
CANVAS = (WIDTH, HEIGHT)
FIRST = scene(WIDTH, HEIGHT)
BOX = 90
SHOWN = (90, 60)
LIME = Image.new("RGB", CANVAS, (0, 255, 0))
RED = Image.new("RGB", CANVAS, (255, 0, 0))
FINE = Tolerance(mean=2.5, psnr=37, ssim=0.975)
ROUGH = Tolerance(mean=3, psnr=30, ssim=0.93)
"""For pictures of few colours with hard edges."""

PALETTE = np.array(((70, 50, 60), (150, 140, 120), (240, 230, 215), (40, 200, 90)))
INDICES = ((np.mgrid[:60, :100][0] // 20 + np.mgrid[:60, :100][1] // 25) % 3).astype(np.uint8)
"""A checkerboard of three shades, smaller than the canvas."""
EVERYWHERE = np.full((HEIGHT, WIDTH), 3, dtype=np.uint8)
OTHERS = (
    gif_frame(EVERYWHERE, (0, 0), disposal=1),
    gif_frame(INDICES[::-1], (10, 10), disposal=2),
    gif_frame(INDICES, (70, 50), transparent=2, disposal=3),
)


def assert_first(made: Rendered, expected: Pixels, tolerance: Tolerance = FINE) -> None:
    assert (made.rendering.width, made.rendering.height) == (expected.shape[1], expected.shape[0])
    assert getattr(made.image(BOX), "n_frames", 1) == 1
    if expected.shape[2] == 3:
        assert_alike(made.pixels(BOX), resize(expected, *SHOWN), tolerance)
        return
    found, wanted = made.pixels_with_alpha(BOX), resize_visible(expected, *SHOWN)
    assert_alike(found[..., 3], wanted[..., 3], tolerance)
    for background in (0, 1):
        assert_alike(over(found, background), over(wanted, background), tolerance)


def placed(pixels: Pixels, at: tuple[int, int]) -> Pixels:
    """Return the picture on a transparent canvas."""
    canvas = np.zeros((HEIGHT, WIDTH, 4))
    left, top = at
    opaque = np.ones((*pixels.shape[:2], 1)) if pixels.shape[2] == 3 else pixels[..., 3:]
    height, width = pixels.shape[:2]
    canvas[top : top + height, left : left + width] = np.concatenate((pixels[..., :3], opaque), axis=2)
    return canvas


def test_png(make: Make) -> None:
    assert_first(make(png_animation([to_image(FIRST), LIME, RED]), boxes(BOX)), FIRST)


def test_apng_with_separate_default_image(make: Make) -> None:
    assert_first(make(png_animation([LIME, RED], default=to_image(FIRST)), boxes(BOX)), FIRST)


def test_png_with_alpha(make: Make) -> None:
    first = np.concatenate((FIRST, np.tile(np.linspace(0.1, 1, WIDTH), (HEIGHT, 1))[..., None]), axis=2)
    first = quantised(first)
    frames = [to_image(first), LIME.convert("RGBA"), RED.convert("RGBA")]
    assert_first(make(png_animation(frames), boxes(BOX)), first)


def test_gif(make: Make) -> None:
    content = gif_animation(CANVAS, palette(), gif_frame(EVERYWHERE - 1, (0, 0), disposal=2), *OTHERS)
    assert_first(make(content, boxes(BOX)), colours(EVERYWHERE - 1))


def test_gif_by_another_encoder(make: Make) -> None:
    first = to_image(FIRST).quantize(64, dither=Image.Dither.NONE)
    content = write(first, "gif", save_all=True, append_images=[LIME, RED], disposal=2, duration=50)
    expected = np.asarray(first.convert("RGB"), dtype=np.float64) / 255
    assert_first(make(content, boxes(BOX)), expected, ROUGH)


@pytest.mark.parametrize("disposal", range(4))
def test_gif_with_first_frame_smaller_than_canvas(make: Make, disposal: int) -> None:
    content = gif_animation(CANVAS, palette(), gif_frame(INDICES, (40, 30), disposal=disposal), *OTHERS)
    assert_first(make(content, boxes(BOX)), placed(colours(INDICES), (40, 30)), ROUGH)


def test_gif_with_transparent_first_frame_smaller_than_canvas(make: Make) -> None:
    content = gif_animation(CANVAS, palette(), gif_frame(INDICES, (40, 30), transparent=1), *OTHERS)
    expected = np.concatenate((colours(INDICES), (INDICES != 1)[..., None]), axis=2)
    assert_first(make(content, boxes(BOX)), placed(expected, (40, 30)), ROUGH)


def test_gif_with_transparent_first_frame(make: Make) -> None:
    board = np.tile(INDICES, (2, 2))[:, :WIDTH]
    content = gif_animation(CANVAS, palette(), gif_frame(board, (0, 0), transparent=2, disposal=2), *OTHERS)
    expected = np.concatenate((colours(board), (board != 2)[..., None]), axis=2)
    assert_first(make(content, boxes(BOX)), expected, ROUGH)


def test_gif_with_invisible_first_frame(make: Make) -> None:
    content = gif_animation(CANVAS, palette(), gif_frame(EVERYWHERE, (0, 0), transparent=3), *OTHERS)
    found = make(content, boxes(BOX)).pixels_with_alpha(BOX)
    assert found.shape == (60, 90, 4)
    assert found[..., 3].max() == 0


def test_webp(make: Make) -> None:
    content = write(to_image(FIRST), "webp", save_all=True, append_images=[LIME, RED], duration=50)
    assert_first(make(content, boxes(BOX)), FIRST)


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 98}], ids=["lossless", "lossy"])
def test_webp_with_first_frame_smaller_than_canvas(make: Make, options: dict[str, int]) -> None:
    picture = scene(100, 60)
    frames = (webp_frame(to_image(picture), (40, 30), **options), webp_frame(LIME, (0, 0)))
    assert_first(make(webp_animation(CANVAS, *frames), boxes(BOX)), placed(picture, (40, 30)), ROUGH)


@pytest.mark.parametrize("options", [{"lossless": True, "exact": True}, {"quality": 98}], ids=["lossless", "lossy"])
def test_webp_with_transparent_first_frame_smaller_than_canvas(make: Make, options: dict[str, int]) -> None:
    picture = quantised(np.concatenate((scene(100, 60), np.tile(np.linspace(0, 1, 100), (60, 1))[..., None]), axis=2))
    frames = (webp_frame(to_image(picture), (40, 30), **options), webp_frame(LIME, (0, 0)))
    assert_first(make(webp_animation(CANVAS, *frames), boxes(BOX)), placed(picture, (40, 30)), ROUGH)


def test_avif(make: Make) -> None:
    content = write(to_image(FIRST), "avif", save_all=True, append_images=[LIME, RED], duration=50)
    assert_first(make(content, boxes(BOX)), FIRST)


def test_avif_with_alpha(make: Make) -> None:
    first = quantised(np.concatenate((FIRST, np.tile(np.linspace(0.1, 1, WIDTH), (HEIGHT, 1))[..., None]), axis=2))
    others = [LIME.convert("RGBA"), RED.convert("RGBA")]
    content = write(to_image(first), "avif", save_all=True, append_images=others, duration=50)
    assert_first(make(content, boxes(BOX)), first)


def palette() -> bytes:
    return PALETTE.astype(np.uint8).tobytes()


def colours(indices: Indices) -> Pixels:
    return np.asarray(PALETTE[indices] / 255)
