"""Serves the application on a socket until a stop event is set."""

import asyncio
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_KEEP_ALIVE: Final = 75
"""Seconds that an idle connection stays open: longer than with load balancers, so that they reuse no closed one."""
_FIRST_REQUEST: Final = 2.0
"""Seconds that a stopping server waits for the first request of a connection: the client may be sending it."""
_ACCEPT_POLL: Final = 0.01


async def serve(
    app: FastAPI, listener: socket.socket, stop: asyncio.Event, *, drain_timeout: float, started: Callable[[], None]
) -> None:
    """Answers requests until ``stop`` is set; then accepts no more and completes those in progress.

    Args:
        app: The application.
        listener: A listening socket; it is closed at the end.
        stop: Ends the server.
        drain_timeout: Seconds that requests in progress have to complete after that.
        started: Called once requests are answered.
    """
    server = _Server(
        uvicorn.Config(
            app,
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=max(1, int(drain_timeout)),
        ),
        started,
    )

    async def stop_when_set() -> None:
        await stop.wait()
        server.should_exit = True

    watcher = asyncio.create_task(stop_when_set())
    try:
        await server.serve(sockets=[listener])
    finally:
        watcher.cancel()


class _Connection(HttpToolsProtocol):
    """A connection that is answered once more when the server stops, if it is too new for its first request."""

    _is_new = True
    _stopping = False

    def shutdown(self) -> None:
        if self._is_new:
            self._stopping = True
            self.loop.call_later(_FIRST_REQUEST, self._close_if_new)
        else:
            super().shutdown()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._is_new = False
        if self._stopping:
            self.cycle.keep_alive = False

    def _close_if_new(self) -> None:
        if self._is_new:
            self.transport.close()


class _Server(uvicorn.Server):
    """Leaves signal handling to the process, reports when it is ready, and stops without refusing a connection."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # The kernel resets connections that it has taken, and that are not accepted yet, when the socket is closed.
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_REQUEST):
                while sockets and select.select(sockets, [], [], 0)[0]:  # noqa: ASYNC110 — the kernel tells no event
                    await asyncio.sleep(_ACCEPT_POLL)
        await super().shutdown(sockets)
