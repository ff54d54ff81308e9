"""Serves the application on a socket until a stop event is set."""

import asyncio
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, cast

import uvicorn
from fastapi import FastAPI

from image_service.api.connections import Connection, ConnectionLimits, OpenConnections

_ACCEPT_TIMEOUT: Final = 2.0
"""Seconds in which a stopping server accepts the connections that the kernel has taken for it."""
_ACCEPT_POLL: Final = 0.01


async def serve(
    app: FastAPI,
    listener: socket.socket,
    stop: asyncio.Event,
    *,
    drain_timeout: float,
    started: Callable[[], None],
    connections: OpenConnections | None = None,
) -> None:
    """Answers requests until ``stop`` is set; then accepts no more and completes those in progress.

    Args:
        app: The application.
        listener: A listening socket; it is closed at the end.
        stop: Ends the server.
        drain_timeout: Seconds that requests in progress have to complete after that.
        started: Called once requests are answered.
        connections: Watches the connections; if left out, with the default limits.
    """
    if connections is None:
        connections = OpenConnections(ConnectionLimits())
    server = _Server(
        uvicorn.Config(
            app,
            # A function that makes one, which uvicorn calls like a class.
            http=cast("type[asyncio.Protocol]", partial(Connection, connections)),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, int(drain_timeout)),
        ),
        started,
    )

    async def stop_when_set() -> None:
        await stop.wait()
        connections.drain()
        server.should_exit = True

    helpers = {asyncio.create_task(stop_when_set()), asyncio.create_task(connections.watch())}
    try:
        await server.serve(sockets=[listener])
    finally:
        for helper in helpers:
            helper.cancel()


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
        waiting = select.poll()
        for listener in sockets or ():
            waiting.register(listener, select.POLLIN)
        with suppress(TimeoutError):
            async with asyncio.timeout(_ACCEPT_TIMEOUT):
                while waiting.poll(0):  # noqa: ASYNC110 — the kernel tells no event
                    await asyncio.sleep(_ACCEPT_POLL)
        await super().shutdown(sockets)
