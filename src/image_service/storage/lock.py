"""One process per data folder."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from image_service.errors import FolderInUse

_NAME: Final = ".lock"


class FolderLock:
    """Holds a folder for this process; the kernel lets go when the process ends, however it ends.

    Entering creates the folder if it is missing.

    Raises:
        FolderInUse: another process holds the folder.
        OSError: the folder cannot be created or written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        _sync(self._folder.absolute().parent)  # even if it was there: whoever made it may have died before this
        descriptor = os.open(self._folder / _NAME, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            # Empty for the instant between another process's taking the lock and its writing the number.
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


def _sync(folder: Path) -> None:
    """Have the names in a folder on the disk, where it can be read."""
    with suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
