"""Lets the pages of other origins use the API in a browser (the Fetch standard, section 3.3: CORS)."""

from collections.abc import Collection
from typing import Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from image_service.api.idempotency import KEY_HEADER
from image_service.api.prefer import APPLIED, HEADER

_METHODS: Final = ("GET", "HEAD", "POST", "PATCH", "DELETE")
_REQUEST_HEADERS: Final = (
    KEY_HEADER,
    HEADER,
    "X-Request-ID",
    "If-Match",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Range",
)
"""Headers that a page may send, besides those that it always may."""
_RESPONSE_HEADERS: Final = (
    "Accept-Ranges",
    "Content-Location",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotent-Replayed",
    "Location",
    APPLIED,
    "Retry-After",
    "X-Request-ID",
)
"""Headers that a page may read, besides those that it always may."""
_PREFLIGHT_SECONDS: Final = 600
"""Seconds for which a browser need not ask again."""


def share_with(app: FastAPI, origins: Collection[str]) -> None:
    """Makes the application answer preflight requests, and tell browsers that these origins may read its responses.

    There are no cookies or passwords, so a page's request says no more than any other program's.

    Args:
        app: The application.
        origins: Such as ``https://app.example``; ``*``: all.
    """
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=_REQUEST_HEADERS,
        allow_private_network=True,  # a public page that is listed here may reach a service in a private network
        expose_headers=_RESPONSE_HEADERS,
        max_age=_PREFLIGHT_SECONDS,
    )
