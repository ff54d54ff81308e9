"""The URLs in responses, as clients can use them."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit
from uuid import UUID

from starlette.requests import Request

from image_service.domain.image import Thumbnail
from image_service.domain.outputs import explicit_name

_HOST: Final = re.compile(r"[A-Za-z0-9.\-_]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_VERSION_LENGTH: Final = 16


class Urls:
    """Builds URLs below one base, such as ``https://img.example.org``."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._path = urlsplit(base).path

    def location(self, image_id: UUID) -> str:
        """Returns the path of an image's status, for a ``Location`` header."""
        return f"{self._path}/images/{image_id}"

    def after(self, image_id: UUID, query: Mapping[str, str]) -> str:
        """Returns the URL of the page that starts after an image, in a list with this query."""
        return f"{self._base}/images?{urlencode({**query, 'before': image_id})}"

    def original(self, image_id: UUID) -> str:
        """Returns the URL of an image's original."""
        return f"{self._base}/images/{image_id}/original"

    def thumbnail(self, image_id: UUID, thumbnail: Thumbnail) -> str:
        """Returns the URL of a thumbnail without the extension; a new version of it has a new URL."""
        return f"{self._base}/images/{image_id}/thumbnails/{thumbnail.output}?v={version(thumbnail.sha256)}"

    def explicit(self, image_id: UUID, thumbnail: Thumbnail) -> str:
        """Returns the URL of a thumbnail that names its format: the file at it never changes."""
        return f"{self._base}{_explicit(image_id, explicit_name(thumbnail), thumbnail.sha256)}"

    def content_location(self, image_id: UUID, name: str, sha256: str) -> str:
        """Returns the path of a thumbnail with this explicit name, for a ``Content-Location`` header."""
        return f"{self._path}{_explicit(image_id, name, sha256)}"


def urls_of(request: Request, public_url: str | None) -> Urls:
    """Returns URLs below the configured base, or below the address that the request was sent to."""
    return Urls(public_url or f"{request.scope['scheme']}://{_host(request)}")


def _explicit(image_id: UUID, name: str, sha256: str) -> str:
    return f"/images/{image_id}/thumbnails/{name}?v={version(sha256)}"


def version(sha256: str) -> str:
    """Returns the part of a file's hash that identifies its version in a URL."""
    return sha256[:_VERSION_LENGTH]


def _host(request: Request) -> str:
    host = request.headers.get("host", "")
    if _HOST.fullmatch(host):
        return host
    address, port = request.scope.get("server") or ("localhost", None)
    if ":" in address:
        address = f"[{address}]"
    return f"{address}:{port}" if port else address
