"""A client of the service that writes down everything it asks and is told."""

import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from harness.forms import CONTENT_TYPE, form, part
from tests.faults.history import Exchange, History, Operation, Seen, Sent

PROBLEM = "application/problem+json"
KEY_HEADER = "Idempotency-Key"
REQUEST_ID_HEADER = "X-Request-ID"
_PATIENCE = 20.0
"""Seconds that it waits for an answer: much longer than any may take, to see how long it does."""
_PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the API says that it can do beyond the first version's operations."""

    keys: bool
    delete: bool
    reprocess: bool

    @classmethod
    async def of(cls, url: str) -> "Abilities":
        """Read the API's own description."""
        async with httpx.AsyncClient(base_url=url, timeout=_PATIENCE, trust_env=False) as http:
            paths: dict[str, Any] = (await http.get("/openapi.json")).raise_for_status().json()["paths"]
        parameters = paths["/images"]["post"].get("parameters", ())
        return cls(
            keys=any(each["name"].lower() == KEY_HEADER.lower() for each in parameters),
            delete="delete" in paths["/images/{image_id}"],
            reprocess="/images/{image_id}/reprocess" in paths,
        )


class Client:
    """Asks one of several API processes. Each request has a connection of its own: an old one may be dead by now."""

    def __init__(self, urls: dict[str, str], history: History) -> None:
        self._urls = urls
        self._history = history
        self._http = httpx.AsyncClient(
            timeout=_PATIENCE, trust_env=False, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )

    async def close(self) -> None:
        """Ask nothing more."""
        await self._http.aclose()

    async def upload(self, server: str, content: bytes, sent: Sent) -> Exchange:
        """``POST /images``."""
        return await self._ask(server, _Request(Operation.UPLOAD, "POST", "/images", content=content, sent=sent))

    async def status(self, server: str, image_id: str) -> Exchange:
        """``GET /images/{id}``."""
        return await self._ask(server, _Request(Operation.STATUS, "GET", f"/images/{image_id}", image_id))

    async def original(self, server: str, image_id: str) -> Exchange:
        """``GET /images/{id}/original``."""
        return await self._ask(server, _Request(Operation.ORIGINAL, "GET", f"/images/{image_id}/original", image_id))

    async def thumbnail(self, server: str, image_id: str, preset: str) -> Exchange:
        """``GET /images/{id}/thumbnails/{preset}``."""
        path = f"/images/{image_id}/thumbnails/{preset}"
        return await self._ask(server, _Request(Operation.THUMBNAIL, "GET", path, image_id, preset))

    async def delete(self, server: str, image_id: str) -> Exchange:
        """``DELETE /images/{id}``."""
        return await self._ask(server, _Request(Operation.DELETE, "DELETE", f"/images/{image_id}", image_id))

    async def reprocess(self, server: str, image_id: str) -> Exchange:
        """``POST /images/{id}/reprocess``."""
        path = f"/images/{image_id}/reprocess"
        return await self._ask(server, _Request(Operation.REPROCESS, "POST", path, image_id))

    async def _ask(self, server: str, request: "_Request") -> Exchange:
        body = _Body(request)
        began = time.time()
        answer: httpx.Response | None = None
        error: str | None = None
        try:
            url = self._urls[server] + request.path
            answer = await self._http.request(request.method, url, content=body.pieces(), headers=body.headers)
        except httpx.HTTPError as caught:
            error = repr(caught)
        waited = time.monotonic() - body.sent_at
        told = {} if answer is None else _told(answer)
        exchange = Exchange(
            operation=request.operation,
            server=server,
            began=began,
            ended=time.time(),
            waited=waited,
            status_code=None if answer is None else answer.status_code,
            problem=answer is not None and answer.headers.get("content-type", "").startswith(PROBLEM),
            code=told.get("code"),
            image_id=request.image_id or told.get("id"),
            sent=request.sent,
            seen=None if answer is None or answer.is_error else _seen(request, answer, told),
            error=error,
            request_id=body.headers[REQUEST_ID_HEADER],
        )
        self._history.append(exchange)
        return exchange


@dataclass(frozen=True, slots=True)
class _Request:
    operation: Operation
    method: str
    path: str
    image_id: str | None = None
    preset: str | None = None
    content: bytes | None = None
    sent: Sent | None = None


class _Body:
    """A request's body, which knows when the last byte of it was sent."""

    def __init__(self, request: _Request) -> None:
        self._form = None if request.content is None else form(part(request.content))
        self.headers = {REQUEST_ID_HEADER: uuid4().hex}
        if self._form is not None:
            self.headers |= {"Content-Type": CONTENT_TYPE, "Content-Length": str(len(self._form))}
        if request.sent is not None and request.sent.key is not None:
            self.headers[KEY_HEADER] = request.sent.key
        self.sent_at = time.monotonic()

    def pieces(self) -> AsyncIterator[bytes] | None:
        return None if self._form is None else self._send(self._form)

    async def _send(self, content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), _PIECE):
            yield content[start : start + _PIECE]
        self.sent_at = time.monotonic()


def _told(answer: httpx.Response) -> dict[str, Any]:
    """The answer's JSON object, if it is one."""
    if not answer.content or "json" not in answer.headers.get("content-type", ""):
        return {}
    told = answer.json()
    return told if isinstance(told, dict) else {}


def _seen(request: _Request, answer: httpx.Response, told: dict[str, Any]) -> Seen | None:
    if request.operation is Operation.STATUS:
        error = told["error"] or {}
        return Seen(state=told["status"], finished_at=told["finished_at"], code=error.get("code"))
    if request.operation in {Operation.ORIGINAL, Operation.THUMBNAIL}:
        return Seen(preset=request.preset, sha256=hashlib.sha256(answer.content).hexdigest())
    return None
