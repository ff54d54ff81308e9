"""Process entry points: wire, run until a signal, shut down."""

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

from image_service.api.connections import (
    ConnectionLimits,
    OpenConnections,
    connections_within,
    raise_descriptor_limit,
)
from image_service.api.main import create_app
from image_service.api.server import serve
from image_service.bootstrap import Resources, api_services, backlog_gauges, open_resources, worker_services
from image_service.config import Settings
from image_service.database.migrations import upgrade
from image_service.errors import Outage, StartError
from image_service.observability.exposition import serve_metrics
from image_service.observability.logging import configure_logging
from image_service.observability.metrics import Metrics
from image_service.storage.lock import FolderLock
from image_service.worker.lanes import plan_lanes
from image_service.worker.periodic import every
from image_service.worker.runner import Worker

_LISTEN_BACKLOG: Final = 2048
_GC_THRESHOLD: Final = 10_000
"""New objects after which the garbage collector runs: reference counting frees nearly all of a request's."""

_log = structlog.get_logger(__name__)


def run_api(settings: Settings, *, migrate: bool) -> None:
    """Serve the API until SIGTERM or SIGINT.

    Raises:
        StartError: the address cannot be listened on, or the database cannot be migrated.
    """
    configure_logging(settings.log_level, settings.log_format)
    if migrate:
        run_migrations(settings)
    with _telemetry(settings, "api") as metrics:
        listener = _listen(settings)

        def started() -> None:
            _say_that_it_is_open(listener)
            _log.info("api started", address=_address(listener))

        _run(_api(settings, listener, metrics, started))


def run_worker(settings: Settings) -> None:
    """Process images until SIGTERM or SIGINT.

    Raises:
        Outage: no decoder process can be started.
        StartError: REQUIRE_SANDBOX is set, and the sandbox is not available.
    """
    configure_logging(settings.log_level, settings.log_format)
    with _telemetry(settings, "worker") as metrics:
        _run(_worker(settings, metrics))


def run_standalone(settings: Settings, data: Path, announce: Callable[[str], None]) -> None:
    """Run API and worker in one process, on one folder, until SIGTERM or SIGINT.

    Args:
        settings: From ``standalone_settings``.
        data: The folder, locked for this process.
        announce: Called with the address once the API accepts requests.

    Raises:
        FolderInUse: another process uses the folder.
        StartError: the folder or the address cannot be used.
        Outage: no decoder process can be started.
    """
    configure_logging(settings.log_level, settings.log_format)
    try:
        with FolderLock(data):
            run_migrations(settings)
            with _telemetry(settings, "standalone") as metrics:
                listener = _listen(settings)

                def started() -> None:
                    _say_that_it_is_open(listener)
                    announce(_address(listener))

                _run(_standalone(settings, listener, metrics, started))
    except OSError as error:
        raise StartError(f"The data folder {data} cannot be used: {error}. Choose another with --data.") from error


def run_migrations(settings: Settings) -> None:
    """Migrate the database to the schema of this version.

    Raises:
        StartError: the database cannot be reached or migrated, or its schema is too new for this version.
    """
    try:
        upgrade(settings.database_url.get_secret_value())
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
        await serve(app, listener, stop, drain_timeout=settings.drain_timeout, started=started, connections=connections)


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
            async with asyncio.TaskGroup() as tasks:
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
        except* (Outage, StartError) as failures:
            raise failures.exceptions[0] from None


def _connections(settings: Settings, metrics: Metrics | None) -> OpenConnections:
    possible = connections_within(raise_descriptor_limit(), settings.max_connections)
    return OpenConnections(ConnectionLimits(max_connections=possible), metrics)


@contextmanager
def _telemetry(settings: Settings, part: str) -> Iterator[Metrics | None]:
    """Serve metrics and export traces, as configured, for the duration of the block; None if neither is."""
    if settings.metrics_port is None and not settings.traced:
        yield None
        return
    metrics = Metrics()
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
    """Returns an event that SIGTERM or SIGINT sets; a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def request_stop() -> None:
        _log.info("stopping; send the signal again to stop at once")
        stop.set()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(sign)
            signal.signal(sign, signal.SIG_DFL)

    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, request_stop)
    return stop


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.api_host, settings.api_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # "::" means all addresses, of IPv4 as well.
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=_LISTEN_BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # Python repeats the address after it
        raise StartError(
            f"Cannot listen on {host} port {port}: {reason}. "
            "Stop what uses it, or choose another with --port or API_PORT."
        ) from error


def _say_that_it_is_open(listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    _log.warning(
        "no authentication: every client that reaches the API can read, upload and delete images",
        host=host,
        port=port,
        action="let only trusted clients reach it, such as through a proxy that asks who they are",
    )


def _address(listener: socket.socket) -> str:
    """Returns the API's URL, as seen from this machine."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 — compared, not listened on
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
