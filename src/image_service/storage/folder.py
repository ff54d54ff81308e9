"""The local folder of a storage: created on first use, its calls run in threads, its errors translated."""

import asyncio
import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from image_service.causes import OutageLog
from image_service.errors import Outage, StorageFull, StorageUnavailable
from image_service.storage.conventions import SCRATCH
from image_service.storage.durable import create_tree

ABSENT: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What the file system raises if there is no such file."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_DISK: Final = frozenset({errno.EIO, errno.EROFS, errno.ESTALE})

_P = ParamSpec("_P")
_T = TypeVar("_T")


class StorageFolder:
    """A folder and its ``scratch`` folder, on one file system.

    Nothing is touched before the first use, which creates both. They are not created a second time: if they vanish
    under a running service, a volume was unmounted, and writing to the empty mount point would lose files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scratch = root / SCRATCH
        self._created = False
        self.outages = OutageLog("storage unavailable")
        self._clock_offset = time.time() - time.monotonic()

    async def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a function in a thread, with the folders created.

        Raises:
            StorageFull: the function raised an ``OSError`` for lack of space.
            StorageUnavailable: the function raised any other ``OSError``.
        """
        try:
            if not self._created:
                await asyncio.to_thread(self._create)
                self._created = True
            return await asyncio.to_thread(function, *args, **kwargs)
        except OSError as error:
            raise self.outage(error) from error

    def outage(self, error: OSError) -> Outage:
        """Returns the service's error for one of the file system, and logs the cause."""
        cause = self.outages.note(error)
        return StorageFull(cause=cause) if error.errno in _FULL else StorageUnavailable(cause=cause)

    def check_mounted(self) -> None:
        """Distinguish a missing file from a missing storage.

        Raises:
            FileNotFoundError: the scratch folder is missing too.
        """
        self.scratch.stat()

    def now(self) -> float:
        """Returns the time by which files are aged. Setting the clock forward while the process runs ages no file."""
        return min(time.time(), self._clock_offset + time.monotonic())

    def _create(self) -> None:
        for folder in (self.root, self.scratch):
            create_tree(folder)


def is_disk_error(error: OSError) -> bool:
    """Whether only a disk raises this error, or a file system."""
    return error.errno in _FULL | _DISK
