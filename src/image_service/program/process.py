"""What every process of the service does around its own work."""

import asyncio
import gc
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, Final

import structlog
import uvloop

from image_service.bootstrap import Resources, backlog_gauges
from image_service.config import Settings, doubts, formats
from image_service.observability.background_stream import BackgroundStream
from image_service.observability.exposition import serve_metrics
from image_service.observability.logging import background_logging
from image_service.observability.metrics import Metrics
from image_service.startup import end_at_once_on, stop_signals
from image_service.worker.periodic import every

_GC_THRESHOLD: Final = 10_000
"""New objects after which the garbage collector runs: reference counting frees nearly all of a request's."""

_log = structlog.get_logger(__name__)


@contextmanager
def logging_to_stderr(settings: Settings) -> Iterator[BackgroundStream]:
    """Configure logging for the duration of the block, and log formats, recipes and doubtful settings."""
    with background_logging(settings.log_level, settings.log_format) as log:
        _log.info("image formats", **formats(settings.enabled_formats)._asdict())
        if settings.recipes_file is not None:
            _log.info("recipes", file=str(settings.recipes_file), names=",".join(settings.recipes.names))
        for doubt in doubts(settings):
            _log.warning("setting may be wrong", reason=doubt)
        yield log


@contextmanager
def telemetry(settings: Settings, part: str, log: BackgroundStream) -> Iterator[Metrics | None]:
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
async def measured_backlog(settings: Settings, resources: Resources) -> AsyncIterator[None]:
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


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run the process's work to its end."""
    # The present objects, a hundred thousand and mostly those of modules, stay: the collector need not scan them again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM, SIGINT or SIGHUP sets; a second signal ends the process at once."""
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
