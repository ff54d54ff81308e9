"""A router whose GET operations answer HEAD requests too."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter


class Router(APIRouter):
    """Answers HEAD wherever it answers GET (RFC 9110, section 9.3.2), with the same headers.

    The server leaves the body out. A HEAD operation is a route of its own, because FastAPI would describe a route with
    two methods as two operations.
    """

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401 (FastAPI's)
        """Adds an operation, and after one for GET the same for HEAD, which the OpenAPI description leaves out."""
        super().add_api_route(path, endpoint, **options)
        if options.get("methods") == ["GET"]:
            super().add_api_route(path, endpoint, **options | {"methods": ["HEAD"], "include_in_schema": False})
