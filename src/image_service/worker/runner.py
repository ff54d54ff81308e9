"""Runs a worker: start, work, drain, stop."""

import asyncio
from functools import partial
from typing import Final

import structlog

from image_service.bootstrap import Resources, WorkerServices
from image_service.config import Settings
from image_service.ports import Drain
from image_service.services.health import Condition
from image_service.worker import periodic
from image_service.worker.idle_gate import IdleGate
from image_service.worker.lanes import LanePlan
from image_service.worker.liveness import INTERVAL, LivenessFile
from image_service.worker.storage_check import is_confirmed

_BACKGROUND_MAX_WAIT: Final = 60.0
"""Seconds after which an image of a background lane is rendered although the worker is busy."""

_WEBHOOK_GRACE: Final = 5.0
"""Seconds for which attempts to send webhooks may continue after the stop, within the drain timeout."""

_log = structlog.get_logger(__name__)


class Worker:
    """Consumes the queue and runs the periodic jobs; without decode slots, the periodic jobs only."""

    def __init__(
        self,
        services: WorkerServices,
        plan: LanePlan,
        resources: Resources,
        settings: Settings,
        *,
        liveness_interval: float = INTERVAL,
    ) -> None:
        self._services = services
        self._plan = plan
        self._queue = resources.queue
        self._observer = resources.observer
        self._settings = settings
        self._liveness_interval = liveness_interval

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; then finish the images in progress within the drain timeout, and return.

        Raises:
            Outage: no decoder process can be started, or the images of an earlier run cannot be resumed.
            ForeignStorage: this is the only process, and the storage holds another database's files.
            StartError: the sandbox is required and not available.
        """
        try:
            if self._settings.decode_slots:
                await self._plan.pools[0].start()
            binding = self._services.storage_binding
            if self._settings.sole_process:
                await binding.establish()
                await self._services.reconciler.resume()
            _log.info("worker started", decode_slots=self._settings.decode_slots)
            if await is_confirmed(binding, stop):
                await self._work(stop)
        finally:
            for pool in self._plan.pools:
                await pool.close()
        _log.info("worker stopped")

    async def _work(self, stop: asyncio.Event) -> None:
        liveness = LivenessFile(self._settings.liveness_file, self._is_healthy)
        every = partial(periodic.every, observer=self._observer)
        reconcile, sweep = self._settings.reconcile_interval, self._settings.sweep_interval
        jobs: list[asyncio.Task[None]] = [
            asyncio.create_task(every(reconcile, self._services.reconciler.run_once, "reconciler")),
            asyncio.create_task(every(reconcile, self._services.deletion.run_once, "deletion")),
            asyncio.create_task(every(sweep, self._services.sweeper.run_once, "sweeper")),
            asyncio.create_task(every(sweep, self._services.retention.run_once, "retention")),
            asyncio.create_task(every(self._liveness_interval, liveness.refresh, "liveness")),
            asyncio.create_task(every(sweep, self._services.event_retention.run_once, "event-retention")),
        ]
        if self._services.event_relay is not None:
            jobs.append(asyncio.create_task(self._services.event_relay.run()))
        grace = min(_WEBHOOK_GRACE, self._settings.drain_timeout)
        webhooks = asyncio.create_task(self._services.webhooks.run(stop.wait, grace=grace))
        jobs.append(webhooks)
        try:
            if self._settings.decode_slots:
                await self._consume(Drain(stop.wait, self._settings.drain_timeout))
            else:
                await stop.wait()
            await asyncio.wait({webhooks})
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.wait(jobs)
            liveness.remove()

    async def _consume(self, drain: Drain) -> None:
        """Consume every lane of the plan until the drain."""
        gate = IdleGate()
        async with asyncio.TaskGroup() as consumers:
            for each in self._plan.lanes:
                if each.background:
                    handler = gate.background(each.handler, max_wait=_BACKGROUND_MAX_WAIT)
                else:
                    handler = gate.foreground(each.handler)
                consumers.create_task(self._queue.consume(handler, each.prefetch, drain, each.lane))

    async def _is_healthy(self) -> bool:
        return (await self._services.health.run()).condition is Condition.HEALTHY
