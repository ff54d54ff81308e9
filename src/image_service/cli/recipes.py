"""The commands ``recipes``: check, list and show recipes."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from image_service.cli.app import BAD_SETTING, FAILED, app, exit_with_error, report_errors
from image_service.config import InvalidRecipesError, as_toml, load_recipes, load_settings
from image_service.domain.recipe import Fit, Output, OutputFormat, Recipe, Recipes

RecipesFile = Annotated[
    Path | None, typer.Option("--recipes-file", help="File of recipes to use instead of RECIPES_FILE.")
]

commands = typer.Typer(
    name="recipes",
    help="Check, list and show recipes.\n\nA recipe says which thumbnails are made of an image: docs/recipes.md.",
    no_args_is_help=True,
)
app.add_typer(commands)


@commands.command()
def check(
    file: Annotated[Path, typer.Argument(help="A file of recipes (TOML).")],
) -> None:
    """Check a file of recipes, and show the outputs of each recipe.

    Exits with 1 if the service could not start with it, and prints each problem with its line and what is allowed.
    """
    try:
        recipes = load_recipes(file)
    except InvalidRecipesError as error:
        exit_with_error(f"{file} is not usable:\n{error}", FAILED)
    for recipe in _all(recipes):
        typer.echo("\n".join([_title(recipe), *_table(recipe), ""]))


@commands.command("list")
def list_recipes(recipes_file: RecipesFile = None) -> None:
    """List the recipes of RECIPES_FILE and the default one."""
    for recipe in _all(_recipes(recipes_file)):
        typer.echo(_title(recipe))


@commands.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a recipe.")],
    recipes_file: RecipesFile = None,
) -> None:
    """Show a recipe as TOML, and its outputs as comments, so that it can be the beginning of a file."""
    recipe = find_recipe(_recipes(recipes_file), name)
    typer.echo("\n".join([as_toml(recipe), f"# {_title(recipe)}", *(f"# {line}" for line in _table(recipe))]))


def find_recipe(recipes: Recipes, name: str) -> Recipe:
    """Returns the recipe of this name; ends the program with the list of names if there is none."""
    if (recipe := recipes.find(name)) is None:
        near = get_close_matches(name, recipes.names, 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        known = f"RECIPES_FILE defines them; known are {', '.join(recipes.names)}"
        exit_with_error(f"There is no recipe {name!r}.{meant} {known}.", BAD_SETTING)
    return recipe


def _recipes(file: Path | None) -> Recipes:
    with report_errors():
        return load_settings(recipes_file=file).recipes


def _all(recipes: Recipes) -> Iterator[Recipe]:
    return (recipe for name in recipes.names if (recipe := recipes.find(name)))


def _title(recipe: Recipe) -> str:
    counts = f"{_count(len(recipe.presets), 'preset')}, {_count(len(recipe.outputs), 'output')}"
    return f"{recipe.name}: {counts}, fingerprint {recipe.fingerprint}{', negotiates' if recipe.negotiate else ''}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _table(recipe: Recipe) -> Iterator[str]:
    rows = [("output", "box", "fit", "format", "quality", "fingerprint", ""), *map(_row, recipe.outputs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield f"  {'  '.join(f'{cell:{width}}' for cell, width in zip(row, widths, strict=True))}".rstrip()


def _row(output: Output) -> tuple[str, ...]:
    fit = output.fit if output.fit is not Fit.COVER else f"{output.fit} {output.gravity}"
    notes = _notes(output)
    return output.name, _box(output), fit, output.format, _quality(output), output.fingerprint, ", ".join(notes)


def _box(output: Output) -> str:
    if output.width is None:
        return f"{output.height} high"
    return f"{output.width} wide" if output.height is None else f"{output.width}x{output.height}"


def _quality(output: Output) -> str:
    match output.format:
        case OutputFormat.PNG | OutputFormat.GIF:
            return "-"
        case OutputFormat.AUTO if output.quality != output.webp_quality:
            return f"{output.quality}, webp {output.webp_quality}"
        case _:
            return str(output.quality)


def _notes(output: Output) -> Iterable[str]:
    for name in ("optional", "enlarge", "sharpen", "linear"):
        if getattr(output, name):
            yield name
    if output.animation == "keep":
        yield "animated"
