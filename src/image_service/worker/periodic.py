"""Jobs that are done again and again."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from image_service.errors import Outage
from image_service.ports import NULL_OBSERVER, Observer

_log = structlog.get_logger(__name__)


async def every(
    seconds: float, job: Callable[[], Awaitable[object]], name: str, observer: Observer = NULL_OBSERVER
) -> NoReturn:
    """Do a job at once and then again and again, whatever becomes of it, until cancelled.

    Args:
        seconds: Between the end of one run and the begin of the next, give or take a tenth: workers that started
            together must not stay in step.
        job: What to do.
        name: What the log calls it.
        observer: Is told of every round.
    """
    while True:
        succeeded = False
        try:
            await job()
            succeeded = True
        except Outage as outage:
            _log.warning("put off by an outage", job=name, reason=outage.detail)
        except Exception:  # noqa: BLE001 — a job that fails today may not fail tomorrow, and its neighbours need not suffer
            _log.exception("failed; it is tried again", job=name)
        observer.job_ended(name, succeeded=succeeded)
        await asyncio.sleep(seconds * random.uniform(0.9, 1.1))  # noqa: S311 — jitter, not cryptography
