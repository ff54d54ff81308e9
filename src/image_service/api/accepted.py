"""What is answered for an image that is processed: 202 and where to find its status, or the finished image."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from fastapi import Response

from image_service.api.caching import NO_STORE
from image_service.api.prefer import APPLIED
from image_service.api.waiting import Wait
from image_service.documents.image import ImageStatus, image_status
from image_service.documents.urls import Urls
from image_service.domain.image import Image
from image_service.domain.recipe import Recipes

_RETRY_AFTER: Final = "1"
"""Seconds: most images are DONE by then."""

_WAITED: Final = {APPLIED: {"description": "The wait that was applied.", "schema": {"type": "string"}}}
_LOCATED: Final = _WAITED | {
    "Content-Location": {"description": "The path of the image's status.", "schema": {"type": "string"}}
}

FINISHED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "model": ImageStatus,
        "description": "The image is DONE or in ERROR. Only after `Prefer: wait`.",
        "headers": _LOCATED,
    }
}
"""The OpenAPI description of the answer to an operation that usually answers 202."""

STILL_WAITING: Final[dict[int | str, dict[str, Any]]] = {
    202: {
        "model": ImageStatus,
        "description": "The image is not finished yet. Only after `Prefer: wait`.",
        "headers": _WAITED,
    }
}
"""The OpenAPI description of the answer to an operation that usually answers 200."""


def set_accepted_headers(response: Response, urls: Urls, image_id: UUID, wait: Wait | None) -> None:
    """Sets the headers that point the client to the status of an accepted image."""
    response.headers["Location"] = urls.location(image_id)
    response.headers["Retry-After"] = _RETRY_AFTER
    if wait is not None:
        response.headers[APPLIED] = wait.applied


def set_waited_headers(response: Response, urls: Urls, image: Image, wait: Wait) -> None:
    """Sets the status of a response that waited for an image, and the headers that say so."""
    response.headers[APPLIED] = wait.applied
    if image.status.terminal:
        response.headers["Content-Location"] = urls.location(image.id)
    else:
        response.status_code = 202


def finished_response(image: Image, urls: Urls, recipes: Recipes, wait: Wait, headers: Mapping[str, str]) -> Response:
    """Returns the response that shows an image which is finished, with some other headers."""
    response = Response(
        image_status(image, urls, recipes).model_dump_json(by_alias=True),
        media_type="application/json",
        headers={**headers, "Cache-Control": NO_STORE},
    )
    set_waited_headers(response, urls, image, wait)
    return response
