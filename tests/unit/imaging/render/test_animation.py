"""Animations stay animations where a recipe says so, within limits."""

import io
import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from PIL import Image

from harness.animations import CLEAR, Part, apng, frames_of, gif, webp
from harness.images import display_p3, encoded, gradient, noise, oriented, png_chunk
from image_service.domain.image import ImageFormat, ImageHeader
from image_service.domain.recipe import Animation, Effort, Fit, Output, OutputFormat
from image_service.imaging.formats import find_metadata, read_dimensions, read_frames
from image_service.imaging.formats.magic import identify
from image_service.imaging.limits import DEFAULT_LIMITS
from image_service.imaging.render.animation import animate
from image_service.imaging.render.encoding import Encoded
from image_service.imaging.render.frames import draw

SIZE = 80, 60
OUTPUT = Output(preset="sticker", format=OutputFormat.WEBP, width=40, height=40, animation=Animation.KEEP, quality=90)
COLOURS = ("red", "lime", "blue", "yellow")
PARTS = [Part(image=Image.new("RGBA", SIZE, colour)) for colour in COLOURS]
MAKERS: dict[ImageFormat, Callable[..., bytes]] = {
    ImageFormat.GIF: gif,
    ImageFormat.PNG: apng,
    ImageFormat.WEBP: webp,
}
KINDS = (OutputFormat.WEBP, OutputFormat.GIF)


def made(content: bytes, output: Output = OUTPUT, **options: object) -> Encoded | None:
    image_format = identify(content)
    assert image_format
    width, height = read_dimensions(content, image_format)
    header = ImageHeader(format=image_format, width=width, height=height)
    return animate(content, header, output, DEFAULT_LIMITS, **options)  # type: ignore[arg-type]  # seconds and crop


def kept(content: bytes, output: Output = OUTPUT, **options: object) -> Encoded:
    encoded = made(content, output, **options)
    assert encoded
    assert identify(bytes(encoded.content[:64])) is encoded.format
    return encoded


def frames(content: bytes, output: Output = OUTPUT, **options: object) -> list[tuple[Image.Image, float]]:
    return frames_of(bytes(kept(content, output, **options).content))


def opened(content: bytes, output: Output = OUTPUT) -> Image.Image:
    return Image.open(io.BytesIO(kept(content, output).content))


def colour(image: Image.Image, at: tuple[int, int] = (10, 10)) -> tuple[int, ...]:
    found = image.getpixel(at)
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image_format", MAKERS)
def test_keeps_frames_and_their_durations(image_format: ImageFormat, kind: OutputFormat) -> None:
    parts = [replace(part, milliseconds=each) for part, each in zip(PARTS, (50, 120, 1000, 70), strict=True)]
    found = frames(MAKERS[image_format](SIZE, *parts), replace(OUTPUT, format=kind))
    assert [milliseconds for _, milliseconds in found] == [50, 120, 1000, 70]
    for (picture, _), part in zip(found, parts, strict=True):
        assert picture.size == (40, 30)
        assert colour(picture) == pytest.approx(colour(part.image), abs=4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image_format", MAKERS)
@pytest.mark.parametrize("plays", [0, 1, 2, 7])
def test_is_shown_as_often(image_format: ImageFormat, kind: OutputFormat, plays: int) -> None:
    image = opened(MAKERS[image_format](SIZE, *PARTS, plays=plays), replace(OUTPUT, format=kind))
    if kind is OutputFormat.WEBP:
        assert image.info["loop"] == plays
    else:
        # Repetitions; without any, it is shown once.
        assert image.info.get("loop") == {0: 0, 1: None}.get(plays, plays - 1)


def test_format_left_open_is_webp_with_its_quality() -> None:
    content = gif((160, 120), *(Part(image=noise(160, 120).convert("RGBA")) for _ in range(3)))
    automatic = replace(OUTPUT, format=OutputFormat.AUTO, quality=1, webp_quality=90)
    assert kept(content, automatic) == kept(content)
    assert kept(content).format is ImageFormat.WEBP
    assert len(kept(content, replace(OUTPUT, quality=10)).content) < len(kept(content).content) / 2
    assert bytes(kept(content, replace(OUTPUT, effort=Effort.SMALL)).content) != bytes(kept(content).content)


@pytest.mark.parametrize("kind", KINDS)
def test_transparent_frames_stay_transparent(kind: OutputFormat) -> None:
    dot = Image.new("RGBA", (20, 20), "blue")
    parts = [Part(image=dot, at=(20 * index, 20), disposal=CLEAR) for index in range(4)]
    for image_format, make in MAKERS.items():
        found = frames(make(SIZE, *parts), replace(OUTPUT, format=kind))
        assert len(found) == 4, image_format
        for index, (picture, _) in enumerate(found):
            alphas = [colour(picture, (10 * place + 5, 15))[3] for place in range(4)]
            assert alphas == [255 * (place == index) for place in range(4)]


def test_half_transparent_pixels_stand_on_the_background_in_a_gif() -> None:
    parts = [Part(image=Image.new("RGBA", SIZE, (255, 0, 0, alpha))) for alpha in (128, 255, 127)]
    content = apng(SIZE, *(replace(each, blend=False) for each in parts))
    encoded = kept(content, replace(OUTPUT, format=OutputFormat.GIF, background="#0000ff"))
    # Pillow's canvas has no transparency where the first frame has none.
    header = ImageHeader(format=ImageFormat.GIF, width=40, height=30)
    first, second, third = (
        colour(picture.convert("RGBA"))
        for picture, _ in draw(read_frames(bytes(encoded.content), ImageFormat.GIF), header)
    )
    assert first == pytest.approx((128, 0, 127, 255), abs=2)
    assert second == (255, 0, 0, 255)
    assert third[3] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_unchanged_frames_add_to_the_one_before(kind: OutputFormat) -> None:
    parts = [*PARTS[:2], PARTS[1], PARTS[1], PARTS[2]]
    found = frames(gif(SIZE, *parts), replace(OUTPUT, format=kind))
    assert [milliseconds for _, milliseconds in found] == [100, 300, 100]


def test_durations_of_a_gif_do_not_drift() -> None:
    # A 30th of a second is no whole number of hundredths.
    parts = [replace(part, milliseconds=33) for part in PARTS * 10]
    total = sum(
        milliseconds for _, milliseconds in frames(apng(SIZE, *parts), replace(OUTPUT, format=OutputFormat.GIF))
    )
    assert total == pytest.approx(33 * 40, abs=10)


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"fit": Fit.INSIDE}, (40, 30)),
        ({"fit": Fit.OUTSIDE}, (53, 40)),
        ({"fit": Fit.COVER}, (40, 40)),
        ({"fit": Fit.PAD}, (40, 40)),
        ({"width": None}, (53, 40)),
        ({"width": 160, "height": 160}, (80, 60)),
        ({"width": 160, "height": 160, "enlarge": True}, (160, 120)),
        ({"width": 160, "height": 160, "fit": Fit.PAD}, (160, 160)),
        ({"width": 160, "height": 160, "fit": Fit.COVER}, (60, 60)),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
def test_has_the_size_of_a_still(kind: OutputFormat, changes: dict[str, object], size: tuple[int, int]) -> None:
    output = replace(OUTPUT, format=kind, **changes)  # type: ignore[arg-type]  # fields of an output
    for picture, _ in frames(gif(SIZE, *PARTS), output):
        assert picture.size == size


def halves(left: str, right: str) -> Image.Image:
    image = Image.new("RGBA", (80, 40), left)
    image.paste(Image.new("RGBA", (40, 40), right), (40, 0))
    return image


def test_cover_keeps_the_middle_or_what_it_is_given() -> None:
    parts = [Part(image=halves("red", "lime")), Part(image=halves("blue", "white"))]
    output = replace(OUTPUT, width=20, height=20, fit=Fit.COVER)
    (first, _), (second, _) = frames(gif((80, 40), *parts), output)
    assert [colour(first, (3, 10)), colour(first, (16, 10))] == [
        pytest.approx(each, abs=8) for each in ((255, 0, 0, 255), (0, 255, 0, 255))
    ]
    (first, _), (second, _) = frames(gif((80, 40), *parts), output, crop=(20, 0, 40, 20))
    for picture, wanted in ((first, (0, 255, 0, 255)), (second, (255, 255, 255, 255))):
        assert colour(picture, (3, 10)) == pytest.approx(wanted, abs=8)


def test_pad_adds_the_background_also_behind_transparent_pixels() -> None:
    parts = [*PARTS[:1], Part(image=Image.new("RGBA", SIZE, "#ff00ff80"), blend=False)]
    (first, _), (second, _) = frames(apng(SIZE, *parts), replace(OUTPUT, fit=Fit.PAD, background="#00ff00"))
    for picture, wanted in ((first, (255, 0, 0, 255)), (second, (128, 127, 128, 255))):
        assert colour(picture, (20, 2)) == pytest.approx((0, 255, 0, 255), abs=6)
        assert colour(picture, (20, 20)) == pytest.approx(wanted, abs=6)


def test_cover_of_a_thin_animation_makes_no_picture_of_all_of_it() -> None:
    thin = [Part(image=Image.new("RGBA", (4000, 1), each)) for each in COLOURS]
    output = replace(OUTPUT, width=300, height=300, fit=Fit.COVER, enlarge=True)
    assert [picture.size for picture, _ in frames(gif((4000, 1), *thin), output)] == [(300, 300)] * 4


def test_converts_colours_as_of_stills_and_drops_metadata() -> None:
    parts = [Part(image=Image.new("RGBA", SIZE, (200, 100, 50, 255))), *PARTS[1:2]]
    content = webp(SIZE, *parts, profile=display_p3())
    (first, _), _ = frames(content)
    assert colour(first)[:3] == pytest.approx((214, 94, 31), abs=8)
    assert find_metadata(bytes(kept(content).content), ImageFormat.WEBP) == ()


def test_default_image_of_an_apng_is_no_frame() -> None:
    found = frames(apng(SIZE, *PARTS[:2], default=Image.new("RGBA", SIZE, "black")))
    assert [colour(picture)[:3] for picture, _ in found] == [
        pytest.approx(each, abs=4) for each in ((255, 0, 0), (0, 255, 0))
    ]


@pytest.mark.parametrize(
    "content",
    [
        gif(SIZE, *PARTS[:1]),
        apng(SIZE, *PARTS[:1]),
        webp(SIZE, *PARTS[:1]),
        encoded(gradient(*SIZE), "GIF"),
        encoded(gradient(*SIZE), "PNG"),
        encoded(gradient(*SIZE), "WEBP"),
        encoded(gradient(*SIZE), "JPEG"),
        encoded(gradient(*SIZE), "AVIF"),
        gif(SIZE)[:-1] + b",",
    ],
    ids=itertools.count(),
)
def test_stills_are_left_to_others(content: bytes) -> None:
    header = ImageHeader(format=identify(content) or ImageFormat.GIF, width=SIZE[0], height=SIZE[1])
    assert animate(content, header, OUTPUT, DEFAULT_LIMITS) is None


@pytest.mark.parametrize("kind", [each for each in OutputFormat if each not in {*KINDS, OutputFormat.AUTO}])
def test_formats_without_animation_are_left_to_others(kind: OutputFormat) -> None:
    assert made(gif(SIZE, *PARTS), replace(OUTPUT, format=kind)) is None


def test_is_kept_only_where_that_is_requested() -> None:
    assert made(gif(SIZE, *PARTS), replace(OUTPUT, animation=Animation.FIRST)) is None


def test_animation_that_is_to_be_turned_is_left_to_others() -> None:
    exif = png_chunk(b"eXIf", oriented(gradient(*SIZE), 6).removeprefix(b"Exif\0\0"))
    assert made(apng(SIZE, *PARTS, chunks=exif)) is None
    assert made(apng(SIZE, *PARTS))


def test_one_sound_frame_is_no_animation() -> None:
    for content in (apng(SIZE, *PARTS), webp(SIZE, *PARTS)):
        damaged = bytearray(content)
        at = content.index(b"fdAT") if b"fdAT" in content else content.index(b"VP8L", content.index(b"VP8L") + 1)
        damaged[at + 10] ^= 0xFF
        assert made(bytes(damaged)) is None
