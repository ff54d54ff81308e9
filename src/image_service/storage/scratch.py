"""Scratch directories: local folders for work in progress, removed afterwards."""

import asyncio
import math
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from image_service.errors import StorageUnavailable
from image_service.storage.durable import FOLDER_MODE
from image_service.storage.folder import StorageFolder, is_disk_error, translate

PROBE_TIMEOUT: Final = 2.0
"""Seconds that ``probe`` waits for the disk."""
FRESH_SECONDS: Final = 1.0
"""Age up to which a kept directory is used without a check; after that it may have been swept."""
_KEPT_DIRECTORIES: Final = 16


class ScratchDirectories:
    """Scratch directories in a storage's local folder.

    Args:
        folder: The folder.
        fresh_seconds: Age up to which a kept directory is used without a check.
        probe_timeout: Seconds that ``probe`` waits for the disk.
    """

    def __init__(
        self, folder: StorageFolder, *, fresh_seconds: float = FRESH_SECONDS, probe_timeout: float = PROBE_TIMEOUT
    ) -> None:
        self._folder = folder
        self._fresh_seconds = fresh_seconds
        self._probe_timeout = probe_timeout
        self._emptied: set[Path] = set()
        """Directories in use that are known to be empty again."""
        self._kept: list[tuple[float, Path]] = []
        """Empty directories for later use, and when each was emptied."""
        self._probing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def create(self) -> AsyncIterator[Path]:
        """Yield an empty directory, which is removed with its content at the end of the block, even after an error.

        One that is known to be empty is kept for later use: creating and removing directories costs more than anything
        else that is done in them.

        An ``OSError`` from the block that only a disk raises becomes ``StorageFull`` or ``StorageUnavailable``, so that
        callers need not translate what writing to the directory raises. So does the loss of the directory itself.
        """
        emptied_at, directory = self._kept.pop() if self._kept else (-math.inf, self._folder.scratch / uuid4().hex)
        try:
            if time.monotonic() - emptied_at >= self._fresh_seconds:
                await self._folder.run(_touch_or_create, directory)
            yield directory
        except OSError as error:
            if is_disk_error(error) or not directory.exists():
                raise translate(error) from error
            raise
        finally:
            emptied = directory in self._emptied
            self._emptied.discard(directory)
            if emptied and len(self._kept) < _KEPT_DIRECTORIES:
                self._kept.append((time.monotonic(), directory))
            else:
                # Files that cannot be removed now, as a cancelled thread may still write them, are left to the sweep.
                await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    def mark_emptied(self, directories: Iterable[Path]) -> None:
        """Note that directories in use are empty again."""
        self._emptied.update(directories)

    async def sweep(self, older_than: float) -> int:
        """Remove what a crash left behind more than ``older_than`` seconds ago.

        Returns:
            The number of entries removed.
        """
        return await self._folder.run(self._sweep, older_than)

    async def probe(self) -> None:
        """Check that a file can be written.

        Raises:
            StorageFull: there is no space for one block.
            StorageUnavailable: not writable, or no answer within the time limit.
        """
        # One at a time: on a disk that hangs, each further probe would block one more thread of the pool for good.
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._folder.run(self._write_probe))
            self._probing.add_done_callback(_retrieve)
        probing = self._probing  # which the next call may replace before this one continues
        done, _ = await asyncio.wait({probing}, timeout=self._probe_timeout)
        if not done:
            raise StorageUnavailable
        probing.result()

    def _sweep(self, older_than: float) -> int:
        removed = 0
        newest = self._folder.now() - older_than
        with os.scandir(self._folder.scratch) as entries:
            for entry in entries:
                # Its process may be alive and still write or remove; and one that cannot be removed must not keep the
                # others from being swept.
                with suppress(OSError):
                    if _last_written(entry) < newest:
                        _remove(entry)
                        removed += 1
        return removed

    def _write_probe(self) -> None:
        path = self._folder.scratch / f"probe-{uuid4().hex}"
        try:
            path.write_bytes(b"\0")  # an empty file can be created on a full disk
        finally:
            path.unlink(missing_ok=True)


def _touch_or_create(directory: Path) -> None:
    """Make an existing directory new again, so that it is not swept while in use, or create it."""
    try:
        os.utime(directory)
    except FileNotFoundError:
        directory.mkdir(FOLDER_MODE)


def _last_written(entry: os.DirEntry[str]) -> float:
    """Returns when anything in a scratch directory was written: writing a file does not change the directory's time."""
    latest = entry.stat(follow_symlinks=False).st_mtime
    if entry.is_dir(follow_symlinks=False):
        with os.scandir(entry.path) as children:
            latest = max([latest, *(child.stat(follow_symlinks=False).st_mtime for child in children)])
    return latest


def _remove(entry: os.DirEntry[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
    else:
        Path(entry.path).unlink()


def _retrieve(task: asyncio.Task[None]) -> None:
    """Retrieve a probe's error, so that asyncio does not report it if the caller was cancelled."""
    if not task.cancelled():
        task.exception()
