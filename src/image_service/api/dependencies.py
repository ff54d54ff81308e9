"""What routes need from the application that serves them.

A route calls ``context_of(request)``, a plain function: a FastAPI dependency would add about 2 % to the time of a GET.
"""

import asyncio
from dataclasses import dataclass

from fastapi import FastAPI, Request

from image_service.api.event_stream import EventDocuments
from image_service.api.fixed_document import FixedDocument
from image_service.api.multipart import UploadReader
from image_service.api.stream_places import StreamPlaces
from image_service.api.upload_limit import UploadLimit
from image_service.api.urls import urls_of
from image_service.api.waiting import Waiting
from image_service.bootstrap import ApiServices
from image_service.documents.urls import Urls


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiContext:
    """What all requests to one application share."""

    services: ApiServices
    upload_reader: UploadReader
    upload_limit: UploadLimit
    recipe_list: FixedDocument
    limits: FixedDocument
    stream_places: StreamPlaces
    event_documents: EventDocuments
    public_url: str | None
    """The base of the URLs in responses; None: the address that the request was sent to."""
    standalone: bool
    """Whether API and worker run in one process, with the embedded queue."""
    waiting: Waiting
    stopping: asyncio.Event
    """Set when the process is about to end: requests do not wait for events any more."""

    def urls(self, request: Request) -> Urls:
        """Returns the URLs to use in the response to a request."""
        return urls_of(request, self.public_url)


def set_context(app: FastAPI, context: ApiContext) -> None:
    """Stores the context in the application's state."""
    app.state.context = context


def context_of(request: Request) -> ApiContext:
    """Returns the context of the application that serves the request."""
    context: ApiContext = request.app.state.context
    return context
