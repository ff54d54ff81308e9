"""Recipes and their fingerprints."""

import re
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_service.domain.recipe import (
    DEFAULT_RECIPE,
    Animation,
    Effort,
    Fit,
    Gravity,
    OutputFormat,
    Preset,
    Recipe,
    Recipes,
    made_with,
)

SIDES = st.integers(min_value=1, max_value=10_000)
PRESETS = st.builds(
    Preset,
    name=st.from_regex(r"[a-z0-9x]{1,12}", fullmatch=True),
    width=SIDES,
    height=SIDES,
    quality=st.integers(1, 100),
    formats=st.sampled_from(OutputFormat).map(lambda each: (each,)),
    effort=st.sampled_from(Effort),
    optional=st.booleans(),
)
PRESET = Preset(name="300x300", width=300, height=300)
CHANGES: list[dict[str, Any]] = [
    {"name": "other"},
    {"width": 301},
    {"height": 301},
    {"quality": 83},
    {"formats": (OutputFormat.AVIF,)},
    {"formats": (OutputFormat.AUTO, OutputFormat.AVIF)},
    {"fit": Fit.COVER},
    {"gravity": Gravity.NORTH},
    {"background": "#000000"},
    {"enlarge": True},
    {"sharpen": True},
    {"linear": True},
    {"animation": Animation.KEEP},
    {"dpr": (1, 2)},
    {"effort": Effort.SMALL},
    {"optional": True},
]


def fingerprint(*presets: Preset) -> str:
    return Recipe(presets=presets).fingerprint


def test_the_default_recipe_makes_exactly_these_sizes() -> None:
    assert {preset.name: (preset.width, preset.height) for preset in DEFAULT_RECIPE.presets} == {
        "100x100": (100, 100),
        "300x300": (300, 300),
        "1200x1200": (1200, 1200),
    }


def test_the_default_presets_have_unique_names_and_a_valid_quality() -> None:
    names = [preset.name for preset in DEFAULT_RECIPE.presets]
    assert len(set(names)) == len(names)
    assert all(1 <= output.quality <= 100 for output in DEFAULT_RECIPE.outputs)
    assert not any(preset.optional for preset in DEFAULT_RECIPE.presets)


def test_a_fingerprint_is_sixteen_hex_digits() -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", DEFAULT_RECIPE.fingerprint)


def test_the_default_fingerprint_is_the_one_of_versions_before_recipes() -> None:
    assert DEFAULT_RECIPE.fingerprint == "d14f07af7fad0bc2"


def test_other_fingerprints_are_no_hex_digits_alone() -> None:
    assert re.fullmatch(r"r[0-9a-f]{15}", fingerprint(PRESET))


def test_outputs_are_named_by_preset_density_and_format() -> None:
    formats = (OutputFormat.JPEG, OutputFormat.WEBP)
    hero = Recipe(presets=(Preset(name="hero", width=500, formats=formats, dpr=(1, 2)),))
    assert {each.name: (each.width, each.height) for each in hero.outputs} == {
        "hero": (500, None),
        "hero.webp": (500, None),
        "hero@2x": (1000, None),
        "hero@2x.webp": (1000, None),
    }
    assert [each.quality for each in hero.outputs] == [82, 78, 82, 78]


def test_quality_is_given_for_all_formats_or_for_each() -> None:
    def qualities(quality: int | tuple[tuple[OutputFormat, int], ...]) -> list[tuple[int, int]]:
        preset = Preset(name="a", width=9, formats=(OutputFormat.AUTO, OutputFormat.AVIF), quality=quality)
        return [(each.quality, each.webp_quality) for each in Recipe(presets=(preset,)).outputs]

    assert qualities(50) == [(50, 50), (50, 82)]
    assert qualities(((OutputFormat.WEBP, 70), (OutputFormat.AVIF, 60))) == [(82, 70), (60, 82)]


def test_quality_of_one_format_changes_no_file_of_another() -> None:
    formats = (OutputFormat.JPEG, OutputFormat.WEBP, OutputFormat.AVIF)
    one, other = (replace(PRESET, formats=formats, quality=((OutputFormat.WEBP, quality),)) for quality in (60, 70))
    same = [a == b for a, b in zip(fingerprint_of_outputs(one), fingerprint_of_outputs(other), strict=True)]
    assert same == [True, False, True]


def test_what_is_optional_or_in_another_preset_is_the_same_file() -> None:
    (one,) = fingerprint_of_outputs(PRESET)
    assert fingerprint_of_outputs(replace(PRESET, name="other", optional=True)) == [one]


def fingerprint_of_outputs(*presets: Preset) -> list[str]:
    return [each.fingerprint for each in Recipe(presets=presets).outputs]


def test_files_of_versions_before_recipes_are_those_of_the_built_in_recipe() -> None:
    (small, *_) = DEFAULT_RECIPE.outputs
    assert made_with(DEFAULT_RECIPE.fingerprint, "100x100", None) == small.fingerprint
    assert made_with(DEFAULT_RECIPE.fingerprint, "other", None) is None
    assert made_with("0123456789abcdef", "100x100", None) is None
    assert made_with(None, "100x100", "recorded") == "recorded"


def test_recipes_are_found_by_name_and_one_is_the_default() -> None:
    avatar = Recipe(name="avatar", presets=(PRESET,))
    recipes = Recipes(avatar)
    assert (recipes.find("avatar"), recipes.find("other")) == (avatar, None)
    assert recipes.find(None) is recipes.find("default") is recipes.default is DEFAULT_RECIPE
    assert recipes.names == ("avatar", "default")
    other = Recipe(presets=(PRESET,))
    assert Recipes(other).default is other


@given(presets=st.lists(PRESETS, max_size=4))
def test_equal_recipes_have_equal_fingerprints(presets: list[Preset]) -> None:
    assert fingerprint(*presets) == fingerprint(*(replace(preset) for preset in presets))


@given(one=st.lists(PRESETS, max_size=4), other=st.lists(PRESETS, max_size=4))
def test_different_recipes_have_different_fingerprints(one: list[Preset], other: list[Preset]) -> None:
    same = Recipe(presets=tuple(one)).outputs == Recipe(presets=tuple(other)).outputs
    assert not same or fingerprint(*one) == fingerprint(*other)
    assert same or sorted(one, key=str) == sorted(other, key=str) or fingerprint(*one) != fingerprint(*other)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_change_of_a_preset_changes_the_fingerprint(change: dict[str, Any]) -> None:
    changed = replace(PRESET, **change)
    assert fingerprint(changed) != fingerprint(PRESET)
    assert fingerprint(PRESET, changed) != fingerprint(PRESET)


def test_the_changes_cover_every_field_of_a_preset() -> None:
    assert {name for change in CHANGES for name in change} == {field.name for field in fields(Preset)}


def test_only_the_default_recipe_can_have_the_fingerprint_of_the_built_in_one() -> None:
    # The database refuses it for images with the name of a recipe: an older version would have made their outputs.
    assert Recipe(presets=DEFAULT_RECIPE.presets).fingerprint == DEFAULT_RECIPE.fingerprint
    assert Recipe(presets=DEFAULT_RECIPE.presets, name="copy").fingerprint.startswith("r")


def test_formats_of_all_recipes_are_known_together() -> None:
    assert Recipes().formats == (OutputFormat.AUTO,)
    hero = Recipe(presets=(Preset(name="a", width=9, formats=(OutputFormat.WEBP, OutputFormat.JXL)),), name="hero")
    assert Recipes(hero).formats == (OutputFormat.AUTO, OutputFormat.JXL, OutputFormat.WEBP)
