"""The process that processes images."""

from image_service.bootstrap import Resources, open_resources, worker_services
from image_service.config import Settings
from image_service.observability.metrics import Metrics
from image_service.program.process import logging_to_stderr, measured_backlog, run, stop_on_signals, telemetry
from image_service.worker.lanes import plan_lanes
from image_service.worker.runner import Worker


def run_worker(settings: Settings) -> None:
    """Process images until SIGTERM, SIGINT or SIGHUP.

    Raises:
        Outage: no decoder process can be started.
        StartError: REQUIRE_SANDBOX is set, and the sandbox is not available.
    """
    with logging_to_stderr(settings) as log, telemetry(settings, "worker", log) as metrics:
        run(_worker(settings, metrics))


async def _worker(settings: Settings, metrics: Metrics | None) -> None:
    stop = stop_on_signals()
    async with open_resources(settings, metrics) as resources, measured_backlog(settings, resources):
        await make_worker(settings, resources).run(stop)


def make_worker(settings: Settings, resources: Resources) -> Worker:
    """Return what processes images."""
    return Worker(worker_services(settings, resources), plan_lanes(settings, resources), resources, settings)
