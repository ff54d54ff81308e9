"""Durable changes to a file system: create, rename and fsync in the order that survives a power loss."""

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from image_service.ports import no_links

FOLDER_MODE: Final = 0o750
_FILE_MODE: Final = 0o640


class DurableMoves:
    """Moves files to their places below a folder, and creates the folders between, durably."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._durable: set[Path] = set()
        """Folders that this process has synced."""

    def move(self, moves: Sequence[tuple[Path, Path]]) -> None:
        """Rename each source to its target, durably; on an error, none of them.

        Raises:
            OSError: from the file system.
        """
        placed: list[Path] = []
        try:
            for _, target in moves:
                self._ensure_folder(target.parent)
            # Renamed before they are synced: one entry in the file system's journal then holds content and name. A key
            # is not read before its row exists, and the sweeper removes a half-written file, which has no row.
            for source, target in moves:
                source.rename(target)
                placed.append(target)
            _sync_files(placed)
            for folder in dict.fromkeys(target.parent for target in placed):
                sync_folder(folder)
        except OSError:
            self._durable.clear()  # a folder may have been removed by others: the next call creates it again
            for target in placed:
                with suppress(OSError):
                    target.unlink()
            raise

    def _ensure_folder(self, folder: Path) -> None:
        """Create a folder below the root, and make it durable once per process.

        Even if it exists: another process may have created it a moment ago and not have synced it yet.
        """
        if folder == self._root or folder in self._durable:
            return
        self._ensure_folder(folder.parent)
        create_folder_below(folder)
        sync_folder(folder.parent)
        self._durable.add(folder)


def create_tree(folder: Path) -> None:
    """Create a folder and its missing parents, durably, unless it exists."""
    try:
        _create(folder)
    except FileNotFoundError:
        create_tree(folder.parent)
        _create(folder)
    # Even if it existed: the process that created it may have died before syncing it.
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_folder_below(folder: Path) -> None:
    """Create a folder inside the storage's root unless it exists; not durably.

    Raises:
        NotADirectoryError: it is a symbolic link, which would lead out of the storage, or a file.
        OSError: from the file system.
    """
    if folder.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, "a symbolic link, which is not followed", str(folder))
    _create(folder)


def _create(folder: Path) -> None:
    """Create a folder unless it exists."""
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        folder.chmod(FOLDER_MODE)


def sync_file(path: Path) -> None:
    """Write a file's content to the disk. What was moved here may have been replaced by a link: it is not followed."""
    with open(path, "rb", buffering=0, opener=no_links) as file:
        os.fsync(file.fileno())


def _sync_files(paths: Sequence[Path]) -> None:
    with ExitStack() as stack:
        # What was moved here may have been replaced by a link, whose target must not be changed.
        files = [stack.enter_context(open(path, "rb", buffering=0, opener=no_links)) for path in paths]
        for file in files:
            os.fchmod(file.fileno(), _FILE_MODE)
            if len(files) > 1:
                # Makes the kernel start writing without waiting for it, so that all files are written at once.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for file in files:
            os.fsync(file.fileno())
