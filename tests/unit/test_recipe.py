"""Recipes and their fingerprints."""

import re
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_service.domain.recipe import DEFAULT_RECIPE, Effort, OutputFormat, Preset, Recipe

SIDES = st.integers(min_value=1, max_value=10_000)
PRESETS = st.builds(
    Preset,
    name=st.from_regex(r"[a-z0-9x]{1,12}", fullmatch=True),
    width=SIDES,
    height=SIDES,
    quality=st.integers(1, 100),
    format=st.sampled_from(OutputFormat),
    effort=st.sampled_from(Effort),
    optional=st.booleans(),
)
PRESET = Preset(name="300x300", width=300, height=300)
CHANGES: list[dict[str, Any]] = [
    {"name": "other"},
    {"width": 301},
    {"height": 301},
    {"quality": 83},
    {"format": OutputFormat.AVIF},
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
    assert all(1 <= preset.quality <= 100 for preset in DEFAULT_RECIPE.presets)
    assert not any(preset.optional for preset in DEFAULT_RECIPE.presets)


def test_a_fingerprint_is_sixteen_hex_digits() -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", DEFAULT_RECIPE.fingerprint)


@given(presets=st.lists(PRESETS, max_size=4))
def test_equal_recipes_have_equal_fingerprints(presets: list[Preset]) -> None:
    assert fingerprint(*presets) == fingerprint(*(replace(preset) for preset in presets))


@given(one=st.lists(PRESETS, max_size=4), other=st.lists(PRESETS, max_size=4))
def test_different_recipes_have_different_fingerprints(one: list[Preset], other: list[Preset]) -> None:
    assert (fingerprint(*one) == fingerprint(*other)) == (one == other)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_change_of_a_preset_changes_the_fingerprint(change: dict[str, Any]) -> None:
    changed = replace(PRESET, **change)
    assert fingerprint(changed) != fingerprint(PRESET)
    assert fingerprint(PRESET, changed) != fingerprint(PRESET)


def test_the_changes_cover_every_field_of_a_preset() -> None:
    assert {name for change in CHANGES for name in change} == {field.name for field in fields(Preset)}
