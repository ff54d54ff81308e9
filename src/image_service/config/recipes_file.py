"""Reads a file of recipes (TOML), and says by line what is wrong in it."""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from image_service.config import recipe_rules
from image_service.config.recipe_fields import NAME, NAMES, PRESET_FIELDS, RECIPE_FIELDS, Field, NotAllowed
from image_service.config.toml_lines import Lines
from image_service.config.toml_lines import Path as Place
from image_service.domain.recipe import Preset, Recipe, Recipes

MAX_BYTES: Final = 1_000_000
"""Size of a file."""
MAX_RECIPES: Final = 100
MAX_PRESETS: Final = 32
"""Of a recipe."""

_PROBLEMS_SHOWN: Final = 20
_SHOWN: Final = 60
"""Characters of a value in a message."""
_PLACE: Final = re.compile(r"line (\d+), column (\d+)\)")
"""How a message of ``tomllib`` ends, except at the end of the document."""


class InvalidRecipesError(Exception):
    """A file of recipes cannot be used. The message has a line for each problem: file, line, and what is allowed."""


def load_recipes(file: Path) -> Recipes:
    """Returns the recipes of a file, besides the built-in ``default`` unless the file has one of that name.

    Raises:
        InvalidRecipesError: it cannot be read, or is not valid.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidRecipesError(f"{file}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise InvalidRecipesError(f"{file}: is larger than {MAX_BYTES:,} bytes, which is allowed")
    return Recipes(*_Document(file, _text(file, content)).recipes())


def _text(file: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidRecipesError(f"{file}:{line}: is no UTF-8") from None


class _Document:
    """A file while it is checked: all problems are collected before it is refused."""

    def __init__(self, file: Path, text: str) -> None:
        self._file = file
        self._problems: list[tuple[int, str]] = []
        try:
            self._tables = tomllib.loads(text)
            self._lines = Lines(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidRecipesError(self._syntax(str(error), text)) from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
            raise InvalidRecipesError(f"{file}: cannot be read: {error}") from None

    def recipes(self) -> list[Recipe]:
        """Returns the recipes, in the order of the file.

        Raises:
            InvalidRecipesError: something in it is not valid.
        """
        self._only(("recipes",), self._tables, ())
        tables = self._tables.get("recipes", {})
        if not isinstance(tables, dict):
            self._refuse(("recipes",), "allowed are tables such as [recipes.avatar]")
            tables = {}
        if len(tables) > MAX_RECIPES:
            self._refuse(("recipes",), f"has {len(tables)} recipes; allowed are {MAX_RECIPES}")
        found = [recipe for name, table in tables.items() if (recipe := self._recipe(name, table))]
        if self._problems:
            raise InvalidRecipesError("\n".join(self._messages()))
        return found

    def _recipe(self, name: str, table: object) -> Recipe | None:
        place: Place = ("recipes", name)
        if not NAME.fullmatch(name):
            self._refuse(place, f"{_shown(name)} cannot be the name of a recipe: allowed are {NAMES}")
        if not isinstance(table, dict):
            self._refuse(place, f"{name} is no recipe: allowed are tables such as [recipes.{name}]")
            return None
        self._only((*RECIPE_FIELDS, "presets"), table, place)
        fields = self._fields(RECIPE_FIELDS, table, place)
        before = len(self._problems)
        presets = self._presets(table.get("presets"), (*place, "presets"))
        if len(self._problems) > before:
            return None
        recipe = Recipe(name=name, presets=tuple(presets), **fields)
        self._add(recipe_rules.of_recipe(recipe), place)
        return recipe

    def _presets(self, tables: object, place: Place) -> list[Preset]:
        example = f"[[{'.'.join(map(str, place))}]]"
        if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
            self._refuse(place, f"{'.'.join(map(str, place[1:]))} is missing: allowed are tables such as {example}")
            return []
        if not 1 <= len(tables) <= MAX_PRESETS:
            self._refuse(place, f"has {len(tables)} presets; allowed are 1 to {MAX_PRESETS}")
            return []
        presets = [self._preset(table, (*place, position)) for position, table in enumerate(tables)]
        found = [each for each in presets if each]
        self._add(recipe_rules.of_names([table.get("name") for table in tables]), place)
        return found

    def _preset(self, table: dict[str, Any], place: Place) -> Preset | None:
        before = len(self._problems)
        self._only(PRESET_FIELDS, table, place)
        fields = self._fields(PRESET_FIELDS, table, place)
        if "name" not in table:
            self._refuse(place, f"name is missing: allowed are {NAMES}")
        if len(self._problems) > before:
            return None
        preset = Preset(**fields)
        self._add(recipe_rules.of_preset(preset, fields), place)
        return preset

    def _only(self, allowed: Iterable[str], table: dict[str, Any], place: Place) -> None:
        """Refuse other keys."""
        names = tuple(allowed)
        for key in table:
            if key not in names:
                near = get_close_matches(key, names, 1)
                meant = f", but {near[0]} is" if near else ""
                self._refuse((*place, key), f"{_shown(key)} is no field here{meant}: allowed are {', '.join(names)}")

    def _fields(self, fields: Mapping[str, Field], table: dict[str, Any], place: Place) -> dict[str, Any]:
        """Returns the values of those fields that are given and valid."""
        found = {}
        for name, field in fields.items():
            if name not in table:
                continue
            try:
                found[name] = field.read(table[name])
            except NotAllowed as error:
                where = (*place, name) if error.at is None else (*place, name, error.at)
                self._refuse(where, f"{name} = {_shown(table[name])}: {str(error) or field.rule}")
        return found

    def _add(self, problems: Iterable[tuple[Place, str]], place: Place) -> None:
        for at, problem in problems:
            self._refuse((*place, *at), problem)

    def _refuse(self, place: Place, problem: str) -> None:
        self._problems.append((self._lines.of(place), problem))

    def _messages(self) -> Iterator[str]:
        for line, problem in sorted(self._problems)[:_PROBLEMS_SHOWN]:
            yield f"{self._file}:{line}: {problem}"
        if more := len(self._problems[_PROBLEMS_SHOWN:]):
            yield f"{self._file}: and {more} more"

    def _syntax(self, message: str, text: str) -> str:
        what, _, place = message.rpartition(" (at ")
        found = _PLACE.fullmatch(place)
        line, column = (found[1], f", at column {found[2]}") if found else (text.count("\n") + 1, "")
        return f"{self._file}:{line}: is no TOML{column}: {what[:1].lower()}{what[1:]}"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
