"""Finds the recipe that a client names."""

from typing import Final

from image_service.domain.recipe import Recipe, Recipes
from image_service.domain.wellformed import one_line
from image_service.errors import UnknownRecipe

MAX_RECIPE_NAME: Final = 64
"""Characters of a name, and bytes of the form field that gives one."""
_LISTED: Final = 20
"""Names that an error lists; GET /recipes lists all."""


def recipe_named(recipes: Recipes, name: str | None) -> Recipe:
    """Returns the recipe of this name; the default one for None.

    Raises:
        UnknownRecipe: there is none; the detail lists those that there are.
    """
    recipe = recipes.find(name)
    if recipe is None:
        names = recipes.names
        more = f" and {len(names) - _LISTED} more, which GET /recipes lists" if len(names) > _LISTED else ""
        raise UnknownRecipe(
            f"There is no recipe called {one_line(name or '', MAX_RECIPE_NAME)!r}. "
            f"Send one of these, or none for the default recipe: {', '.join(names[:_LISTED])}{more}."
        )
    return recipe
