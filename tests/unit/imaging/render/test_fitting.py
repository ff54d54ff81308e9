"""Outputs of every fit: what is cut, added, sharpened and shared."""

import pytest
from PIL import Image, ImageChops, ImageDraw

from harness.images import encoded, gradient, noise
from image_service.domain.recipe import Animation, Fit, Gravity, OutputFormat, Preset, Recipe
from image_service.imaging.render import attention
from image_service.imaging.render.fitting import Pictures
from tests.unit.imaging.render.rendered import Make, assert_alike, assert_close

PNG = (OutputFormat.PNG,)
BALL = Image.new("RGB", (900, 300), "#808890")
ImageDraw.Draw(BALL).ellipse((700, 80, 840, 220), fill="red", outline="white", width=9)


def only(**fields: object) -> Recipe:
    return Recipe(presets=(Preset(**{"name": "small", "width": 100, "height": 100, "formats": PNG} | fields),))  # type: ignore[arg-type]


def test_attention_keeps_the_part_with_the_most_detail(make: Make) -> None:
    made = make(encoded(BALL, "PNG"), only(fit=Fit.COVER, gravity=Gravity.ATTENTION))
    assert made.small.size == (100, 100)
    assert_close(made.small, (255, 0, 0), at=(50, 50), tolerance=20)
    left = make(encoded(BALL, "PNG"), only(fit=Fit.COVER, gravity=Gravity.WEST))
    assert_close(left.small, (0x80, 0x88, 0x90), at=(50, 50))


def test_attention_is_the_same_for_all_densities_and_beside_larger_outputs(make: Make) -> None:
    avatar = Preset(
        name="small", width=50, height=50, dpr=(1, 2, 3), fit=Fit.COVER, gravity=Gravity.ATTENTION, formats=PNG
    )
    large = Preset(name="large", width=800, height=800, formats=PNG)
    made = make(encoded(BALL, "PNG"), Recipe(presets=(avatar, large)))
    alone = make(encoded(BALL, "PNG"), Recipe(presets=(avatar,)))
    for name, side in (("small", 50), ("small@2x", 100), ("small@3x", 150)):
        assert made[name].size == (side, side)
        assert_alike(made[name].resize((50, 50)), made.small, tolerance=60)
        assert_alike(made[name].resize((25, 25)), alone[name].resize((25, 25)), tolerance=40)


def test_the_part_with_the_most_detail_is_looked_for_once_for_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, found = [], attention.focus

    def focus(image: Image.Image, width: float, height: float) -> tuple[float, float]:
        looked.append((image.size, width, height))
        return found(image, width, height)

    monkeypatch.setattr(attention, "focus", focus)
    recipe = Recipe(
        presets=tuple(
            Preset(name=f"{width}", width=width, height=50, dpr=(1, 2), fit=Fit.COVER, gravity=Gravity.ATTENTION)
            for width in (50, 100)
        )
    )
    pictures = Pictures(BALL, (1800, 600))
    for output in recipe.outputs:
        pictures.make(output)
    assert looked == [((900, 300), 300, 300), ((900, 300), 600, 300)]


def test_the_part_of_an_animation_is_that_of_the_still_picture() -> None:
    (output,) = only(fit=Fit.COVER, gravity=Gravity.ATTENTION, animation=Animation.KEEP).outputs
    pictures = Pictures(BALL, BALL.size)
    part = pictures.part(output)
    assert part
    left, upper, right, lower = part
    assert (upper, lower, right - left) == (0, 100, 100)
    assert 300 - right < 100 - 40
    scaled = BALL.resize((300, 100), Image.Resampling.LANCZOS).crop(part)
    assert_alike(pictures.make(output), scaled)
    assert pictures.part(only(fit=Fit.PAD).outputs[0]) is None
    assert pictures.part(only(fit=Fit.COVER, height=None).outputs[0]) is None


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_thin_picture_fills_any_box(make: Make, orientation: int) -> None:
    image = gradient(3000, 2)
    exif = image.getexif()
    exif[0x0112] = orientation
    content = encoded(image, "PNG", exif=exif.tobytes())
    presets = (
        Preset(name="cover", width=500, height=400, fit=Fit.COVER, enlarge=True),
        Preset(name="covered", width=500, height=400, fit=Fit.COVER),
        Preset(name="outside", width=500, height=400, fit=Fit.OUTSIDE),
        Preset(name="larger", width=500, height=400, fit=Fit.OUTSIDE, enlarge=True),
        Preset(name="pad", width=500, height=400, fit=Fit.PAD),
        Preset(name="wide", width=500, enlarge=True),
        Preset(name="attention", width=500, height=400, fit=Fit.COVER, enlarge=True, gravity=Gravity.ATTENTION),
    )
    made = make(content, Recipe(presets=presets))
    sizes = {each.output: (each.width, each.height) for each in made.rendering.thumbnails}
    assert (sizes["cover"], sizes["attention"], sizes["pad"]) == ((500, 400), (500, 400), (500, 400))
    if orientation == 1:
        assert (sizes["covered"], sizes["outside"], sizes["larger"], sizes["wide"]) == (
            (3, 2),
            (3000, 2),
            (16_383, 11),
            (500, 1),
        )
    else:
        assert (sizes["covered"], sizes["outside"], sizes["larger"], sizes["wide"]) == (
            (2, 2),
            (2, 3000),
            (11, 16_383),
            (11, 16_383),
        )


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("background", ["#808080", "#112233"])
def test_padding_has_the_colour_of_the_background(make: Make, mode: str, background: str) -> None:
    image = gradient(200, 100).convert(mode)
    if mode == "RGBA":
        image.putalpha(0)
    colour = tuple(int(background[at : at + 2], 16) for at in (1, 3, 5))
    small = make(encoded(image, "PNG"), only(fit=Fit.PAD, background=background)).small
    assert small.mode == ("L" if mode == "L" and background == "#808080" else "RGB")
    for at in ((50, 5), (50, 95)) + (((50, 50),) if mode == "RGBA" else ()):
        assert_close(small, colour, at=at, tolerance=0)
    if mode != "RGBA":
        assert_alike(small.crop((0, 25, 100, 75)), gradient(100, 50).convert(mode))


def test_only_edges_are_sharpened_and_no_other_output(make: Make) -> None:
    image = Image.new("RGB", (400, 400), "#404040")
    image.paste("#c0c0c0", (203, 0, 400, 400))
    presets = [
        Preset(name=name, width=100, height=100, formats=PNG, sharpen=name == "sharp") for name in ("sharp", "small")
    ]
    smaller = Preset(name="smaller", width=50, height=50, formats=PNG)
    made = make(encoded(image, "PNG"), Recipe(presets=(*presets, smaller)))
    alone = make(encoded(image, "PNG"), Recipe(presets=(presets[1], smaller)))
    for name in ("small", "smaller"):
        assert made[name].tobytes() == alone[name].tobytes()
    difference = ImageChops.difference(made["sharp"], made.small)
    box = difference.getbbox()
    assert box
    assert box[0] >= 46
    assert box[2] <= 56


def test_padding_is_not_sharpened(make: Make) -> None:
    image = Image.new("RGB", (200, 100), "white")
    small = make(encoded(image, "PNG"), only(fit=Fit.PAD, background="#808080", sharpen=True)).small
    assert small.getcolors() == [(5000, (255, 255, 255)), (5000, (128, 128, 128))] or small.mode == "L"


def test_outputs_of_the_same_picture_share_it(monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    made = []
    original = Pictures.make

    def counted(pictures: Pictures, output: object) -> Image.Image:
        made.append(output)
        return original(pictures, output)  # type: ignore[arg-type]

    monkeypatch.setattr(Pictures, "make", counted)
    formats = (OutputFormat.JPEG, OutputFormat.WEBP, OutputFormat.AVIF)
    shapes = (
        Preset(name="one", width=90, height=80, fit=Fit.COVER, formats=formats, dpr=(1, 2)),
        Preset(name="other", width=90, height=80, fit=Fit.COVER, formats=(OutputFormat.WEBP,)),
        Preset(name="padded", width=90, height=80, fit=Fit.PAD, formats=formats),
    )
    thumbnails = make(encoded(noise(400, 300), "PNG"), Recipe(presets=shapes)).rendering.thumbnails
    assert len(thumbnails) > 6
    assert len(made) == 3


def test_enlarged_and_cut_outputs_do_not_change_the_others(make: Make) -> None:
    content = encoded(noise(400, 300), "PNG")
    small = Preset(name="small", width=100, height=100, formats=PNG)
    others = (
        Preset(name="large", width=900, height=900, enlarge=True, formats=PNG),
        Preset(name="cut", width=500, height=200, fit=Fit.COVER, enlarge=True, formats=PNG),
    )
    alone = make(encoded(noise(400, 300), "PNG"), Recipe(presets=(small, Preset(name="all", width=400, height=400))))
    assert make(content, Recipe(presets=(*others, small))).small.tobytes() == alone.small.tobytes()


def test_an_optional_output_looks_the_same_with_the_others_and_afterwards(make: Make) -> None:
    content = encoded(noise(700, 500), "PNG")
    extra = Preset(name="extra", width=150, height=150, formats=PNG, optional=True)
    others = (Preset(name="small", width=300, height=300), Preset(name="all", width=700, height=700))
    recipe = Recipe(presets=(*others, extra))
    together = make(content, recipe)["extra"]
    afterwards = make(content, Recipe.of([each for each in recipe.outputs if each.optional]))["extra"]
    assert_alike(afterwards, together)


def test_a_part_without_transparency_is_opaque(make: Make) -> None:
    image = gradient(400, 200).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 100, 200))
    for gravity, kind in ((Gravity.EAST, "image/jpeg"), (Gravity.WEST, "image/webp")):
        recipe = only(fit=Fit.COVER, gravity=gravity, formats=(OutputFormat.AUTO,))
        (made,) = make(encoded(image, "PNG"), recipe).rendering.thumbnails
        assert made.content_type == kind


def test_outputs_in_linear_light_are_made_from_one_another(make: Make) -> None:
    lines = Image.new("L", (800, 800))
    for row in range(0, 800, 2):
        lines.paste(255, (0, row, 800, row + 1))
    presets = tuple(
        Preset(name=name, width=side, height=side, linear=linear, formats=PNG)
        for name, side, linear in (("a", 400, True), ("small", 100, True), ("b", 400, False), ("c", 100, False))
    )
    made = make(encoded(lines, "PNG"), Recipe(presets=presets))
    for name, grey in (("a", 188), ("small", 188), ("b", 128), ("c", 128)):
        assert_close(made[name].convert("RGB"), (grey,) * 3, at=(50, 50), tolerance=3)


def test_inks_are_not_averaged_in_linear_light(make: Make) -> None:
    image = gradient(400, 300).convert("CMYK")
    made = make(encoded(image, "JPEG", quality=95), only(linear=True, formats=(OutputFormat.PNG,)))
    assert made.small.size == (100, 75)


def test_the_placeholder_is_that_of_the_whole_image(make: Make) -> None:
    image = Image.new("RGB", (900, 300), "#0000ff")
    image.paste("red", (600, 0, 900, 300))
    content = encoded(image, "PNG")
    for recipe in (only(fit=Fit.COVER, gravity=Gravity.EAST), only(linear=True), only(fit=Fit.PAD), only(sharpen=True)):
        assert make(content, recipe).rendering.traits.dominant_colour == "#0000ff"
