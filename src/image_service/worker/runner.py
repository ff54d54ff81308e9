"""A worker's life: start, work, drain, end."""

import asyncio
from functools import partial
from typing import Final

import structlog

from image_service.bootstrap import BACKFILL_SLOTS, EXPRESS_SLOTS, Resources, WorkerServices
from image_service.config import Settings
from image_service.domain.lane import Lane
from image_service.ports import Drain
from image_service.services.health import Condition
from image_service.worker import periodic
from image_service.worker.idle_gate import IdleGate
from image_service.worker.liveness import INTERVAL, LivenessFile

_BACKFILL_PATIENCE: Final = 60.0
"""Seconds after which an image of the back-fill lane has its turn, however busy the worker is."""

AHEAD: Final = 4
"""Images taken beyond those that can be decoded; half as many as these, if that is more."""

_log = structlog.get_logger(__name__)


class Worker:
    """Consumes the queue, and reconciles and sweeps beside that; without decode slots it does the latter alone."""

    def __init__(self, services: WorkerServices, resources: Resources, settings: Settings) -> None:
        self._services = services
        self._queue = resources.queue
        self._settings = settings
        self._observer = resources.observer

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; then finish what is held, within the drain's time, and return.

        Raises:
            Outage: no decoder process can be started, or what an earlier run left cannot be resumed.
            StartError: decoders cannot be shut in, and have to be.
        """
        try:
            if self._settings.decode_slots:
                await self._services.renderers[0].start()
            if self._settings.sole_process:
                await self._services.reconciler.resume()
            await self._work(stop)
        finally:
            for renderer in self._services.renderers:
                await renderer.close()
        _log.info("worker stopped")

    async def _work(self, stop: asyncio.Event) -> None:
        alive = LivenessFile(self._settings.liveness_file, self._all_well)
        every = partial(periodic.every, observer=self._observer)
        often, seldom = self._settings.reconcile_interval, self._settings.sweep_interval
        beside = [
            asyncio.create_task(every(often, self._services.reconciler.run_once, "reconciler")),
            asyncio.create_task(every(often, self._services.deletion.run_once, "deletion")),
            asyncio.create_task(every(seldom, self._services.sweeper.run_once, "sweeper")),
            asyncio.create_task(every(seldom, self._services.retention.run_once, "retention")),
            asyncio.create_task(every(INTERVAL, alive.refresh, "sign of life")),
        ]
        _log.info("worker started", decode_slots=self._settings.decode_slots)
        try:
            if self._settings.decode_slots:
                await self._consume(Drain(stop.wait, self._settings.drain_timeout))
            else:
                await stop.wait()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
            alive.remove()

    async def _consume(self, drain: Drain) -> None:
        """Take from every lane. Normal images leave at least one decoder to the express lane.

        More are taken than there are decoders: while some images are claimed or stored, others are decoded.
        """
        leisure, slots = IdleGate(), self._settings.decode_slots
        ahead = max(AHEAD, slots // 2)
        normal = leisure.foreground(self._services.processing.process)
        express = leisure.foreground(self._services.expressing.process)
        yielding = leisure.background(self._services.backfilling.process, patience=_BACKFILL_PATIENCE)
        async with asyncio.TaskGroup() as lanes:
            lanes.create_task(self._queue.consume(normal, slots + ahead, drain, Lane.NORMAL))
            lanes.create_task(self._queue.consume(express, slots + EXPRESS_SLOTS + ahead, drain, Lane.EXPRESS))
            lanes.create_task(self._queue.consume(yielding, BACKFILL_SLOTS, drain, Lane.BACKFILL))

    async def _all_well(self) -> bool:
        return (await self._services.health.run()).condition is Condition.HEALTHY
