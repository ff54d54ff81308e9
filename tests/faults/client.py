"""An HTTP client that records every request and response in the history."""

import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import httpx

from harness.forms import CONTENT_TYPE, form, part
from harness.pace import Stopwatch, slowness
from harness.plain_http import NO_TLS
from tests.faults.history import Exchange, History, Operation, Seen, Sent
from tests.faults.rules import ANSWER_LIMIT

PROBLEM = "application/problem+json"
KEY_HEADER = "Idempotency-Key"
REQUEST_ID_HEADER = "X-Request-ID"
RECIPE = "recipe"
"""The query parameter."""
_TIMEOUT = 20.0
"""Seconds; much longer than any response may take, so that the actual time is measured."""
_PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Abilities:
    """Optional operations of the API, from its OpenAPI document."""

    keys: bool
    delete: bool
    reprocess: bool
    recipes: bool

    @classmethod
    async def of(cls, url: str) -> "Abilities":
        """Read the API's OpenAPI document."""
        async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT, trust_env=False, verify=NO_TLS) as http:
            paths: dict[str, Any] = (await http.get("/openapi.json")).raise_for_status().json()["paths"]
        parameters = paths["/images"]["post"].get("parameters", ())
        return cls(
            keys=any(each["name"].lower() == KEY_HEADER.lower() for each in parameters),
            delete="delete" in paths["/images/{image_id}"],
            reprocess="/images/{image_id}/reprocess" in paths,
            recipes=any(each["name"] == RECIPE for each in parameters),
        )


class Client:
    """Sends requests to one of several API processes, each on a new connection: an old one may be dead."""

    def __init__(self, urls: dict[str, str], history: History) -> None:
        self._urls = urls
        self._history = history
        self._http = httpx.AsyncClient(
            timeout=_TIMEOUT,
            trust_env=False,
            verify=NO_TLS,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def close(self) -> None:
        """Close the client."""
        await self._http.aclose()

    async def upload(self, server: str, content: bytes, sent: Sent, wait: float = 0) -> Exchange:
        """``POST /images``; wait for the end, at most a number of seconds."""
        path = f"/images{_query(recipe=sent.recipe, webhook=sent.webhook_id, metadata=sent.metadata)}"
        return await self._ask(server, _Request(Operation.UPLOAD, "POST", path, content=content, sent=sent, wait=wait))

    async def status(self, server: str, image_id: str, wait: float = 0) -> Exchange:
        """``GET /images/{id}``; the same."""
        return await self._ask(server, _Request(Operation.STATUS, "GET", f"/images/{image_id}", image_id, wait=wait))

    async def original(self, server: str, image_id: str) -> Exchange:
        """``GET /images/{id}/original``."""
        return await self._ask(server, _Request(Operation.ORIGINAL, "GET", f"/images/{image_id}/original", image_id))

    async def thumbnail(self, server: str, image_id: str, output: str) -> Exchange:
        """``GET /images/{id}/thumbnails/{output}``."""
        path = f"/images/{image_id}/thumbnails/{output}"
        return await self._ask(server, _Request(Operation.THUMBNAIL, "GET", path, image_id, output))

    async def delete(self, server: str, image_id: str) -> Exchange:
        """``DELETE /images/{id}``."""
        return await self._ask(server, _Request(Operation.DELETE, "DELETE", f"/images/{image_id}", image_id))

    async def reprocess(self, server: str, image_id: str, recipe: str | None = None) -> Exchange:
        """``POST /images/{id}/reprocess``."""
        path = f"/images/{image_id}/reprocess{_query(recipe=recipe)}"
        return await self._ask(server, _Request(Operation.REPROCESS, "POST", path, image_id, recipe=recipe))

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
        waited = body.sent.seconds
        body_json = {} if answer is None else _json(answer)
        exchange = Exchange(
            operation=request.operation,
            server=server,
            began=began,
            ended=time.time(),
            waited=waited,
            slowness=slowness() if waited > ANSWER_LIMIT else 1.0,
            status_code=None if answer is None else answer.status_code,
            problem=answer is not None and answer.headers.get("content-type", "").startswith(PROBLEM),
            code=body_json.get("code"),
            retry_after=answer is not None and "retry-after" in answer.headers,
            image_id=request.image_id or body_json.get("id"),
            sent=request.sent,
            wait=request.wait,
            recipe=request.recipe,
            seen=None if answer is None or answer.is_error else _seen(request, answer, body_json),
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
    recipe: str | None = None
    wait: float = 0


class _Body:
    """A request body that records when its last byte was sent."""

    def __init__(self, request: _Request) -> None:
        self._form = None if request.content is None else form(part(request.content))
        self.headers = {REQUEST_ID_HEADER: uuid4().hex}
        if self._form is not None:
            self.headers |= {"Content-Type": CONTENT_TYPE, "Content-Length": str(len(self._form))}
        if request.sent is not None and request.sent.key is not None:
            self.headers[KEY_HEADER] = request.sent.key
        if request.wait:
            self.headers["Prefer"] = f"wait={request.wait:.0f}"
        self.sent = Stopwatch()

    def pieces(self) -> AsyncIterator[bytes] | None:
        return None if self._form is None else self._send(self._form)

    async def _send(self, content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), _PIECE):
            yield content[start : start + _PIECE]
        self.sent = Stopwatch()


def _query(**parameters: str | None) -> str:
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _json(answer: httpx.Response) -> dict[str, Any]:
    """Return the response's JSON object, or an empty one."""
    if not answer.content or "json" not in answer.headers.get("content-type", ""):
        return {}
    body_json = answer.json()
    return body_json if isinstance(body_json, dict) else {}


def _seen(request: _Request, answer: httpx.Response, body_json: dict[str, Any]) -> Seen | None:
    if request.operation is Operation.STATUS or (request.operation is Operation.UPLOAD and request.wait):
        error = body_json.get("error") or {}
        return Seen(state=body_json["status"], finished_at=body_json.get("finished_at"), code=error.get("code"))
    if request.operation in {Operation.ORIGINAL, Operation.THUMBNAIL}:
        return Seen(preset=request.preset, sha256=hashlib.sha256(answer.content).hexdigest())
    return None
