"""Locks a data folder for one process."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from image_service.errors import FolderInUse
from image_service.storage.durable import FOLDER_MODE, sync_folder

_NAME: Final = ".lock"


class FolderLock:
    """Locks a folder for this process; the kernel releases it when the process ends, however it ends.

    Entering creates the folder if it is missing.

    Raises:
        FolderInUse: another process holds the lock.
        OSError: the folder cannot be created or written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        with suppress(PermissionError):  # the parent may not be readable
            # Even if the folder existed: the process that created it may have died before syncing it.
            sync_folder(self._folder.absolute().parent)
        descriptor = os.open(self._folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            # Empty for the instant between taking the lock and writing the number.
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise FolderInUse(
                f"The data folder {self._folder} is in use by another process{holder and f' (pid {holder})'}: "
                "stop it, or choose another folder with --data."
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The file stays: removing it would let two processes lock two different files of the same name.
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
