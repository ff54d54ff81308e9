"""``/recipes`` and ``/limits``: what a client can choose, and what it may send."""

from typing import Any, Final

from fastapi import Request, Response

from image_service.api.dependencies import context_of
from image_service.api.recipe_documents import Limits, RecipeList
from image_service.api.routing import Router

router: Final = Router(tags=["recipes"])

_UNCHANGED: Final[dict[int | str, dict[str, Any]]] = {304: {"description": "The client's copy is up to date."}}


@router.get("/recipes", summary="List the recipes", response_model=RecipeList, responses=_UNCHANGED)
async def list_recipes(request: Request) -> Response:
    """Lists the recipes that an upload can name, each with its presets and the names of their files."""
    return context_of(request).recipe_list.response(request)


@router.get("/limits", summary="What may be sent?", response_model=Limits, responses=_UNCHANGED)
async def get_limits(request: Request) -> Response:
    """Says what a client may send, so that it can choose and check before it sends: sizes, formats, recipes."""
    return context_of(request).limits.response(request)
