"""The headers of a 202 response: where to find the image's status, and when to ask for it."""

from typing import Final
from uuid import UUID

from fastapi import Response

from image_service.documents.urls import Urls

_RETRY_AFTER: Final = "1"
"""Seconds: most images are DONE by then."""


def set_accepted_headers(response: Response, urls: Urls, image_id: UUID) -> None:
    """Sets the headers that point the client to the status of an accepted image."""
    response.headers["Location"] = urls.location(image_id)
    response.headers["Retry-After"] = _RETRY_AFTER
