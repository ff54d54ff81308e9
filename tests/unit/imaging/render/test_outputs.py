"""What a recipe can request: formats, effort, and optional outputs with limited time."""

import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from harness.images import display_p3, encoded, gradient, jpeg_segment, noise, oriented
from harness.pace import Stopwatch
from image_service.domain.image import ImageFormat, MetadataKind, RenderedThumbnail, Rendering
from image_service.domain.recipe import DEFAULT_RECIPE, Effort, Output, OutputFormat, Preset, Recipe
from image_service.imaging.decoders.jxl import JpegXl
from image_service.imaging.formats import find_metadata
from image_service.imaging.limits import RenderLimits
from image_service.imaging.render import encoding
from image_service.imaging.render.pipeline import render

OPAQUE = encoded(gradient(200, 150), "PNG")
PICTURE = Image.new("RGBA", (200, 150), (0, 0, 255, 0))
PICTURE.paste((255, 0, 0, 255), (100, 0, 200, 150))
TRANSPARENT = encoded(PICTURE, "PNG")
BOX = Output(preset="box", format=OutputFormat.AUTO, width=100, height=100)
EXTRA = Output(preset="extra", format=OutputFormat.AVIF, width=150, height=150, optional=True)

Make = Callable[..., Rendering]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(content: bytes, *outputs: Output, **options: float) -> Rendering:
        (tmp_path / "source").write_bytes(content)
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        return render(tmp_path / "source", Recipe.of(outputs), out, RenderLimits(**options))  # type: ignore[arg-type]

    return make


def opened(thumbnail: RenderedThumbnail) -> Image.Image:
    jxl = thumbnail.content_type == ImageFormat.JXL.content_type
    file = io.BytesIO(thumbnail.path.read_bytes())
    image = JpegXl(file) if jxl else Image.open(file)
    image.load()
    assert jxl or image.get_format_mimetype() == thumbnail.content_type
    assert image.size == (thumbnail.width, thumbnail.height)
    return image


@pytest.mark.parametrize(
    ("wanted", "opaque", "transparent"),
    [
        (OutputFormat.AUTO, "JPEG", "WEBP"),
        (OutputFormat.JPEG, "JPEG", "JPEG"),
        (OutputFormat.PNG, "PNG", "PNG"),
        (OutputFormat.WEBP, "WEBP", "WEBP"),
        (OutputFormat.AVIF, "AVIF", "AVIF"),
        (OutputFormat.JXL, "JXL", "JXL"),
        (OutputFormat.GIF, "GIF", "GIF"),
    ],
)
def test_writes_the_requested_format(make: Make, wanted: OutputFormat, opaque: str, transparent: str) -> None:
    for content, expected in ((OPAQUE, opaque), (TRANSPARENT, transparent), (encoded(noise(90, 60), "PNG"), opaque)):
        (made,) = make(content, replace(BOX, format=wanted)).thumbnails
        assert opened(made).format == expected


@pytest.mark.parametrize(
    "wanted", [OutputFormat.PNG, OutputFormat.WEBP, OutputFormat.AVIF, OutputFormat.JXL, OutputFormat.GIF]
)
def test_keeps_transparency_where_the_format_can(make: Make, wanted: OutputFormat) -> None:
    (made,) = make(TRANSPARENT, replace(BOX, format=wanted)).thumbnails
    alpha = opened(made).convert("RGBA").getchannel("A")
    assert (alpha.getpixel((10, 40)), alpha.getpixel((90, 40))) == (0, 255)


@pytest.mark.parametrize(("background", "expected"), [(None, (255, 255, 255)), ("#10a0f0", (16, 160, 240))])
def test_background_in_format_without_transparency(
    make: Make, background: str | None, expected: tuple[int, ...]
) -> None:
    output = replace(BOX, format=OutputFormat.JPEG, quality=95)
    (made,) = make(TRANSPARENT, replace(output, background=background) if background else output).thumbnails
    left, right = (opened(made).getpixel((x, 40)) for x in (10, 90))
    assert left == pytest.approx(expected, abs=5)
    assert right == pytest.approx((255, 0, 0), abs=8)


@pytest.mark.parametrize("wanted", OutputFormat)
def test_grey_picture_is_encoded_in_every_format(make: Make, wanted: OutputFormat) -> None:
    (made,) = make(encoded(Image.new("L", (50, 50), 128), "PNG"), replace(BOX, format=wanted)).thumbnails
    assert opened(made).convert("RGB").getpixel((20, 20)) == pytest.approx((128, 128, 128), abs=3)


def test_png_output_is_lossless(make: Make) -> None:
    (made,) = make(encoded(noise(90, 60), "PNG"), replace(BOX, format=OutputFormat.PNG)).thumbnails
    assert opened(made).convert("RGB").tobytes() == noise_as_stored(made)


def noise_as_stored(made: RenderedThumbnail) -> bytes:
    """Return the pixels of the source beside the folder of thumbnails."""
    with Image.open(made.path.parent.parent / "source") as source:
        return source.convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("wanted", "effort", "options"),
    [
        (OutputFormat.AUTO, Effort.SMALL, {"format": "JPEG"}),
        (OutputFormat.WEBP, Effort.FAST, {"format": "WEBP", "method": 2}),
        (OutputFormat.WEBP, Effort.SMALL, {"format": "WEBP", "method": 4}),
        (OutputFormat.AVIF, Effort.FAST, {"format": "AVIF", "speed": 10}),
        (OutputFormat.AVIF, Effort.SMALL, {"format": "AVIF", "speed": 8}),
    ],
)
def test_passes_effort_to_the_encoder(wanted: OutputFormat, effort: Effort, options: dict[str, object]) -> None:
    picture, data = gradient(300, 200), io.BytesIO()
    picture.save(data, **options, quality=70)  # type: ignore[arg-type]  # a format and its encoder's options
    output = replace(BOX, format=wanted, effort=effort, quality=70)
    assert bytes(encoding.encode(picture.copy(), output).content) == data.getvalue()


def test_default_outputs_are_unchanged() -> None:
    picture, translucent = gradient(300, 200), gradient(300, 200)
    translucent.putalpha(100)
    for image, options in ((picture, {"format": "JPEG"}), (translucent, {"format": "WEBP", "method": 2})):
        data = io.BytesIO()
        image.save(data, **options, quality=82)
        made = [encoding.encode(image.copy(), output) for output in DEFAULT_RECIPE.outputs]
        assert [bytes(each.content) for each in made] == [data.getvalue()] * 3
        assert {each.format.value.upper() for each in made} == {options["format"]}


def with_all_metadata() -> bytes:
    """Return a photograph with all kinds of metadata."""
    picture = gradient(200, 150)
    content = encoded(
        picture, "JPEG", exif=oriented(picture, 1), xmp=b"GPSLatitude", icc_profile=display_p3(), comment=b"hello"
    )
    others = ((0xED, b"Photoshop 3.0\x008BIM\x04\x04"), (0xE0, b"JFXX\0\x10"))
    return content[:2] + b"".join(jpeg_segment(*each) for each in others) + content[2:]


@pytest.mark.parametrize("wanted", OutputFormat)
@pytest.mark.parametrize("optional", [False, True])
def test_no_output_carries_metadata(make: Make, wanted: OutputFormat, *, optional: bool) -> None:
    rendering = make(with_all_metadata(), BOX, replace(EXTRA, format=wanted, optional=optional))
    assert set(rendering.traits.metadata_removed) == set(MetadataKind) - {MetadataKind.TEXT}
    for made in rendering.thumbnails:
        image = opened(made)
        assert find_metadata(made.path.read_bytes(), ImageFormat.of(made.content_type)) == ()
        assert not image.getexif()
        assert not {"exif", "xmp", "comment", "icc_profile", "photoshop"} & set(image.info)


def test_traits_describe_smallest_thumbnail(make: Make) -> None:
    content = encoded(Image.new("RGB", (500, 300), "#0000ff"), "PNG")
    large, small = replace(BOX, preset="large", width=400, height=400), BOX
    traits = make(content, large, small).traits
    assert traits == make(content, small).traits
    assert traits.dominant_colour == "#0000ff"


def test_optional_outputs_run_last_and_change_no_other(make: Make) -> None:
    alone = make(OPAQUE, *DEFAULT_RECIPE.outputs)
    beside = make(OPAQUE, EXTRA, *DEFAULT_RECIPE.outputs)
    assert [each.output for each in beside.thumbnails] == ["extra", "100x100", "300x300", "1200x1200"]
    assert beside.thumbnails[1:] == alone.thumbnails
    assert [name for name, _ in beside.timings][-2:] == ["encode extra", "placeholder"]


def test_optional_output_is_left_out_when_no_time_is_left(make: Make) -> None:
    rendering = make(OPAQUE, EXTRA, BOX, wall_seconds=0)
    assert [each.output for each in rendering.thumbnails] == ["box"]


def test_optional_output_is_left_out_when_it_takes_too_long(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(image: Image.Image, output: Output, *, graphic: bool) -> encoding.Encoded:
        if output.optional:
            time.sleep(1)
        return encoding.encode(image, output, graphic=graphic)

    monkeypatch.setattr("image_service.imaging.render.outputs.encode", slowly)
    watch = Stopwatch()
    rendering = make(OPAQUE, EXTRA, BOX, wall_seconds=0.4)
    assert watch.seconds < 0.9
    assert [each.output for each in rendering.thumbnails] == ["box"]
    assert not (rendering.thumbnails[0].path.parent / "extra").exists()


@pytest.mark.parametrize("failure", [OSError("no encoder"), MemoryError(), ValueError()], ids=repr)
def test_optional_output_is_left_out_when_it_fails(
    make: Make, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(image: Image.Image, output: Output, *, graphic: bool) -> encoding.Encoded:
        if output.format is OutputFormat.AVIF:
            raise failure
        return encoding.encode(image, output, graphic=graphic)

    monkeypatch.setattr("image_service.imaging.render.outputs.encode", fail)
    assert [each.output for each in make(OPAQUE, EXTRA, BOX).thumbnails] == ["box"]
    with pytest.raises(type(failure)):
        make(OPAQUE, replace(EXTRA, optional=False), BOX)


FORMATS = (OutputFormat.AUTO, OutputFormat.PNG, OutputFormat.WEBP, OutputFormat.AVIF)
SCENE = encoded(gradient(600, 450), "PNG")


def recipe_of(**fields: object) -> Recipe:
    return Recipe(presets=(Preset(**{"name": "hero", "width": 300, "height": 300, "formats": FORMATS} | fields),))  # type: ignore[arg-type]


def names(rendering: Rendering) -> list[str]:
    return [each.output for each in rendering.thumbnails]


def test_variants_that_are_no_smaller_are_left_out(make: Make) -> None:
    rendering = make(encoded(noise(300, 300), "PNG"), *recipe_of().outputs)
    sizes = {each.output: each.size_bytes for each in rendering.thumbnails}
    # Noise takes more bytes without loss.
    assert "hero.png" in rendering.left_out
    assert set(sizes) | set(rendering.left_out) == {each.name for each in recipe_of().outputs}
    assert max(sizes.values()) == sizes["hero"]
    assert not (rendering.thumbnails[0].path.parent / "hero.png").exists()


def test_variant_of_the_same_format_as_the_default_is_left_out(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def noted(image: Image.Image, output: Output, *, graphic: bool) -> encoding.Encoded:
        written.append(output.name)
        return encoding.encode(image, output, graphic=graphic)

    monkeypatch.setattr("image_service.imaging.render.outputs.encode", noted)
    outputs = recipe_of(formats=(OutputFormat.AUTO, OutputFormat.WEBP), quality=((OutputFormat.WEBP, 5),)).outputs
    assert make(TRANSPARENT, *outputs).left_out == ("hero.webp",)
    assert written == ["hero"]
    assert make(SCENE, *outputs).left_out == ()


def test_densities_that_the_original_is_too_small_for_are_left_out(make: Make) -> None:
    outputs = recipe_of(dpr=(1, 2, 3), formats=(OutputFormat.JPEG, OutputFormat.AVIF)).outputs
    rendering = make(SCENE, *outputs)
    assert names(rendering)[0] == "hero"
    assert "hero@2x" in names(rendering)
    assert rendering.left_out[-2:] == ("hero@3x", "hero@3x.avif")
    small = make(encoded(gradient(200, 150), "PNG"), *outputs)
    assert set(small.left_out) >= {"hero@2x", "hero@2x.avif", "hero@3x", "hero@3x.avif"}


def test_variants_alone_are_all_made(make: Make) -> None:
    variants = [each for each in recipe_of().outputs if not each.default]
    rendering = make(encoded(noise(300, 300), "PNG"), *variants)
    assert names(rendering) == ["hero.png", "hero.webp", "hero.avif"]
    assert rendering.left_out == ()


def test_variants_of_a_default_that_cannot_be_made_are_not_compared(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(image: Image.Image, output: Output, *, graphic: bool) -> encoding.Encoded:
        if output.default:
            raise ValueError
        return encoding.encode(image, output, graphic=graphic)

    monkeypatch.setattr("image_service.imaging.render.outputs.encode", fail)
    rendering = make(SCENE, *recipe_of(optional=True).outputs)
    assert names(rendering) == ["hero.png", "hero.webp", "hero.avif"]
    assert rendering.left_out == ("hero",)


def test_optional_output_is_left_out_when_its_picture_fails(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image) -> Image.Image:
        raise MemoryError(image.size)

    monkeypatch.setattr("image_service.imaging.render.sharpening.sharpen", fail)
    rendering = make(OPAQUE, BOX, replace(EXTRA, sharpen=True))
    assert (names(rendering), rendering.left_out) == (["box"], ("extra",))
    with pytest.raises(MemoryError):
        make(OPAQUE, replace(BOX, sharpen=True))


@pytest.mark.parametrize(("others", "made"), [((BOX,), ["box"]), ((), ["extra"])], ids=["with others", "alone"])
def test_optional_output_alone_may_take_longer(
    make: Make, monkeypatch: pytest.MonkeyPatch, others: tuple[Output, ...], made: list[str]
) -> None:
    monkeypatch.setattr("image_service.imaging.render.outputs._OPTIONAL_SECONDS", 0)
    rendering = make(OPAQUE, *others, EXTRA)
    assert names(rendering) == made


def test_optional_output_leaves_processor_time_to_end_the_job(make: Make) -> None:
    assert make(OPAQUE, BOX, EXTRA, cpu_seconds=0).left_out == ("extra",)


def test_reports_time_of_each_step(make: Make) -> None:
    timings = dict(make(OPAQUE, BOX).timings)
    assert {"inspect", "find_metadata", "decode", "shrink", "placeholder", "encode box"} <= timings.keys()
    assert all(seconds >= 0 for seconds in timings.values())


@pytest.mark.parametrize(("available", "error"), [(False, MemoryError), (True, ValueError)])
def test_encoder_that_lacks_memory_is_no_crash(
    make: Make, monkeypatch: pytest.MonkeyPatch, error: type[Exception], *, available: bool
) -> None:
    def fail(image: Image.Image, output: Output, *, graphic: bool) -> encoding.Encoded:
        raise ValueError(image.size, output.name, graphic)

    monkeypatch.setattr("image_service.imaging.render.outputs.encode", fail)
    monkeypatch.setattr("image_service.imaging.render.outputs.is_available", lambda size: available and size > 0)
    with pytest.raises(error):
        make(OPAQUE, BOX)
