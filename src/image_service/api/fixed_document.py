"""Responses that stay the same for as long as the process runs."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self

from fastapi import Request, Response
from pydantic import BaseModel

from image_service.api.caching import CachePolicy
from image_service.api.conditional import is_not_modified
from image_service.api.security_headers import NOSNIFF

_CACHE: Final = CachePolicy(public=True, max_age=60).header
"""What it describes changes only with the service's settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedDocument:
    """A JSON document that is encoded once."""

    body: bytes
    etag: str

    @classmethod
    def of(cls, model: BaseModel) -> Self:
        """Encodes a document."""
        body = model.model_dump_json(by_alias=True).encode()
        return cls(body=body, etag=f'"{sha256(body).hexdigest()}"')

    def response(self, request: Request) -> Response:
        """Returns the response to a GET or HEAD request for it."""
        headers = {"ETag": self.etag, "Cache-Control": _CACHE, **NOSNIFF}
        if is_not_modified(request, self.etag):
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers=headers, media_type="application/json")
