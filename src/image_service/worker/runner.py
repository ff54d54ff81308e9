"""A worker's life: start, work, drain, end."""

import asyncio

import structlog

from image_service.bootstrap import EXPRESS_SLOTS, Resources, WorkerServices
from image_service.config import Settings
from image_service.domain.lane import Lane
from image_service.ports import Drain
from image_service.services.health import Condition
from image_service.worker.alive import INTERVAL, AliveFile
from image_service.worker.periodic import every

_log = structlog.get_logger(__name__)


class Worker:
    """Consumes the queue, and reconciles and sweeps beside that."""

    def __init__(self, services: WorkerServices, resources: Resources, settings: Settings) -> None:
        self._services = services
        self._queue = resources.queue
        self._settings = settings

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; then finish what is held, within the drain's time, and return.

        Raises:
            Outage: no decoder process can be started, or what an earlier run left cannot be resumed.
            StartError: decoders cannot be shut in, and have to be.
        """
        try:
            await self._services.renderer.start()
            if self._settings.sole_process:
                await self._services.reconciler.resume()
            await self._work(stop)
        finally:
            await self._services.renderer.close()
        _log.info("worker stopped")

    async def _work(self, stop: asyncio.Event) -> None:
        alive = AliveFile(self._settings.alive_file, self._all_well)
        beside = [
            asyncio.create_task(
                every(self._settings.reconcile_interval, self._services.reconciler.run_once, "reconciler")
            ),
            asyncio.create_task(every(self._settings.sweep_interval, self._services.sweeper.run_once, "sweeper")),
            asyncio.create_task(every(INTERVAL, alive.refresh, "sign of life")),
        ]
        _log.info("worker started", decode_slots=self._settings.decode_slots)
        try:
            await self._consume(Drain(stop.wait, self._settings.drain_timeout))
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
            alive.remove()

    async def _consume(self, drain: Drain) -> None:
        """Take from every lane. Normal images leave at least one decoder to the express lane."""
        handler, slots = self._services.processing.process, self._settings.decode_slots
        async with asyncio.TaskGroup() as lanes:
            lanes.create_task(self._queue.consume(handler, slots, drain, Lane.NORMAL))
            lanes.create_task(self._queue.consume(handler, slots + EXPRESS_SLOTS, drain, Lane.EXPRESS))

    async def _all_well(self) -> bool:
        return (await self._services.health.run()).condition is Condition.HEALTHY
