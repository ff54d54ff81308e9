"""The process that serves the API."""

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

from image_service.api.connections import (
    ConnectionLimits,
    OpenConnections,
    connections_within,
    raise_descriptor_limit,
)
from image_service.api.listening import listen, url_of, warn_of_open_access
from image_service.api.main import create_app
from image_service.api.server import serve
from image_service.bootstrap import Resources, api_services, open_resources, storage_binding
from image_service.config import Settings
from image_service.errors import ForeignStorage
from image_service.observability.metrics import Metrics
from image_service.program.process import logging_to_stderr, measured_backlog, run, stop_on_signals, telemetry
from image_service.services.outage_retry import retry_on_outage

_log = structlog.get_logger(__name__)


def run_api(settings: Settings, *, migrate: bool) -> None:
    """Serve the API until SIGTERM, SIGINT or SIGHUP.

    Raises:
        ForeignStorage: the storage holds another database's files.
        StartError: the address cannot be listened on, or the database cannot be migrated.
    """
    with logging_to_stderr(settings) as log:
        if migrate:
            from image_service.program.migrations import run_migrations  # noqa: PLC0415 — see __init__

            run_migrations(settings)
        with telemetry(settings, "api", log) as metrics:
            listener = listen(settings.api_host, settings.api_port)

            def started() -> None:
                warn_of_open_access(listener)
                _log.info("api started", address=url_of(listener))

            run(_api(settings, listener, metrics, started))


async def _api(
    settings: Settings, listener: socket.socket, metrics: Metrics | None, started: Callable[[], None]
) -> None:
    stop = stop_on_signals()
    async with (
        open_resources(settings, metrics) as resources,
        measured_backlog(settings, resources),
        open_app(settings, resources, metrics, stop) as app,
    ):
        connections = open_connections(settings, metrics)
        async with bound_storage(resources):
            await serve(
                app, listener, stop, drain_timeout=settings.drain_timeout, started=started, connections=connections
            )


@asynccontextmanager
async def open_app(
    settings: Settings, resources: Resources, metrics: Metrics | None, stop: asyncio.Event
) -> AsyncIterator[FastAPI]:
    """Provide the application for the duration of the block. Requests that wait are answered once ``stop`` is set."""
    services = api_services(settings, resources)
    try:
        yield create_app(services, settings, metrics, stop)
    finally:
        await services.feed.close()


@asynccontextmanager
async def bound_storage(resources: Resources) -> AsyncIterator[None]:
    """Bind the storage to the database during the block, as soon as both are available.

    Raises:
        ForeignStorage: the storage holds another database's files: the block is cancelled.
    """
    binding = storage_binding(resources)
    try:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(retry_on_outage(binding.establish, budget=math.inf))
            yield
            task.cancel()
    except* ForeignStorage as failures:
        raise failures.exceptions[0] from None


def open_connections(settings: Settings, metrics: Metrics | None) -> OpenConnections:
    """Return the bookkeeping of the API's connections, for as many as this process may have."""
    possible = connections_within(raise_descriptor_limit(), settings.max_connections)
    return OpenConnections(ConnectionLimits(max_connections=possible), metrics)
