"""A TCP proxy with switchable network faults."""

import asyncio
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum, auto
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65_536


class Mode(Enum):
    """What happens to the bytes of every connection, old and new."""

    PASS = auto()
    DELAY = auto()
    """Each piece is forwarded ``delay`` seconds late."""

    RESET = auto()
    """Connections are reset, and so is each new one."""

    BLACK_HOLE = auto()
    """Connections are accepted and stay open, but no data is forwarded, not even the end of the stream."""

    LOSE_REPLY = auto()
    """A request that contains ``fatal`` is forwarded; its reply is dropped, and the connection is reset."""


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


class Proxy:
    """Listens on a free port of 127.0.0.1 while used as an async context manager.

    ``switch`` changes the mode at any time. Data held by a black hole is forwarded when the mode changes to PASS or
    DELAY, as TCP does after a network outage.
    """

    def __init__(self, host: str, port: int, delay: float = 0.1) -> None:
        self.mode = Mode.PASS
        self.delay = delay
        self.fatal = b""
        """Bytes that identify a request whose reply is dropped, such as ``COMMIT``."""
        self.lost = 0
        """Number of dropped replies."""
        self.accepted = 0
        """Number of accepted connections."""
        self.forwarded = 0
        """Number of forwarded bytes of requests."""
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def before(cls, url: str) -> Self:
        """Create a proxy for the URL's server."""
        return cls(*_address(url))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def url(self, url: str) -> str:
        """Return the same URL through the proxy."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}"))

    def lead_to(self, url: str) -> None:
        """Forward new connections to another server, as a load balancer does."""
        self._target = _address(url)

    def reset_connections(self) -> None:
        """Reset all open connections; new ones are not affected."""
        for end in self._ends:
            _reset(end)

    def switch(self, mode: Mode) -> None:
        """Change the mode of all connections."""
        self.mode = mode
        if mode is Mode.BLACK_HOLE:
            self._open.clear()
        else:
            self._open.set()
        if mode is Mode.RESET:
            self.reset_connections()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.accepted += 1
        ends = {writer}
        try:
            self._ends |= ends
            await self._open.wait()
            if self.mode is Mode.RESET:
                _reset(writer)
                return
            replies, upstream = await asyncio.open_connection(*self._target)
            ends.add(upstream)
            self._ends.add(upstream)
            drop_reply = asyncio.Event()
            await asyncio.gather(
                self._pump(reader, upstream, drop_reply), self._pump(replies, writer, drop_reply, ends)
            )
        except (OSError, asyncio.CancelledError):
            pass  # one side is closed: close the other; a cancelled handler would be reported as an error
        finally:
            self._ends -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        drop_reply: asyncio.Event,
        ends: Iterable[asyncio.StreamWriter] = (),
    ) -> None:
        """Forward requests; or replies, if ``ends`` names what to reset when one is dropped."""
        while data := await source.read(CHUNK):
            if self.mode is Mode.DELAY:
                await asyncio.sleep(self.delay)
            await self._open.wait()
            if not ends and self.mode is Mode.LOSE_REPLY and self.fatal in data:
                drop_reply.set()
            if ends and drop_reply.is_set():
                self.lost += 1
                for end in ends:
                    _reset(end)
                return
            sink.write(data)
            await sink.drain()
            if not ends:
                self.forwarded += len(data)
        await self._open.wait()
        with suppress(OSError):
            sink.write_eof()


def _reset(end: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN, by a zero linger time."""
    with suppress(OSError):
        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.transport.abort()
