"""ASGI requests and responses without a server."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope


def scope(method: str = "GET", path: str = "/", headers: Mapping[str, str] | None = None, **more: Any) -> Scope:  # noqa: ANN401 (whatever ASGI has)
    """Returns the scope of a request as the server passes it on; its peer is 203.0.113.7."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": raw_headers(headers or {}),
        "client": ("203.0.113.7", 50_000),
        "server": ("192.0.2.1", 8000),
        "state": {},
        **more,
    }


def raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


def request(method: str = "GET", path: str = "/", headers: Mapping[str, str] | None = None, **more: Any) -> Request:  # noqa: ANN401 (as above)
    """Returns a request without a body."""
    return Request(scope(method, path, headers, **more))


class Body:
    """The ``receive`` of a request: chunks of a body, then the end of the body, a disconnect, or silence."""

    def __init__(self, chunks: Iterable[bytes], then: str = "end") -> None:
        endings: dict[str, list[Message]] = {
            "end": [{"type": "http.request", "body": b"", "more_body": False}],
            "disconnect": [{"type": "http.disconnect"}],
            "silence": [],
        }
        self._messages: list[Message] = [
            *({"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks),
            *endings[then],
        ]
        self.received = 0
        """How many messages were requested."""

    async def __call__(self) -> Message:
        self.received += 1
        if self.received > len(self._messages):
            await asyncio.Event().wait()
        return self._messages[self.received - 1]


@dataclass
class Answer:
    """Collects the response that an application sends."""

    status: int | None = None
    headers: Headers = field(default_factory=Headers)
    chunks: list[bytes] = field(default_factory=list)

    async def send(self, message: Message) -> None:
        """The application's ``send``."""
        if message["type"] == "http.response.start":
            assert self.status is None, "answered twice"
            self.status = message["status"]
            self.headers = Headers(raw=list(message["headers"]))
        else:
            self.chunks.append(message.get("body", b""))

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


async def call(app: ASGIApp, request_scope: Scope, receive: Receive | None = None) -> Answer:
    """Returns the application's response to a request; by default one without a body whose client stays connected."""
    answer = Answer()
    await app(request_scope, receive or Body([], then="silence"), answer.send)
    return answer
