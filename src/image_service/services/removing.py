"""Deletes files one at a time, so that one that cannot be deleted does not keep the others."""

from collections.abc import Iterable
from contextlib import suppress

import structlog

from image_service.errors import Outage, StorageFull
from image_service.ports import Storage

_log = structlog.get_logger(__name__)


async def delete_each(storage: Storage, keys: Iterable[str]) -> set[str]:
    """Delete files; returns the keys of those that cannot be deleted, although the storage is available.

    Raises:
        Outage: the storage is unavailable.
    """
    failed: set[str] = set()
    for key in keys:
        try:
            await storage.delete([key])
        except Exception as error:  # noqa: BLE001 — whatever is wrong with one file, the others are to be deleted
            if isinstance(error, Outage) and not failed:
                with suppress(StorageFull):  # files can be deleted all the same
                    await storage.probe()
            _log.error("file cannot be deleted", key=key, reason=str(error) or repr(error))
            failed.add(key)
    return failed
