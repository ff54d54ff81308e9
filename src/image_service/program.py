"""Process entry points: wire, run until a signal, shut down."""

import asyncio
import gc
import math
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from image_service.api.connections import (
    ConnectionLimits,
    OpenConnections,
    connections_within,
    raise_descriptor_limit,
)
from image_service.api.listening import listen, url_of, warn_of_open_access
from image_service.api.main import create_app
from image_service.api.server import serve
from image_service.bootstrap import (
    Resources,
    api_services,
    backlog_gauges,
    open_resources,
    storage_binding,
    worker_services,
)
from image_service.config import Settings, doubts
from image_service.database.migrations import LOCK_TIMEOUT, upgrade
from image_service.errors import ForeignStorage, Outage, StartError
from image_service.observability.background_stream import BackgroundStream
from image_service.observability.exposition import serve_metrics
from image_service.observability.logging import background_logging
from image_service.observability.metrics import Metrics
from image_service.services.outage_retry import retry_on_outage
from image_service.startup import end_at_once_on, stop_signals
from image_service.storage.lock import FolderLock
from image_service.worker.lanes import plan_lanes
from image_service.worker.periodic import every
from image_service.worker.runner import Worker

_GC_THRESHOLD: Final = 10_000
"""New objects after which the garbage collector runs: reference counting frees nearly all of a request's."""

_log = structlog.get_logger(__name__)


def run_api(settings: Settings, *, migrate: bool) -> None:
    """Serve the API until SIGTERM, SIGINT or SIGHUP.

    Raises:
        ForeignStorage: the storage holds another database's files.
        StartError: the address cannot be listened on, or the database cannot be migrated.
    """
    with _logging(settings) as log:
        if migrate:
            run_migrations(settings)
        with _telemetry(settings, "api", log) as metrics:
            listener = listen(settings.api_host, settings.api_port)

            def started() -> None:
                warn_of_open_access(listener)
                _log.info("api started", address=url_of(listener))

            _run(_api(settings, listener, metrics, started))


def run_worker(settings: Settings) -> None:
    """Process images until SIGTERM, SIGINT or SIGHUP.

    Raises:
        Outage: no decoder process can be started.
        StartError: REQUIRE_SANDBOX is set, and the sandbox is not available.
    """
    with _logging(settings) as log, _telemetry(settings, "worker", log) as metrics:
        _run(_worker(settings, metrics))


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
        with _logging(settings) as log, FolderLock(data):
            run_migrations(settings)
            with _telemetry(settings, "standalone", log) as metrics:
                listener = listen(settings.api_host, settings.api_port)

                def started() -> None:
                    warn_of_open_access(listener)
                    announce(url_of(listener))

                _run(_standalone(settings, listener, metrics, started))
    except OSError as error:
        raise StartError(f"The data folder {data} cannot be used: {error}. Choose another with --data.") from error


def run_migrations(settings: Settings, *, lock_timeout: int = LOCK_TIMEOUT) -> None:
    """Migrate the database to the schema of this version; wait for locks for some seconds.

    Raises:
        StartError: the database cannot be reached or migrated, or its schema is too new for this version.
    """
    try:
        upgrade(settings.database_url.get_secret_value(), lock_timeout=lock_timeout)
    except StartError:
        raise
    except Exception as error:
        # From the driver, SQLAlchemy or Alembic; the first line of the message is the useful one.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise StartError(
            f"The database cannot be migrated: {reason}. Check that it runs and that DATABASE_URL is right."
        ) from error


async def _api(
    settings: Settings, listener: socket.socket, metrics: Metrics | None, started: Callable[[], None]
) -> None:
    stop = _stop_on_signals()
    async with open_resources(settings, metrics) as resources, _measure_backlog(settings, resources):
        app = create_app(api_services(settings, resources), settings, metrics)
        connections = _connections(settings, metrics)
        async with _bound_storage(resources):
            await serve(
                app, listener, stop, drain_timeout=settings.drain_timeout, started=started, connections=connections
            )


async def _worker(settings: Settings, metrics: Metrics | None) -> None:
    stop = _stop_on_signals()
    async with open_resources(settings, metrics) as resources, _measure_backlog(settings, resources):
        await _make_worker(settings, resources).run(stop)


async def _standalone(
    settings: Settings, listener: socket.socket, metrics: Metrics | None, started: Callable[[], None]
) -> None:
    stop = _stop_on_signals()
    async with open_resources(settings, metrics) as resources, _measure_backlog(settings, resources):
        app = create_app(api_services(settings, resources), settings, metrics)
        connections = _connections(settings, metrics)
        worker = _make_worker(settings, resources)
        try:
            async with _bound_storage(resources), asyncio.TaskGroup() as tasks:
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


@asynccontextmanager
async def _bound_storage(resources: Resources) -> AsyncIterator[None]:
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


def _connections(settings: Settings, metrics: Metrics | None) -> OpenConnections:
    possible = connections_within(raise_descriptor_limit(), settings.max_connections)
    return OpenConnections(ConnectionLimits(max_connections=possible), metrics)


@contextmanager
def _logging(settings: Settings) -> Iterator[BackgroundStream]:
    """Configure logging for the duration of the block, and log which settings may be wrong."""
    with background_logging(settings.log_level, settings.log_format) as log:
        for doubt in doubts(settings):
            _log.warning("setting may be wrong", reason=doubt)
        yield log


@contextmanager
def _telemetry(settings: Settings, part: str, log: BackgroundStream) -> Iterator[Metrics | None]:
    """Serve metrics and export traces, as configured, for the duration of the block; None if neither is."""
    if settings.metrics_port is None and not settings.traced:
        yield None
        return
    metrics = Metrics()
    log.on_lost = metrics.log_lines_lost
    with ExitStack() as stack:
        if settings.traced:
            from image_service.observability.exporting import export_spans  # noqa: PLC0415 — an optional dependency

            stack.enter_context(export_spans(f"image-service-{part}"))
            _log.info("tracing enabled")
        if settings.metrics_port is not None:
            address = stack.enter_context(serve_metrics(metrics, settings.metrics_host, settings.metrics_port))
            _log.info("metrics served", address=address)
        yield metrics


@asynccontextmanager
async def _measure_backlog(settings: Settings, resources: Resources) -> AsyncIterator[None]:
    """Measure the backlog periodically for the duration of the block, if metrics are served."""
    if settings.metrics_port is None:
        yield
        return
    gauges = backlog_gauges(settings, resources)
    measuring = asyncio.create_task(
        every(settings.metrics_interval, gauges.run_once, "backlog-gauges", resources.observer)
    )
    try:
        yield
    finally:
        measuring.cancel()
        await asyncio.wait({measuring})


def _make_worker(settings: Settings, resources: Resources) -> Worker:
    return Worker(worker_services(settings, resources), plan_lanes(settings, resources), resources, settings)


def _run(main: Coroutine[Any, Any, None]) -> None:
    # The present objects, a hundred thousand and mostly those of modules, stay: the collector need not scan them again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def _stop_on_signals() -> asyncio.Event:
    """Returns an event that SIGTERM, SIGINT or SIGHUP sets; a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = stop_signals()

    def request_stop() -> None:
        _log.info("stopping; send the signal again to stop at once")
        stop.set()
        for sign in signals:
            loop.remove_signal_handler(sign)
            end_at_once_on(sign)

    for sign in signals:
        loop.add_signal_handler(sign, request_stop)
    return stop
