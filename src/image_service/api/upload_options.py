"""The options of an upload that a request gives, in its query or its form."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request

from image_service.api.form_file import METADATA, OPTIONS, RECIPE, WEBHOOK, conflict
from image_service.domain.event import MAX_METADATA
from image_service.services.recipes import MAX_RECIPE_NAME
from image_service.services.upload_options import UploadOptions

_NONE: Final[Mapping[str, bytes]] = {}


def _parameter(name: str, description: str, schema: Mapping[str, Any], **more: object) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema, **more}


RECIPE_PARAMETER: Final = _parameter(
    RECIPE,
    "The recipe for the thumbnails: one of those that `GET /recipes` lists.",
    {"type": "string", "maxLength": MAX_RECIPE_NAME},
    example="default",
)
"""Written by hand, because a form may give the name too: FastAPI would take the last of several."""

PARAMETERS: Final = (
    RECIPE_PARAMETER,
    _parameter(
        WEBHOOK,
        "The `id` of a registered webhook endpoint: it alone gets the image's events.",
        {"type": "string", "format": "uuid"},
    ),
    _parameter(
        METADATA,
        f"Comes back as it is in every event of the image; at most {MAX_METADATA} bytes in UTF-8, without NUL.",
        {"type": "string", "maxLength": MAX_METADATA},
        example='{"user": 7}',
    ),
)
"""The options as parameters of the query."""

FIELDS: Final[Mapping[str, Any]] = {
    each["name"]: {
        **each["schema"],
        "description": f"{each['description']} Instead of in the query; must come before the file.",
    }
    for each in PARAMETERS
}
"""The options as fields of the form."""


def options_of(request: Request, form: Mapping[str, bytes] = _NONE) -> UploadOptions:
    """Returns the options that a request gives.

    Args:
        request: The request, whose query may give some.
        form: Those that its form gives.

    Raises:
        RecipeConflict: it names two recipes.
        OptionConflict: it gives another option twice, and not the same.
    """
    given = {name: _given(name, request, form) for name in OPTIONS}
    return UploadOptions(
        recipe=_text(given[RECIPE]),
        webhook=_text(given[WEBHOOK]),
        metadata=given[METADATA],
    )


def recipe_of(request: Request) -> str | None:
    """Returns the name of the recipe in the query; None: there is none.

    Raises:
        RecipeConflict: there are two.
    """
    return _text(_given(RECIPE, request, _NONE))


def _given(name: str, request: Request, form: Mapping[str, bytes]) -> bytes | None:
    values = {value.encode() for value in request.query_params.getlist(name)}
    if name in form:
        values.add(form[name])
    if len(values) > 1:
        raise conflict(name)
    return next(iter(values), None)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")
