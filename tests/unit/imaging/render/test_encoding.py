"""Pictures are encoded in each format with its options, defaults of quality and background."""

import io
import math
from dataclasses import replace

import pytest
from PIL import Image, ImageChops, ImageStat

from harness.images import gradient, noise
from image_service.domain.recipe import DEFAULT_QUALITY, Effort, Output, OutputFormat, Preset, Recipe
from image_service.imaging.decoders.jxl import JpegXl
from image_service.imaging.encoders import libjxl
from image_service.imaging.formats import read_dimensions
from image_service.imaging.formats.magic import identify
from image_service.imaging.render.encoding import Encoded, encode, prepare

OUTPUT = Output(preset="box", format=OutputFormat.JXL, width=100, height=100)
TRANSLUCENT = Image.new("RGBA", (64, 64), (255, 0, 0, 128))
EXPLICIT = [each for each in OutputFormat if each is not OutputFormat.AUTO]


def opened(made: Encoded) -> Image.Image:
    file = io.BytesIO(made.content)
    image = JpegXl(file) if made.format.value == "jxl" else Image.open(file)
    image.load()
    return image


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("wanted", EXPLICIT)
def test_every_file_has_the_format_and_size_that_a_parent_checks(wanted: OutputFormat, mode: str) -> None:
    made = encode(gradient(70, 50).convert(mode), replace(OUTPUT, format=wanted))
    content = bytes(made.content)
    assert made.format.value == wanted.value
    assert identify(content) is made.format
    assert read_dimensions(content, made.format) == (70, 50)


@pytest.mark.parametrize(("effort", "number"), [(Effort.FAST, 3), (Effort.SMALL, 5)])
def test_passes_quality_and_effort_to_jpeg_xl(effort: Effort, number: int) -> None:
    made = encode(gradient(200, 150), replace(OUTPUT, quality=70, effort=effort))
    assert bytes(made.content) == bytes(libjxl.encode(gradient(200, 150), 70, number))


@pytest.mark.parametrize(("background", "expected"), [("#ffffff", (255, 127, 127)), ("#0000ff", (128, 0, 127))])
@pytest.mark.parametrize("wanted", [OutputFormat.JPEG, OutputFormat.GIF])
def test_background_shows_through_where_there_is_no_alpha(
    wanted: OutputFormat, background: str, expected: tuple[int, ...]
) -> None:
    made = encode(TRANSLUCENT.copy(), replace(OUTPUT, format=wanted, background=background, quality=95))
    assert opened(made).convert("RGB").getpixel((30, 30)) == pytest.approx(expected, abs=4)


@pytest.mark.parametrize("wanted", [OutputFormat.PNG, OutputFormat.WEBP, OutputFormat.AVIF, OutputFormat.JXL])
def test_background_changes_nothing_where_there_is(wanted: OutputFormat) -> None:
    white, blue = (
        encode(TRANSLUCENT.copy(), replace(OUTPUT, format=wanted, background=each)) for each in ("#ffffff", "#0000ff")
    )
    assert bytes(white.content) == bytes(blue.content)
    assert opened(white).getpixel((30, 30)) == pytest.approx((255, 0, 0, 128), abs=18)


def _picture() -> Image.Image:
    """Return smooth areas, edges and some grain, as photographs have them."""
    image = Image.blend(gradient(600, 450), noise(600, 450).reduce(3).resize((600, 450)), 0.6)
    for index in range(8):
        image.paste(gradient(60, 60).rotate(45 * index), (70 * index, 50 * index))
    return image


def _decibels(made: Encoded, picture: Image.Image) -> float:
    difference = ImageStat.Stat(ImageChops.difference(opened(made).convert("L"), picture.convert("L")))
    return 10 * math.log10(255**2 / (difference.rms[0] ** 2))


def test_default_qualities_look_alike() -> None:
    picture = _picture()
    decibels = {
        each: _decibels(encode(picture.copy(), replace(OUTPUT, format=each, quality=DEFAULT_QUALITY[each])), picture)
        for each in (OutputFormat.JPEG, OutputFormat.WEBP, OutputFormat.AVIF, OutputFormat.JXL)
    }
    jpeg = decibels.pop(OutputFormat.JPEG)
    assert all(abs(each - jpeg) < 5 for each in decibels.values()), (jpeg, decibels)


def test_default_quality_of_webp_is_another_for_transparent_images() -> None:
    automatic, explicit = Recipe(
        presets=(
            Preset(name="a", width=9, height=9),
            Preset(name="b", width=9, height=9, formats=(OutputFormat.WEBP,)),
        )
    ).outputs
    assert (automatic.quality, automatic.webp_quality) == (82, 82)
    assert explicit.quality == 78


def test_given_qualities_count_in_both() -> None:
    for quality in (40, ((OutputFormat.WEBP, 40),)):
        outputs = Recipe(
            presets=(Preset(name="a", width=9, height=9, formats=tuple(OutputFormat)[:4], quality=quality),)
        ).outputs
        automatic, webp = (each for each in outputs if each.format in {OutputFormat.AUTO, OutputFormat.WEBP})
        assert automatic.webp_quality == webp.quality == 40


def test_prepares_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr(libjxl, "load", lambda: loaded.append("libjxl"))
    prepare((OutputFormat.AUTO, OutputFormat.AVIF))
    assert not loaded
    prepare((OutputFormat.AUTO, OutputFormat.JXL))
    assert loaded == ["libjxl"]
