"""Writes a recipe as it would be in a file of recipes."""

import json
from collections.abc import Iterator
from dataclasses import fields

from image_service.domain.recipe import Preset, Recipe


def as_toml(recipe: Recipe) -> str:
    """Returns the recipe as TOML; what has its default is left out."""
    lines = [f"[recipes.{recipe.name}]", *(["negotiate = true"] if recipe.negotiate else [])]
    for preset in recipe.presets:
        lines += ["", f"[[recipes.{recipe.name}.presets]]", *_fields(preset)]
    return "\n".join([*lines, ""])


def _fields(preset: Preset) -> Iterator[str]:
    for field in fields(preset):
        value = getattr(preset, field.name)
        if value == field.default:
            continue
        if field.name == "quality" and not isinstance(value, int):
            yield f"quality = {{ {', '.join(f'{name} = {each}' for name, each in value)} }}"
        else:
            # Strings, numbers, booleans and lists look as in JSON.
            yield f"{field.name} = {json.dumps(value)}"
