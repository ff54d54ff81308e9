"""Outputs that keep animations, beside still pictures."""

import io

import pytest
from PIL import Image, ImageDraw

from harness.images import encoded
from image_service.domain.recipe import Animation, Fit, Gravity, OutputFormat, Preset, Recipe
from image_service.imaging.render import animation
from tests.unit.imaging.render.rendered import Make, assert_close

COLOURS = ("red", "lime", "blue")


def frames(width: int = 120, height: int = 60) -> list[Image.Image]:
    """Return frames with a disc at the right on a plain ground."""
    made = []
    for colour in COLOURS:
        frame = Image.new("RGB", (width, height), "#202020")
        ImageDraw.Draw(frame).ellipse((width - 50, 5, width - 5, 50), fill=colour, outline="white", width=3)
        made.append(frame)
    return made


def animated(kind: str, *, orientation: int = 1) -> bytes:
    first, *others = frames()
    exif = first.getexif()
    exif[0x0112] = orientation
    return encoded(first, kind, save_all=True, append_images=others, duration=100, loop=0, exif=exif.tobytes())


def sticker(**fields: object) -> Recipe:
    given = {"width": 40, "height": 40, "animation": Animation.KEEP, "formats": (OutputFormat.WEBP,)} | fields
    still = Preset(name="still", width=40, height=40)
    return Recipe(presets=(Preset(name="small", **given), still))  # type: ignore[arg-type]


def count(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1)


@pytest.mark.parametrize("wanted", [OutputFormat.WEBP, OutputFormat.GIF, OutputFormat.AUTO])
@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_keeps_an_animation_where_it_is_asked_for(make: Make, kind: str, wanted: OutputFormat) -> None:
    made = make(animated(kind), sticker(formats=(wanted,)))
    with made.small as small:
        assert count(small) == 3
        assert small.size == (40, 20)
    assert count(made["still"]) == 1
    assert made.rendering.left_out == ()


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"fit": Fit.COVER}, (40, 40)),
        ({"fit": Fit.PAD}, (40, 40)),
        ({"fit": Fit.OUTSIDE}, (80, 40)),
        ({"height": None}, (40, 20)),
        ({"fit": Fit.COVER, "width": 240, "height": 240, "enlarge": True}, (240, 240)),
    ],
    ids=str,
)
def test_every_fit_of_an_animation(make: Make, fields: dict[str, object], size: tuple[int, int]) -> None:
    made = make(animated("GIF"), sticker(**fields))
    assert count(made.small) == 3
    assert made.small.size == size


def test_all_frames_show_the_part_with_the_most_detail(make: Make) -> None:
    small = make(animated("WEBP"), sticker(fit=Fit.COVER, gravity=Gravity.ATTENTION)).small
    for index, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255))):
        small.seek(index)
        assert_close(small, colour, at=(20, 18), tolerance=40)


def test_a_variant_of_an_animation_is_left_out_unless_it_is_smaller(make: Make) -> None:
    made = make(animated("GIF"), sticker(formats=(OutputFormat.WEBP, OutputFormat.GIF)))
    sizes = {each.output: each.size_bytes for each in made.rendering.thumbnails}
    assert made.rendering.left_out == (() if sizes.get("small.gif", 1 << 30) < sizes["small"] else ("small.gif",))


@pytest.mark.parametrize("optional", [False, True])
def test_a_still_picture_is_made_of_what_is_no_animation(make: Make, *, optional: bool) -> None:
    first = frames()[0]
    turned = animated("PNG", orientation=6)
    for content, size in ((encoded(first, "GIF"), (40, 20)), (encoded(first, "JPEG"), (40, 20)), (turned, (20, 40))):
        small = make(content, sticker(optional=optional)).small
        assert (count(small), small.size, small.format) == (1, size, "WEBP")


def test_an_optional_animation_that_fails_is_left_out(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError(len(args))

    monkeypatch.setattr(animation, "_encode", fail)
    assert make(animated("GIF"), sticker(optional=True)).rendering.left_out == ("small",)
    with pytest.raises(RuntimeError):
        make(animated("GIF"), sticker())


def test_a_frame_that_is_larger_than_its_screen_is_a_still_picture(make: Make) -> None:
    """Its header and its decoder differ in the size, so that the size of an animation could not be checked."""
    content = bytearray(animated("GIF"))
    content[6:10] = (100).to_bytes(2, "little") + (60).to_bytes(2, "little")
    small = make(bytes(content), sticker()).small
    with Image.open(io.BytesIO(content)) as original:
        assert small.size == (40, round(40 * original.height / original.width))
