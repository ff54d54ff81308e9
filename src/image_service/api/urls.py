"""The base of the URLs in a response: the configured one, or the address that the request was sent to."""

import re
from typing import Final

from starlette.requests import Request

from image_service.documents.urls import Urls

_HOST: Final = re.compile(r"[A-Za-z0-9.\-_]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")


def urls_of(request: Request, public_url: str | None) -> Urls:
    """Returns URLs below the configured base, or below the address that the request was sent to."""
    return Urls(public_url or f"{request.scope['scheme']}://{_host(request)}")


def _host(request: Request) -> str:
    host = request.headers.get("host", "")
    if _HOST.fullmatch(host):
        return host
    address, port = request.scope.get("server") or ("localhost", None)
    if ":" in address:
        address = f"[{address}]"
    return f"{address}:{port}" if port else address
