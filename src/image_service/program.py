"""What the commands run: a process's life from its settings to its last breath."""

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from image_service.api.main import create_app
from image_service.api.server import serve
from image_service.bootstrap import Resources, api_services, open_resources, survey, worker_services
from image_service.config import Settings
from image_service.database.migrations import upgrade
from image_service.errors import Outage, StartError
from image_service.observability.exposition import exposed
from image_service.observability.logging import configure_logging
from image_service.observability.metrics import Metrics
from image_service.storage.lock import FolderLock
from image_service.worker.periodic import every
from image_service.worker.runner import Worker

_BACKLOG: Final = 2048
_NEW_OBJECTS: Final = 10_000
"""After so many, the collector looks at them: nearly all of what a request makes goes by itself."""

_log = structlog.get_logger(__name__)


def run_api(settings: Settings, *, migrate: bool) -> None:
    """Serve the API until a signal asks to stop.

    Raises:
        StartError: the address cannot be listened on, or the database not be migrated.
    """
    configure_logging(settings.log_level, settings.log_format)
    if migrate:
        run_migrations(settings)
    with _watched(settings, "api") as metrics:
        listener = _listen(settings)
        _run(_api(settings, listener, metrics, lambda: _log.info("api started", address=_address(listener))))


def run_worker(settings: Settings) -> None:
    """Process images until a signal asks to stop.

    Raises:
        Outage: no decoder process can be started.
        StartError: decoders cannot be shut in, and REQUIRE_SANDBOX says that they must.
    """
    configure_logging(settings.log_level, settings.log_format)
    with _watched(settings, "worker") as metrics:
        _run(_worker(settings, metrics))


def run_standalone(settings: Settings, data: Path, announce: Callable[[str], None]) -> None:
    """Do everything in one process, on one folder, until a signal asks to stop.

    Args:
        settings: From ``standalone_settings``.
        data: The folder, which no other process may use meanwhile.
        announce: Called with the address once requests are answered.

    Raises:
        FolderInUse: another process uses the folder.
        StartError: the folder or the address cannot be used.
        Outage: no decoder process can be started.
    """
    configure_logging(settings.log_level, settings.log_format)
    try:
        with FolderLock(data):
            run_migrations(settings)
            with _watched(settings, "standalone") as metrics:
                listener = _listen(settings)
                _run(_standalone(settings, listener, metrics, lambda: announce(_address(listener))))
    except OSError as error:
        raise StartError(f"The data folder {data} cannot be used: {error}. Choose another with --data.") from error


def run_migrations(settings: Settings) -> None:
    """Bring the database's tables to what this version needs.

    Raises:
        StartError: the database cannot be reached, or refuses.
    """
    try:
        upgrade(settings.database_url)
    except Exception as error:
        # Whatever the driver, SQLAlchemy or Alembic says; its first line is the one for people.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise StartError(
            f"The database cannot be migrated: {reason}. Check that it runs and that DATABASE_URL is right."
        ) from error


async def _api(
    settings: Settings, listener: socket.socket, metrics: Metrics | None, started: Callable[[], None]
) -> None:
    stop = _stop_on_signals()
    async with open_resources(settings, metrics) as resources, _surveyed(settings, resources):
        app = create_app(api_services(settings, resources), settings, metrics)
        await serve(app, listener, stop, drain_timeout=settings.drain_timeout, started=started)


async def _worker(settings: Settings, metrics: Metrics | None) -> None:
    stop = _stop_on_signals()
    async with open_resources(settings, metrics) as resources, _surveyed(settings, resources):
        await Worker(worker_services(settings, resources), resources, settings).run(stop)


async def _standalone(
    settings: Settings, listener: socket.socket, metrics: Metrics | None, started: Callable[[], None]
) -> None:
    stop = _stop_on_signals()
    async with open_resources(settings, metrics) as resources, _surveyed(settings, resources):
        app = create_app(api_services(settings, resources), settings, metrics)
        worker = Worker(worker_services(settings, resources), resources, settings)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(worker.run(stop))
                tasks.create_task(serve(app, listener, stop, drain_timeout=settings.drain_timeout, started=started))
        except* (Outage, StartError) as failures:
            raise failures.exceptions[0] from None


@contextmanager
def _watched(settings: Settings, part: str) -> Iterator[Metrics | None]:
    """What the process counts, served to Prometheus, while its traces are sent; None where nothing of it is wanted."""
    if settings.metrics_port is None and not settings.traced:
        yield None
        return
    metrics = Metrics()
    with ExitStack() as stack:
        if settings.traced:
            from image_service.observability.exporting import exporting  # noqa: PLC0415 — an extra

            stack.enter_context(exporting(f"image-service-{part}"))
            _log.info("traces are sent")
        if settings.metrics_port is not None:
            address = stack.enter_context(exposed(metrics, settings.metrics_host, settings.metrics_port))
            _log.info("metrics served", address=address)
        yield metrics


@asynccontextmanager
async def _surveyed(settings: Settings, resources: Resources) -> AsyncIterator[None]:
    """Ask now and then for what the metrics need to know, beside whatever the block does."""
    if settings.metrics_port is None:
        yield
        return
    asking = asyncio.create_task(
        every(settings.metrics_interval, survey(settings, resources).run_once, "survey", resources.observer)
    )
    try:
        yield
    finally:
        asking.cancel()
        await asyncio.wait({asking})


def _run(main: Coroutine[Any, Any, None]) -> None:
    # What is here now stays, a hundred thousand objects of modules for the most part: no garbage is to be found there.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def _stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets; a second one ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> None:
        _log.info("stopping; once more to stop at once")
        stop.set()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(sign)
            signal.signal(sign, signal.SIG_DFL)

    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, ask)
    return stop


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.api_host, settings.api_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # Python repeats the address there
        raise StartError(
            f"Cannot listen on {host} port {port}: {reason}. "
            "Stop what uses it, or choose another with --port or API_PORT."
        ) from error


def _address(listener: socket.socket) -> str:
    """Where a browser on this machine finds the API."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 — compared, not listened on
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
