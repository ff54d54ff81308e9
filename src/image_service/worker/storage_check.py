"""Keeps a worker from starting its work on a storage that is not the API's."""

import asyncio
import time
from contextlib import suppress
from typing import Final

import structlog

from image_service.errors import ForeignStorage, Outage
from image_service.services.storage_binding import StorageBinding

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 5.0
_REPORTED_AFTER: Final = 30.0
"""Seconds for which it is no error that no API has used the storage: both may have been started at the same moment."""
_REPEATED_AFTER: Final = 60.0
"""Seconds."""

_log = structlog.get_logger(__name__)


async def is_confirmed(binding: StorageBinding, stop: asyncio.Event) -> bool:
    """Wait until the storage is known to be that of the database; returns False if ``stop`` is set before.

    Waiting rather than ending: the worker shows as unhealthy meanwhile, and starts by itself once the cause is removed.

    Args:
        binding: What to verify.
        stop: Ends the wait.
    """
    log_at = time.monotonic() + _REPORTED_AFTER
    pause = _FIRST_PAUSE
    while not stop.is_set():
        try:
            await binding.verify()
        except Outage as outage:  # the adapter has logged its cause
            _log.debug("storage not compared yet", reason=str(outage))
        except ForeignStorage as error:
            if time.monotonic() >= log_at:
                log_at = time.monotonic() + _REPEATED_AFTER
                _log.error("worker takes no images: its storage is not the API's", reason=error.detail)
        else:
            return True
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stop.wait()
        pause = min(_LONGEST_PAUSE, 2 * pause)
    return False
