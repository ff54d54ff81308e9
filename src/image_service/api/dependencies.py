"""The FastAPI dependency that gives routes what they need from their application."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from image_service.api.multipart import UploadReader
from image_service.api.upload_limit import UploadLimit
from image_service.api.urls import Urls, urls_of
from image_service.bootstrap import ApiServices


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiContext:
    """What all requests to one application share."""

    services: ApiServices
    upload_reader: UploadReader
    upload_limit: UploadLimit
    public_url: str | None
    """The base of the URLs in responses; None: the address that the request was sent to."""
    standalone: bool
    """Whether API and worker run in one process, with the embedded queue."""

    def urls(self, request: Request) -> Urls:
        """Returns the URLs to use in the response to a request."""
        return urls_of(request, self.public_url)


def set_context(app: FastAPI, context: ApiContext) -> None:
    """Stores the context in the application's state, where ``Context`` finds it."""
    app.state.context = context


async def _context_of(request: Request) -> ApiContext:
    # A coroutine function, because FastAPI runs plain functions in a thread.
    context: ApiContext = request.app.state.context
    return context


Context = Annotated[ApiContext, Depends(_context_of)]
"""A route's parameter of this type receives the application's context. One dependency per route: each costs time."""
