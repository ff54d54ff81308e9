"""Probes whether a folder takes files, by doing what an upload does."""

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from image_service.errors import StorageUnavailable
from image_service.storage.durable import create_folder_below, sync_file, sync_folder
from image_service.storage.folder import StorageFolder

PROBE_TIMEOUT: Final = 2.0
"""Seconds that a probe waits for the disk."""
PROBES: Final = ".probe"
"""The folder in which moved files of probes are, each for a moment; its name cannot be part of a key."""
_ABANDONED_AFTER: Final = 3600.0
"""Age in seconds of a file whose probe must have been killed."""


class WriteProbe:
    """Writes files, moves them to where files are kept, syncs and removes them.

    Only writing is not enough: what files are kept in may be a disk of its own, to which nothing can be renamed, or
    belong to another user; and a folder and its files need more inodes than one file.

    Args:
        folder: The storage's local folder.
        kept_in: Names of the folders in it to which files are moved.
        timeout: Seconds that a probe waits for the disk.
    """

    def __init__(self, folder: StorageFolder, kept_in: Sequence[str] = (), *, timeout: float = PROBE_TIMEOUT) -> None:
        self._folder = folder
        self._kept_in = kept_in
        self._timeout = timeout
        self._probing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Return if files can be stored.

        Raises:
            StorageFull: there is no space for one block.
            StorageUnavailable: not writable, or no answer within the time limit.
        """
        # One at a time: on a disk that hangs, each further probe would block one more thread of the pool for good.
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._folder.run(self._write))
            self._probing.add_done_callback(_retrieve)
        probing = self._probing  # which the next call may replace before this one continues
        done, _ = await asyncio.wait({probing}, timeout=self._timeout)
        if not done:
            raise StorageUnavailable(cause=f"{self._folder.root} did not answer within {self._timeout:g} s")
        probing.result()

    def _write(self) -> None:
        name = f"probe-{uuid4().hex}"
        directory = self._folder.scratch / name
        directory.mkdir()
        try:
            (directory / "written").write_bytes(b"\0")  # an empty file can be created on a full disk
            for kept_in in self._kept_in:
                _move(directory / kept_in, self._folder.root / kept_in / PROBES / name)
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    """Write a file, move and sync it as an upload's is, and remove it."""
    source.write_bytes(b"\0")
    create_folder_below(target.parent.parent)
    create_folder_below(target.parent)
    _remove_old(target.parent)
    source.rename(target)
    try:
        sync_file(target)
        sync_folder(target.parent)
    finally:
        target.unlink()


def _remove_old(folder: Path) -> None:
    """Remove what probes left whose process was killed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # another process's probe has removed its file
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_AFTER:
                    Path(entry.path).unlink()


def _retrieve(task: asyncio.Task[None]) -> None:
    """Retrieve a probe's error, so that asyncio does not report it if the caller was cancelled."""
    if not task.cancelled():
        task.exception()
