"""A receiver of webhooks: a real HTTP server on loopback that answers as its script says, and keeps what came."""

import asyncio
import json
import ssl
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from http.client import parse_headers
from io import BytesIO
from typing import Any, Final, Self
from urllib.parse import urlsplit

_MAX_HEAD: Final = 65_536


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: float | None = 0.0
    """Seconds before it is sent; None: it never is, and the connection stays open."""


OK: Final = Reply()
HANG: Final = Reply(after=None)
GONE: Final = Reply(status=410, body=b"gone")


def redirect(to: str) -> Reply:
    return Reply(status=302, headers={"location": to})


def busy(retry_after: str | None = None, status: int = 429) -> Reply:
    return Reply(status=status, headers={} if retry_after is None else {"retry-after": retry_after}, body=b"busy")


@dataclass(frozen=True, kw_only=True)
class Received:
    """A request."""

    path: str
    at: float
    """Seconds since the receiver began."""
    headers: Message
    body: bytes

    @property
    def event_id(self) -> str:
        return str(self.headers["webhook-id"])

    @property
    def document(self) -> Mapping[str, Any]:
        """The event."""
        found: Mapping[str, Any] = json.loads(self.body)
        return found


class Receiver:
    """Receives at any path, each with a script of its own; without one, it answers 204.

    Args:
        tls: Makes it an HTTPS server.
        host: The name or address in its URLs.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._tls = tls
        self._host = host
        self._scripts: dict[str, list[Reply]] = {}
        self._began = time.monotonic()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.received: list[Received] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls, limit=_MAX_HEAD)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    def now(self) -> float:
        """Seconds since the receiver began."""
        return time.monotonic() - self._began

    def url(self, path: str) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"http{'s' if self._tls else ''}://{self._host}:{port}/{path}"

    def script(self, path: str, *replies: Reply) -> str:
        """Give the answers at a path in order, the last one again and again; returns its URL."""
        self._scripts[path] = list(replies)
        return self.url(path)

    def at(self, path: str) -> Sequence[Received]:
        """What came to a path."""
        return [each for each in self.received if each.path == path]

    def ids(self) -> Mapping[str, Sequence[str]]:
        """The ids of the events that came, by path."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for each in self.received:
            found[each.path].append(each.event_id)
        return found

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the receiver ends
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Receive and answer one request; returns whether to expect another one."""
        head = await reader.readuntil(b"\r\n\r\n")
        line, _, rest = head.partition(b"\r\n")
        headers = parse_headers(BytesIO(rest))
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path = urlsplit(line.split()[1].decode()).path.removeprefix("/")
        self.received.append(Received(path=path, at=self.now(), headers=headers, body=body))
        reply = self._next(path)
        if reply.after is None:
            await reader.read()  # until the client gives up
            return False
        await asyncio.sleep(reply.after)
        fields = {**reply.headers, "content-length": str(len(reply.body))}
        answer = "".join(
            [f"HTTP/1.1 {reply.status} Scripted\r\n", *(f"{k}: {v}\r\n" for k, v in fields.items()), "\r\n"]
        )
        writer.write(answer.encode() + (b"" if reply.status == 204 else reply.body))
        await writer.drain()
        return True

    def _next(self, path: str) -> Reply:
        script = self._scripts.get(path)
        if not script:
            return OK
        return script[0] if len(script) == 1 else script.pop(0)
