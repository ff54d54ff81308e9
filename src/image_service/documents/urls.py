"""The URLs in documents, as clients can use them."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit
from uuid import UUID

from image_service.domain.image import Thumbnail
from image_service.domain.outputs import explicit_name

_VERSION_LENGTH: Final = 16


class Urls:
    """Builds URLs below one base, such as ``https://img.example.org``."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._path = urlsplit(base).path

    def location(self, image_id: UUID) -> str:
        """Returns the path of an image's status, for a ``Location`` header."""
        return f"{self._path}/images/{image_id}"

    def after(self, image_id: UUID, query: Mapping[str, str]) -> str:
        """Returns the URL of the page that starts after an image, in a list with this query."""
        return f"{self.base}/images?{urlencode({**query, 'before': image_id})}"

    def events(self, image_id: UUID | None, query: Mapping[str, str]) -> str:
        """Returns the URL of the events of an image, or of all, with this query."""
        path = "/events" if image_id is None else f"/images/{image_id}/events"
        return f"{self.base}{path}?{urlencode(query)}"

    def webhook(self, webhook_id: UUID) -> str:
        """Returns the path of a webhook endpoint, for a ``Location`` header."""
        return f"{self._path}/webhooks/{webhook_id}"

    def deliveries(self, webhook_id: UUID, *, before: int, limit: int) -> str:
        """Returns the URL of the page of an endpoint's deliveries that comes after one."""
        return f"{self.base}/webhooks/{webhook_id}/deliveries?{urlencode({'limit': limit, 'before': before})}"

    def original(self, image_id: UUID) -> str:
        """Returns the URL of an image's original."""
        return f"{self.base}/images/{image_id}/original"

    def thumbnails(self, image_id: UUID) -> "ThumbnailUrls":
        """Returns the URLs of an image's thumbnails."""
        return ThumbnailUrls(f"{self.base}{_thumbnails(image_id)}")

    def content_location(self, image_id: UUID, name: str, sha256: str) -> str:
        """Returns the path of a thumbnail with this explicit name, for a ``Content-Location`` header."""
        return f"{self._path}{_thumbnails(image_id)}{name}?v={version(sha256)}"


class ThumbnailUrls:
    """The URLs of one image's thumbnails; a new version of one has a new URL."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def plain(self, thumbnail: Thumbnail) -> str:
        """Returns the URL with the name of the output alone."""
        return f"{self._prefix}{thumbnail.output}?v={version(thumbnail.sha256)}"

    def explicit(self, thumbnail: Thumbnail) -> str:
        """Returns the URL that names the format: the file at it never changes."""
        return f"{self._prefix}{explicit_name(thumbnail)}?v={version(thumbnail.sha256)}"


def _thumbnails(image_id: UUID) -> str:
    return f"/images/{image_id}/thumbnails/"


def version(sha256: str) -> str:
    """Returns the part of a file's hash that identifies its version in a URL."""
    return sha256[:_VERSION_LENGTH]
