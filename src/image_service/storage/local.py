"""Stores files in a local folder; durable by rename, fsync of the file, and fsync of the folder."""

import asyncio
import errno
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Final

from image_service.domain.keys import ORIGINALS, THUMBNAILS
from image_service.errors import ObjectChanged, ObjectMissing, ObjectUnreadable
from image_service.ports import ObjectAttributes, StoredObject, no_links
from image_service.storage.conventions import OWNER, PIECE_BYTES, check_key, check_prefix
from image_service.storage.durable import DurableMoves
from image_service.storage.folder import ABSENT, StorageFolder
from image_service.storage.nofollow import open_below
from image_service.storage.probe import PROBE_TIMEOUT, WriteProbe
from image_service.storage.reserve import SpaceReserve
from image_service.storage.scratch import FRESH_SECONDS, ScratchDirectories

_BATCH: Final = 256


class LocalStorage:
    """``ports.Storage`` on a file system with atomic rename: ``root/<key>``, and ``root/scratch`` beside the keys.

    A key is relative and has no empty part and none that starts with a dot; any other raises ``ValueError``.

    Args:
        root: The folder, created on first use; see ``StorageFolder``.
        fresh_seconds: See ``ScratchDirectories``.
        probe_timeout: Seconds that ``probe`` waits for the disk.
        batch: Directory entries or deletions per call to a thread.
        reserve: Percentage of the disk that uploads leave free; see ``SpaceReserve``.
    """

    def __init__(
        self,
        root: Path,
        *,
        fresh_seconds: float = FRESH_SECONDS,
        probe_timeout: float = PROBE_TIMEOUT,
        batch: int = _BATCH,
        reserve: float = 0,
    ) -> None:
        self._folder = StorageFolder(root)
        self._reserve = SpaceReserve(self._folder, percent=reserve)
        self._scratch = ScratchDirectories(self._folder, fresh_seconds=fresh_seconds)
        self._probe = WriteProbe(self._folder, (ORIGINALS, THUMBNAILS), timeout=probe_timeout)
        self._moves = DurableMoves(root)
        self._batch = batch

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """Returns an empty directory on the same file system for a block; see ``ScratchDirectories.create``."""
        return self._scratch.create()

    async def check_space(self) -> None:
        """Return if an upload may use space; see ``SpaceReserve.check``."""
        await self._reserve.check()

    async def adopt(
        self,
        files: Mapping[str, Path],
        attributes: Mapping[str, ObjectAttributes] | None = None,  # noqa: ARG002 - the port's; only the API serves these
    ) -> None:
        """Move files from a scratch directory to their keys, durably; on an error, none of them.

        All in one call to a thread: each call costs more than the file system does.

        Raises:
            StorageFull: there is no space.
            StorageUnavailable: any other failure of the file system.
        """
        moves = [(source, self._path(key)) for key, source in files.items()]
        self._scratch.mark_emptied(await self._folder.run(self._move, moves))

    async def local_path(self, key: str, scratch: Path, sha256: str) -> Path:  # noqa: ARG002 - only remote storages copy
        """Returns the path of the stored file itself, once its digest is verified."""
        check_key(key)
        await self._folder.run(self._verify, key, sha256)
        return self._path(key)

    async def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Yield up to ``length`` bytes of the object from ``start`` on, in pieces of at most 256 KiB."""
        file, size = await self._open(key)
        try:
            end = size if length is None else min(size, start + length)
            while start < end:
                # pread, because a cancelled read may still be running in its thread when the file is closed: it must
                # not move the position of another file that has the descriptor's number by then.
                piece = await self._folder.run(os.pread, file.fileno(), min(PIECE_BYTES, end - start), start)
                if not piece:
                    return
                yield piece
                start += len(piece)
        finally:
            file.close()

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, if they exist.

        Not made durable: a file that a power loss restores has no row, and the sweeper removes it.
        """
        paths = iter([self._path(key) for key in keys])
        while batch := tuple(islice(paths, self._batch)):
            await self._folder.run(self._unlink, batch)

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """Yield every object whose key starts with ``prefix``, in no particular order, in bounded memory."""
        folder, _, _ = prefix.rpartition("/")
        check_prefix(prefix)
        found = self._walk(self._folder.root / folder, prefix)
        while batch := await self._folder.run(self._next_batch, found):
            for item in batch:
                yield item

    async def sweep_scratch(self, older_than: float) -> int:
        """Remove what a crash left in the scratch folder; returns how many. See ``ScratchDirectories.sweep``."""
        return await self._scratch.sweep(older_than)

    async def bind_to_database(self, owner: str) -> str:
        """Record the database that the files belong to, unless one is recorded; returns the recorded one."""
        return await self._folder.run(self._bind, owner)

    async def bound_database(self) -> str | None:
        """Returns the id of the recorded database, or None; see ``bind_to_database``."""
        return await self._folder.run(self._bound)

    async def probe(self) -> None:
        """Check that an upload could be stored; see ``WriteProbe``."""
        await self._probe.run()

    async def _open(self, key: str) -> tuple[FileIO, int]:
        """Returns the file and its size in bytes."""
        check_key(key)
        opening = asyncio.ensure_future(self._folder.run(self._open_now, key))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise

    def _verify(self, key: str, sha256: str) -> None:
        """Check the digest of a stored file.

        A megabyte takes half a millisecond, in a thread. No decoder of this version can write to a stored file; one of
        an earlier version could, and so can a disk.

        Raises:
            ObjectMissing: there is no such file.
            ObjectUnreadable: it is there, but reading it fails.
            ObjectChanged: its digest is another.
        """
        try:
            file, _ = self._open_now(key)
            with file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ObjectUnreadable from error
        if found != sha256:
            raise ObjectChanged

    def _open_now(self, key: str) -> tuple[FileIO, int]:
        """Open a stored file; in one step with finding it, because it may be deleted at any time.

        Raises:
            ObjectMissing: there is no such file.
        """
        try:
            descriptor = open_below(self._folder.root, key)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ObjectMissing(f"{key} is a symbolic link, which is not followed.") from error
            if not isinstance(error, ABSENT):
                raise
            self._folder.check_mounted()
            raise ObjectMissing from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise ObjectMissing
        return FileIO(descriptor), status.st_size

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._folder.root / key

    def _move(self, moves: Sequence[tuple[Path, Path]]) -> set[Path]:
        """Move files durably; returns the source folders that are empty now."""
        self._moves.move(moves)
        return {folder for folder in {source.parent for source, _ in moves} if _is_empty(folder)}

    def _walk(self, folder: Path, prefix: str) -> Iterator[StoredObject]:
        try:
            entries = os.scandir(folder)
        except ABSENT:
            self._folder.check_mounted()
            return
        with entries:
            for entry in entries:
                path = Path(entry.path)
                key = path.relative_to(self._folder.root).as_posix()
                if not key.startswith(prefix) or entry.name.startswith(".") or path == self._folder.scratch:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(path, prefix)
                elif entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # deleted since the folder was read
                        modified = entry.stat(follow_symlinks=False).st_mtime
                        yield StoredObject(key=key, age_seconds=max(0.0, self._folder.now() - modified))

    def _next_batch(self, found: Iterator[StoredObject]) -> tuple[StoredObject, ...]:
        return tuple(islice(found, self._batch))

    def _unlink(self, paths: Iterable[Path]) -> None:
        for path in paths:
            try:
                path.unlink()
            except ABSENT:
                self._folder.check_mounted()

    def _bind(self, owner: str) -> str:
        path = self._folder.root / OWNER
        with suppress(FileExistsError), path.open("x"):
            pass
        with open(path, "r+", opener=no_links) as file:
            if recorded := file.read():
                return recorded
            file.write(owner)  # a crash may have left the file empty
        return owner

    def _bound(self) -> str | None:
        try:
            with open(self._folder.root / OWNER, opener=no_links) as file:
                return file.read() or None
        except FileNotFoundError:
            self._folder.check_mounted()
            return None


def _is_empty(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def _close(opening: asyncio.Task[tuple[FileIO, int]]) -> None:
    """Close a file whose reader was cancelled while it was opened."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()
