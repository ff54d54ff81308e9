"""The process that is the whole service: API and worker."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from image_service.api.listening import listen, url_of, warn_of_open_access
from image_service.api.server import serve
from image_service.bootstrap import open_resources
from image_service.config import Settings
from image_service.errors import ForeignStorage, Outage, StartError
from image_service.observability.metrics import Metrics
from image_service.program.api import bound_storage, open_app, open_connections
from image_service.program.migrations import run_migrations
from image_service.program.process import logging_to_stderr, measured_backlog, run, stop_on_signals, telemetry
from image_service.program.worker import make_worker
from image_service.storage.lock import FolderLock


def run_standalone(settings: Settings, data: Path, announce: Callable[[str], None]) -> None:
    """Run API and worker in one process, on one folder, until SIGTERM, SIGINT or SIGHUP.

    Args:
        settings: From ``standalone_settings``.
        data: The folder, locked for this process.
        announce: Called with the address once the API accepts requests.

    Raises:
        FolderInUse: another process uses the folder.
        ForeignStorage: the storage holds another database's files.
        StartError: the folder or the address cannot be used.
        Outage: no decoder process can be started.
    """
    try:
        with logging_to_stderr(settings) as log, FolderLock(data):
            run_migrations(settings)
            with telemetry(settings, "standalone", log) as metrics:
                listener = listen(settings.api_host, settings.api_port)

                def started() -> None:
                    warn_of_open_access(listener)
                    announce(url_of(listener))

                run(_standalone(settings, listener, metrics, started))
    except OSError as error:
        raise StartError(f"The data folder {data} cannot be used: {error}. Choose another with --data.") from error


async def _standalone(
    settings: Settings, listener: socket.socket, metrics: Metrics | None, started: Callable[[], None]
) -> None:
    stop = stop_on_signals()
    async with (
        open_resources(settings, metrics) as resources,
        measured_backlog(settings, resources),
        open_app(settings, resources, metrics, stop) as app,
    ):
        connections = open_connections(settings, metrics)
        worker = make_worker(settings, resources)
        try:
            async with bound_storage(resources), asyncio.TaskGroup() as tasks:
                tasks.create_task(worker.run(stop))
                tasks.create_task(
                    serve(
                        app,
                        listener,
                        stop,
                        drain_timeout=settings.drain_timeout,
                        started=started,
                        connections=connections,
                    )
                )
        except* (ForeignStorage, Outage, StartError) as failures:
            raise failures.exceptions[0] from None
