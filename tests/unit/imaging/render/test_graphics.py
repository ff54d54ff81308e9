"""Graphics are distinguished from photographs, and stay crisp."""

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter, JpegImagePlugin

from harness.graphics import GRAPHICS
from harness.images import encoded, gradient, noise
from image_service.domain.geometry import fit_inside
from image_service.domain.image import ImageFormat
from image_service.domain.recipe import DEFAULT_RECIPE, Effort, OutputFormat, Preset, Recipe
from image_service.imaging.render import encoding
from image_service.imaging.render.encoding import Encoded, encode
from image_service.imaging.render.graphics import is_graphic
from tests.unit.imaging.render.rendered import Make

LARGE = DEFAULT_RECIPE.outputs[-1]
FULL_COLOUR = 0
"""Pillow's number for 4:4:4."""
ORANGE_ON_BLUE = ((13, 71, 161), (229, 57, 53))


def thumbnail(image: Image.Image, side: int = 1200) -> Image.Image:
    return image.resize(fit_inside(*image.size, side, side), Image.Resampling.LANCZOS)


def opened(made: Encoded) -> Image.Image:
    image = Image.open(io.BytesIO(made.content))
    image.load()
    return image


def pixels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image.convert("RGB")).astype(np.int64)


def clouds(width: int, height: int, *, grain: float = 2.0) -> Image.Image:
    """Return a picture with detail of all sizes and a sensor's noise, as photographs have them."""
    random, total = np.random.default_rng(1), np.zeros((height, width, 3))
    for octave in range(7):
        cells = random.normal(0, 1, (3 << octave, 4 << octave, 3))
        planes = [Image.fromarray(cells[..., at].astype(np.float32)) for at in range(3)]
        layer = [np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC)) for plane in planes]
        total += np.stack(layer, axis=-1) * 60 / 1.7**octave
    total += 128 + random.normal(0, grain, total.shape)
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))


def on_white(image: Image.Image) -> Image.Image:
    """Return the picture in the middle of a white one, as goods are shown."""
    around = Image.new("RGB", (image.width * 2, image.height * 2), "white")
    around.paste(image, (image.width // 2, image.height // 2))
    return around


def captioned(image: Image.Image) -> Image.Image:
    text = GRAPHICS["terminal"]().crop((0, 0, image.width, 40))
    image.paste(text, (0, image.height - 40))
    return image


PHOTOGRAPHS: dict[str, Callable[[], Image.Image]] = {
    "with grain": lambda: clouds(1200, 900),
    "without grain": lambda: clouds(1200, 900, grain=0),
    "noisy": lambda: clouds(1200, 900, grain=25),
    "small": lambda: clouds(100, 75),
    "blurred": lambda: clouds(1200, 900).filter(ImageFilter.GaussianBlur(8)),
    "grey": lambda: clouds(1200, 900).convert("L"),
    "half white": lambda: clouds(1200, 900).point(lambda value: min(255, 2 * value)),
    "half black": lambda: clouds(1200, 900).point(lambda value: max(0, 2 * value - 255)),
    "on white": lambda: on_white(clouds(600, 450)),
    "from a JPEG": lambda: Image.open(io.BytesIO(encoded(clouds(1200, 900), "JPEG", quality=60))),
    "with a caption": lambda: captioned(clouds(1200, 900)),
    "of a palette": lambda: clouds(1200, 900).quantize(256).convert("RGB"),
    "slow gradient": lambda: gradient(1200, 900),
    "plain": lambda: Image.new("RGB", (1200, 900), (200, 210, 220)),
    "noise": lambda: noise(600, 400),
}


@pytest.mark.parametrize("name", GRAPHICS)
def test_recognises_graphics(name: str) -> None:
    image = thumbnail(GRAPHICS[name]())
    assert is_graphic(image)
    assert is_graphic(image.convert("L"))


@pytest.mark.parametrize("name", ["web page", "terminal", "flow chart"])
def test_recognises_graphics_from_good_jpeg_files(name: str) -> None:
    first = Image.open(io.BytesIO(encoded(GRAPHICS[name](), "JPEG", quality=95, subsampling=0)))
    assert is_graphic(thumbnail(first))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_does_not_take_photographs_for_graphics(name: str) -> None:
    assert not is_graphic(PHOTOGRAPHS[name]())


def test_does_not_take_a_cut_out_photograph_for_a_graphic() -> None:
    image = clouds(600, 450)
    image.putalpha(Image.new("L", image.size, 0))
    image.paste(clouds(300, 225), (150, 100))
    assert not is_graphic(image)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (32, 32), (1, 5000)])
def test_very_small_pictures_count_as_graphics(size: tuple[int, int]) -> None:
    assert is_graphic(noise(*size))


@pytest.mark.parametrize("size", [(5000, 1), (2, 5000), (33, 33), (1025, 2)])
def test_larger_pictures_are_looked_at_whatever_their_shape(size: tuple[int, int]) -> None:
    assert not is_graphic(noise(*size))


@pytest.mark.parametrize("period", range(30, 90, 7))
def test_finds_edges_at_any_distance(period: int) -> None:
    # Level lines at equal distances would see all of the rows of text, or none.
    image = Image.new("RGB", (1200, 900), "white")
    for top in range(period // 2, 900, period):
        image.paste(GRAPHICS["terminal"]().crop((0, 0, 1000, 12)), (100, top))
    assert is_graphic(image)


def test_photographs_are_encoded_as_before(make: Make) -> None:
    picture = clouds(600, 450)
    made = make(encoded(picture, "PNG"), DEFAULT_RECIPE)
    (large,) = (each for each in made.rendering.thumbnails if each.output == LARGE.name)
    assert large.path.read_bytes() == encoded(picture, "JPEG", quality=82)


@pytest.mark.parametrize("graphic", [True, False])
@pytest.mark.parametrize("wanted", [each for each in OutputFormat if each is not OutputFormat.AUTO])
def test_explicit_formats_do_not_depend_on_content(wanted: OutputFormat, *, graphic: bool) -> None:
    image, preset = thumbnail(GRAPHICS["wordmark"](), 200), replace(LARGE, format=wanted)
    assert encode(image, preset, graphic=graphic) == encode(image, preset)


def test_a_tiny_picture_is_exact(make: Make) -> None:
    picture = Image.new("RGB", (2, 3), "#ff0080")
    picture.putpixel((1, 2), (3, 200, 77))
    made = make(encoded(picture, "PNG"), DEFAULT_RECIPE)
    for preset in DEFAULT_RECIPE.presets:
        assert made[preset.name].convert("RGB").tobytes() == picture.tobytes()


@pytest.mark.parametrize("name", ["terminal", "bar chart", "wordmark", "pixel art", "street map", "bar code"])
def test_graphics_of_few_colours_lose_nothing_and_are_smaller(make: Make, name: str) -> None:
    picture = GRAPHICS[name]()
    made = make(encoded(picture, "PNG"), DEFAULT_RECIPE)
    (large,) = (each for each in made.rendering.thumbnails if each.output == LARGE.name)
    assert large.content_type == "image/webp"
    assert made[LARGE.name].convert("RGB").tobytes() == thumbnail(picture).convert("RGB").tobytes()
    assert large.size_bytes < len(encoded(picture, "JPEG", quality=82))


def test_colours_keep_their_edges_in_jpeg_too() -> None:
    # Stripes one pixel wide, of as many colours as a photograph has: each has its own luma and chroma.
    image = clouds(400, 300)
    blue, red = (Image.new("RGB", image.size, colour) for colour in ORANGE_ON_BLUE)
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (300, 200)))
    image = Image.blend(Image.composite(blue, red, stripes), image, 0.1)
    made = encode(image.copy(), LARGE, graphic=True)
    assert made.format is ImageFormat.JPEG
    smeared = encode(image.copy(), LARGE)
    kept, lost = (np.abs(pixels(opened(each)) - pixels(image)).mean() for each in (made, smeared))
    assert kept < 8
    assert lost > 30


def test_takes_the_smaller_file_of_lossless_webp_and_jpeg() -> None:
    noisy = noise(100, 100).quantize(64).convert("RGB")
    made = encode(noisy.copy(), LARGE, graphic=True)
    lossless = encoded(noisy, "WEBP", lossless=True, method=1, quality=20)
    jpeg = encoded(noisy, "JPEG", quality=82, subsampling=0)
    assert bytes(made.content) == min(lossless, jpeg, key=len)
    exact = encode(noisy.copy(), replace(LARGE, quality=100), graphic=True)
    assert bytes(exact.content) == lossless


def test_does_not_try_to_encode_many_colours_without_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    image, tried = clouds(300, 200), []
    save = encoding._save

    def recorded(*arguments: object) -> Encoded:
        tried.append(arguments[1])
        return save(*arguments)  # type: ignore[arg-type]  # the same ones

    monkeypatch.setattr(encoding, "_save", recorded)
    encode(image, LARGE, graphic=True)
    encode(image.quantize(200).convert("RGB"), LARGE, graphic=True)
    assert tried == [ImageFormat.JPEG, ImageFormat.JPEG, ImageFormat.WEBP]


def test_transparent_graphics_lose_nothing_where_that_is_smaller(make: Make) -> None:
    letters = GRAPHICS["wordmark"]().convert("RGBA")
    letters.putalpha(letters.getchannel("R").point(lambda value: 255 if value > 100 else 0))
    made = make(encoded(letters, "PNG"), DEFAULT_RECIPE)
    (large,) = (each for each in made.rendering.thumbnails if each.output == LARGE.name)
    assert b"VP8L" in large.path.read_bytes()[:32]
    assert made[LARGE.name].getchannel("A").tobytes() == letters.getchannel("A").tobytes()
    visible = np.asarray(letters)[..., 3] > 0
    assert np.array_equal(pixels(made[LARGE.name])[visible], pixels(letters)[visible])


@pytest.mark.parametrize(("effort", "options"), [(Effort.FAST, (1, 20)), (Effort.SMALL, (4, 75))])
def test_effort_applies_to_lossless_files(effort: Effort, options: tuple[int, int]) -> None:
    image, preset = GRAPHICS["bar code"](), replace(LARGE, effort=effort)
    expected = encoded(image, "WEBP", lossless=True, method=options[0], quality=options[1])
    assert bytes(encode(image.copy(), preset, graphic=True).content) == expected


def test_the_kind_is_that_of_the_largest_thumbnail(make: Make) -> None:
    # At 100 pixels, no edge of the screenshot is sharp any more.
    picture = GRAPHICS["web page"]()
    assert not is_graphic(thumbnail(picture, 100))
    made = make(encoded(picture, "PNG"), DEFAULT_RECIPE)
    (small,) = (each for each in made.rendering.thumbnails if each.output == "100x100")
    assert small.content_type == "image/jpeg"
    with Image.open(small.path) as image:
        assert JpegImagePlugin.get_sampling(image) == FULL_COLOUR
    assert JpegImagePlugin.get_sampling(opened(encode(thumbnail(picture, 100), LARGE))) != FULL_COLOUR


def test_nothing_is_looked_at_where_no_format_is_left_open(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Image.Image) -> bool:
        raise AssertionError

    monkeypatch.setattr("image_service.imaging.render.pipeline.is_graphic", fail)
    picture = encoded(noise(90, 60), "PNG")
    recipe = Recipe(presets=(Preset(name="box", width=50, height=50, formats=(OutputFormat.JPEG,)),))
    assert make(picture, recipe)["box"].size == (50, 33)
    with pytest.raises(AssertionError):
        make(picture, DEFAULT_RECIPE)
