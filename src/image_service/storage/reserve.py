"""Keeps some of the disk free of uploads, so that what frees space, and running work, still finds some."""

import os
import time
from pathlib import Path
from typing import Final

from image_service.errors import StorageFull
from image_service.storage.folder import StorageFolder

_LARGEST: Final = 5 * 1024**3
"""Bytes of the largest reserve: on a large disk a percentage is more than deletions and running work ever need."""
_VALID_FOR: Final = 1.0
"""Seconds for which the disk is not asked again."""


class SpaceReserve:
    """The part of a disk that uploads leave free.

    A deletion needs space too, for the database's journal where that is on the same disk, as do claims and thumbnails.

    Args:
        folder: A folder on the disk.
        percent: The part of the disk in percent; at most 5 GiB are kept. 0: nothing is.
    """

    def __init__(self, folder: StorageFolder, *, percent: float) -> None:
        self._folder = folder
        self._percent = percent
        self._reached = False
        self._asked_at = float("-inf")
        self._asking = False

    async def check(self) -> None:
        """Return if an upload may use space. Concurrent calls, and those within a second, share one look at the disk.

        Raises:
            StorageFull: no more is free than is kept.
            StorageUnavailable: the disk cannot be asked.
        """
        if not self._percent:
            return
        now = time.monotonic()
        # A reserve that was reached is looked at again each time: space may have been freed since.
        if (self._reached or now - self._asked_at >= _VALID_FOR) and not self._asking:
            self._asking = True  # on a disk that hangs, each further call would block one more thread
            try:
                self._reached = await self._folder.run(_is_reached, self._folder.root, self._percent)
                self._asked_at = now
            finally:
                self._asking = False
        if self._reached:
            cause = f"{self._folder.root} has no more free space than STORAGE_RESERVE keeps"
            raise StorageFull(cause=self._folder.outages.note_cause("reserve", cause))


def _is_reached(folder: Path, percent: float) -> bool:
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize < min(_LARGEST, state.f_blocks * state.f_frsize * percent / 100)
