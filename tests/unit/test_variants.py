"""Which outputs are not worth a file."""

import pytest

from image_service.domain.image import ImageFormat
from image_service.domain.recipe import Fit, Output, OutputFormat, Preset, Recipe
from image_service.domain.variants import can_only_be, is_worth_a_file, repeats_lower_density

FORMATS = (OutputFormat.AUTO, OutputFormat.WEBP)
RECIPE = Recipe(
    presets=(
        Preset(name="hero", width=400, height=400, dpr=(1, 2, 3), formats=FORMATS),
        Preset(name="other", width=400, height=400, dpr=(1, 2), formats=FORMATS),
        Preset(name="padded", width=400, height=400, dpr=(1, 2), fit=Fit.PAD),
        Preset(name="large", width=400, height=400, dpr=(1, 2), enlarge=True),
    )
)


def named(name: str) -> Output:
    (found,) = (each for each in RECIPE.outputs if each.name == name)
    return found


@pytest.mark.parametrize(
    ("size", "repeated"),
    [
        ((4000, 3000), set()),
        ((1200, 900), set()),
        ((900, 700), set()),
        ((800, 600), {"hero@3x", "hero@3x.webp"}),
        ((700, 500), {"hero@3x", "hero@3x.webp"}),
        (
            (400, 300),
            {"hero@2x", "hero@2x.webp", "hero@3x", "hero@3x.webp", "other@2x", "other@2x.webp"},
        ),
        ((3, 1), {"hero@2x", "hero@2x.webp", "hero@3x", "hero@3x.webp", "other@2x", "other@2x.webp"}),
    ],
)
def test_a_density_is_repeated_where_the_original_is_too_small(size: tuple[int, int], repeated: set[str]) -> None:
    assert {each.name for each in RECIPE.outputs if repeats_lower_density(each, RECIPE, *size)} == repeated


def test_a_density_alone_repeats_none() -> None:
    output = named("hero@2x.webp")
    assert not repeats_lower_density(output, Recipe.of([output]), 100, 100)


def test_a_variant_is_worth_a_file_that_is_smaller_and_of_another_format() -> None:
    assert is_worth_a_file(ImageFormat.WEBP, 99, ImageFormat.JPEG, 100)
    assert not is_worth_a_file(ImageFormat.WEBP, 100, ImageFormat.JPEG, 100)
    assert not is_worth_a_file(ImageFormat.WEBP, 9, ImageFormat.WEBP, 100)


def test_formats_that_are_certain() -> None:
    assert can_only_be(named("hero.webp"), ImageFormat.WEBP)
    assert not can_only_be(named("hero.webp"), ImageFormat.JPEG)
    assert not can_only_be(named("hero"), ImageFormat.WEBP)
