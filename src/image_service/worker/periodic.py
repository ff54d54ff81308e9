"""Runs periodic jobs."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from image_service.errors import Outage
from image_service.ports import NULL_OBSERVER, Observer

_log = structlog.get_logger(__name__)


async def every(
    seconds: float,
    job: Callable[[], Awaitable[object]],
    name: str,
    observer: Observer = NULL_OBSERVER,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> NoReturn:
    """Run a job now and then periodically, whether it succeeds or fails, until cancelled.

    Args:
        seconds: From the end of one run to the start of the next, with a jitter of a tenth: workers that started
            together must not run in step.
        job: The job.
        name: Its name in the log.
        observer: Notified of every run.
        sleep: Waits between two runs.
    """
    while True:
        succeeded = False
        try:
            await job()
            succeeded = True
        except Outage as outage:
            _log.warning("periodic job skipped: outage", job=name, reason=str(outage))
        except Exception:  # noqa: BLE001 — the next run may succeed, and the other jobs must go on
            _log.exception("periodic job failed", job=name)
        observer.job_ended(name, succeeded=succeeded)
        await sleep(seconds * random.uniform(0.9, 1.1))  # noqa: S311 — jitter, not cryptography
