"""The names of outputs, and which of an image's files show the same picture."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.outputs import AVATAR, HERO, HERO_FILES, Size, thumbnail
from image_service.domain.image import Image, ImageFormat, ImageHeader
from image_service.domain.outputs import OutputName, explicit_name, parse_output_name, same_picture
from image_service.domain.recipe import DEFAULT_RECIPE, Animation, Fit, Gravity, OutputFormat, Preset, Recipe
from image_service.domain.status import Status

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def image(files: dict[str, Size], width: int = 4000, height: int = 3000) -> Image:
    return Image(
        id=UUID(int=1),
        status=Status.DONE,
        header=ImageHeader(format=ImageFormat.JPEG, width=width, height=height),
        size_bytes=1,
        sha256="ab" * 32,
        created_at=NOW,
        updated_at=NOW,
        finished_at=NOW,
        error=None,
        thumbnails=tuple(thumbnail(name, size) for name, size in files.items()),
    )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("square", ("square", 1, None)),
        ("300x300", ("300x300", 1, None)),
        ("square.webp", ("square", 1, "webp")),
        ("hero@2x", ("hero", 2, None)),
        ("hero@12x.jxl", ("hero", 12, "jxl")),
        ("hero.jpg", ("hero", 1, "jpg")),
        # None of these is the name of an output.
        ("hero.jpeg", ("hero.jpeg", 1, None)),
        ("hero@0x", ("hero@0x", 1, None)),
        ("hero@2x@3x", ("hero@2x@3x", 1, None)),
        ("hero.webp@2x", ("hero.webp@2x", 1, None)),
        ("@2x.webp", ("@2x.webp", 1, None)),
        ("hero@\u0662x", ("hero@\u0662x", 1, None)),
        ("", ("", 1, None)),
        ("x" * 73 + ".jpg", ("x" * 73 + ".jpg", 1, None)),
    ],
)
def test_names_have_parts(name: str, parts: tuple[str, int, str | None]) -> None:
    assert parse_output_name(name) == OutputName(*parts)


presets = st.builds(
    Preset,
    name=st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True),
    width=st.just(100),
    formats=st.lists(st.sampled_from([each for each in OutputFormat if each.extension]), min_size=1, unique=True).map(
        tuple
    ),
    dpr=st.sets(st.integers(2, 9)).map(lambda more: (1, *sorted(more))),
)


@given(preset=presets)
def test_the_name_of_every_output_has_its_preset_density_and_format(preset: Preset) -> None:
    for output in Recipe(presets=(preset,)).outputs:
        extension = None if output.default else output.format.extension
        assert parse_output_name(output.name) == (output.preset, output.dpr, extension)


@pytest.mark.parametrize(
    ("output", "kind", "explicit"),
    [
        ("hero", "image/jpeg", "hero.jpg"),
        ("hero", "image/webp", "hero.webp"),
        ("hero@2x", "image/avif", "hero@2x.avif"),
        ("hero.webp", "image/webp", "hero.webp"),
    ],
)
def test_explicit_names_have_the_extension_of_the_file(output: str, kind: str, explicit: str) -> None:
    assert explicit_name(replace(thumbnail(output, (1, 1, 1)), content_type=kind)) == explicit


def family(image: Image, recipe: Recipe | None) -> list[str]:
    return [each.default.output for each in same_picture(image, recipe)]


def test_presets_that_show_all_of_the_image_belong_together() -> None:
    made = image({"100x100": (100, 75, 1), "300x300": (300, 225, 1), "1200x1200": (1200, 900, 1)})
    assert family(made, DEFAULT_RECIPE) == ["100x100", "300x300", "1200x1200"]
    assert family(image(dict(HERO_FILES)), HERO) == ["small", "hero", "hero@2x"]


def test_variants_are_those_of_the_preset_and_density() -> None:
    variants = {
        each.default.output: [variant.output for variant in each.variants]
        for each in same_picture(image(dict(HERO_FILES)), HERO)
    }
    assert variants == {"small": [], "hero": ["hero.avif", "hero.webp"], "hero@2x": ["hero@2x.webp"]}


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ({"fit": Fit.INSIDE}, {"fit": Fit.OUTSIDE}, True),
        ({"fit": Fit.INSIDE}, {"fit": Fit.COVER}, False),
        ({"fit": Fit.COVER}, {"fit": Fit.INSIDE}, False),
        ({"fit": Fit.COVER}, {"fit": Fit.PAD}, False),
        ({"fit": Fit.COVER}, {"fit": Fit.COVER, "width": 300, "height": 300}, True),
        ({"fit": Fit.COVER}, {"fit": Fit.COVER, "width": 300, "height": 299}, False),
        ({"fit": Fit.COVER}, {"fit": Fit.COVER, "gravity": Gravity.NORTH}, False),
        ({"fit": Fit.COVER}, {"fit": Fit.COVER, "background": "#000000"}, True),
        ({"fit": Fit.PAD, "width": 200}, {"fit": Fit.PAD, "width": 600, "height": 300}, True),
        ({"fit": Fit.PAD}, {"fit": Fit.PAD, "background": "#000000"}, False),
        # With one side, every fit shows all of the image.
        ({"fit": Fit.COVER, "height": None}, {"fit": Fit.INSIDE}, True),
        ({"fit": Fit.PAD, "width": None}, {"fit": Fit.COVER, "height": None}, True),
        ({}, {"animation": Animation.KEEP}, False),
        ({"animation": Animation.KEEP}, {"animation": Animation.KEEP}, True),
    ],
)
def test_the_first_preset_decides_which_others_belong_to_it(
    first: dict[str, object], second: dict[str, object], *, together: bool
) -> None:
    box = {"width": 100, "height": 100}
    recipe = Recipe(
        presets=(
            Preset(name="a", **{**box, **first}, dpr=(1, 2)),  # type: ignore[arg-type]
            Preset(name="b", **{**box, **second}),  # type: ignore[arg-type]
        )
    )
    made = image({"b": (50, 50, 1), "a": (100, 100, 1), "a@2x": (200, 200, 1)})
    assert family(made, recipe) == (["b", "a", "a@2x"] if together else ["a", "a@2x"])


def test_presets_that_the_image_lacks_are_left_out() -> None:
    recipe = Recipe(presets=(Preset(name="new", width=9, height=9, fit=Fit.COVER), *AVATAR.presets))
    assert family(image({"old": (100, 75, 1), "square": (256, 256, 1)}), recipe) == ["square"]


@pytest.mark.parametrize("recipe", [None, AVATAR])
def test_without_their_presets_files_are_compared_by_shape(recipe: Recipe | None) -> None:
    files = {"a": (100, 100, 1), "b": (100, 75, 1), "c": (333, 250, 1), "a@2x": (200, 200, 1), "d": (10, 20, 1)}
    assert family(image(files), recipe) == ["b", "c"]
    assert family(image({"a": (100, 100, 1), "d": (90, 10, 1), "a@2x": (200, 200, 1)}), recipe) == ["a", "a@2x"]
    assert family(image({"b.webp": (100, 75, 1)}), recipe) == []
    assert family(image({}), recipe) == []
