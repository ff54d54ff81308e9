"""Serves the application on a socket until a stop event is set."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI

_KEEP_ALIVE: Final = 75
"""Seconds that an idle connection stays open: longer than with load balancers, so that they reuse no closed one."""


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
            http="httptools",
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


class _Server(uvicorn.Server):
    """Leaves signal handling to the process, and reports when it is ready."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()
