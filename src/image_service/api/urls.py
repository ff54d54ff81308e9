"""The addresses of things, as clients see them."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit
from uuid import UUID

from starlette.requests import Request

from image_service.domain.image import Thumbnail

_HOST: Final = re.compile(r"[A-Za-z0-9.\-_]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_VERSION_LENGTH: Final = 16


class Urls:
    """Builds addresses below one base, such as ``https://img.example.org``."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._path = urlsplit(base).path

    def location(self, image_id: UUID) -> str:
        """The path of an image's status, for a ``Location`` header."""
        return f"{self._path}/images/{image_id}"

    def after(self, image_id: UUID, query: Mapping[str, str]) -> str:
        """Where the page of images is that follows an image, in a list asked for with this query."""
        return f"{self._base}/images?{urlencode({**query, 'before': image_id})}"

    def original(self, image_id: UUID) -> str:
        """Where an image's original is."""
        return f"{self._base}/images/{image_id}/original"

    def thumbnail(self, image_id: UUID, thumbnail: Thumbnail) -> str:
        """Where a thumbnail is; a new version of it has a new address."""
        return f"{self._base}/images/{image_id}/thumbnails/{thumbnail.preset}?v={version(thumbnail.sha256)}"


def urls_of(request: Request, public_url: str | None) -> Urls:
    """Addresses below the configured base, or else below the one that the request was made to."""
    return Urls(public_url or f"{request.scope['scheme']}://{_host(request)}")


def version(sha256: str) -> str:
    """What tells versions of a file apart in its address."""
    return sha256[:_VERSION_LENGTH]


def _host(request: Request) -> str:
    host = request.headers.get("host", "")
    if _HOST.fullmatch(host):
        return host
    address, port = request.scope.get("server") or ("localhost", None)
    if ":" in address:
        address = f"[{address}]"
    return f"{address}:{port}" if port else address
