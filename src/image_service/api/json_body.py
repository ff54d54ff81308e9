"""Reads JSON bodies within bounds of size and time, which FastAPI, that validates them, does not have."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import Message

from image_service.api.multipart import check_encoding, content_length
from image_service.api.parameters import parse_parameters
from image_service.errors import BodyTimeout, BodyTooLarge, MalformedRequest, NotJson

MAX_BODY: Final = 16 * 1024
"""Bytes of a JSON body."""
MAX_SECONDS: Final = 15.0
"""Until it has arrived: as long as a request's head has."""


class JsonRoute(APIRoute):
    """An operation whose body, if it takes one, is JSON. Set as the ``route_class`` of a router."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Returns what handles a request: FastAPI's handler, which gets the whole body at once."""
        handle = super().get_route_handler()
        return handle if self.body_field is None else _with_body(handle)


def _with_body(
    handle: Callable[[Request], Coroutine[Any, Any, Response]],
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def handle_with_body(request: Request) -> Response:
        body = await read_json(request)

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        return await handle(Request(request.scope, receive))

    return handle_with_body


async def read_json(request: Request, *, seconds: float = MAX_SECONDS) -> bytes:
    """Returns the body of a request, which its Content-Type says is JSON.

    Args:
        request: The request.
        seconds: For which its body is waited for.

    Raises:
        NotJson: it says something else.
        UnsupportedEncoding: the body is compressed.
        BodyTooLarge: it has more than ``MAX_BODY`` bytes.
        BodyTimeout: it did not arrive in time.
        MalformedRequest: the connection was closed before.
    """
    kind, _ = parse_parameters(request.headers.get("content-type", ""))
    if kind != "application/json":
        raise NotJson
    check_encoding(request)
    if content_length(request) > MAX_BODY:
        raise BodyTooLarge
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise BodyTooLarge
    except TimeoutError:
        raise BodyTimeout from None
    except ClientDisconnect:
        raise MalformedRequest("The connection was closed before the request's body was complete.") from None
    return bytes(body)
