"""The recipe that a request names, in its query or its form."""

from typing import Any, Final

from starlette.requests import Request

from image_service.api.form_file import RECIPE
from image_service.errors import RecipeConflict
from image_service.services.recipes import MAX_RECIPE_NAME

PARAMETER: Final[dict[str, Any]] = {
    "name": RECIPE,
    "in": "query",
    "required": False,
    "description": "The recipe for the thumbnails: one of those that `GET /recipes` lists.",
    "schema": {"type": "string", "maxLength": MAX_RECIPE_NAME},
    "example": "default",
}
"""Written by hand, because a form may give the name too: FastAPI would take the last of several."""


def recipe_of(request: Request, form: str | None = None) -> str | None:
    """Returns the name of the recipe, or None where the request names none.

    Args:
        request: The request, whose query may name one.
        form: The one that its form names.

    Raises:
        RecipeConflict: the request names different ones.
    """
    names = {*request.query_params.getlist(RECIPE), *([] if form is None else [form])}
    if len(names) > 1:
        raise RecipeConflict
    return next(iter(names), None)
