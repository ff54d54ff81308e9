"""Files in a folder: durable by rename, fsync, fsync of the folder."""

import asyncio
import errno
import math
import os
import shutil
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Final, ParamSpec, TypeVar
from uuid import uuid4

from image_service.errors import ObjectMissing, ServiceError, StorageFull, StorageUnavailable
from image_service.ports import ObjectAttributes, StoredObject
from image_service.storage.names import SCRATCH, check, check_prefix

PIECE_BYTES: Final = 256 * 1024
"""The most that one piece of ``read`` holds."""

PROBE_SECONDS: Final = 2.0
"""How long ``probe`` waits for the disk."""

_OWNER: Final = ".owner"
_FILE_MODE: Final = 0o640
_FOLDER_MODE: Final = 0o750
_SPARE: Final = 16
"""Empty scratch folders that are kept."""
_YOUNG: Final = 1.0
"""Seconds after which one has to be looked after before it is used again: it might be swept, or gone."""
_BATCH: Final = 256
"""Directory entries or deletions that one visit to a thread deals with."""

_ABSENT: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_DISK: Final = frozenset({errno.EIO, errno.EROFS, errno.ESTALE})

_P = ParamSpec("_P")
_T = TypeVar("_T")


class LocalStorage:
    """``ports.Storage`` on a file system that has atomic rename: ``root/<key>``, and ``root/scratch`` beside the keys.

    Nothing is touched before the first use, which creates the folders. They are not created a second time: when they
    vanish under a running service, a volume was unmounted, and writing on into the empty mount point would lose files.

    A key is relative and has no empty part and none that starts with a dot; any other raises ``ValueError``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._scratch = root / SCRATCH
        self._prepared = False
        self._durable: set[Path] = set()
        self._emptied: set[Path] = set()
        """Scratch folders in use that hold nothing any more."""
        self._spare: list[tuple[float, Path]] = []
        """Empty scratch folders, for use, and when each was emptied."""
        self._probing: asyncio.Task[None] | None = None
        self._began = time.time() - time.monotonic()

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """An empty folder on the same file system, removed with all it holds on leaving, whatever happened.

        One that ``adopt`` has left empty is kept for the next: making and removing them costs more than all the rest.

        An ``OSError`` from the block that only a disk can give leaves as ``StorageFull`` or ``StorageUnavailable``:
        whoever writes into the folder need not know the difference. So does the loss of the folder itself.
        """
        emptied_at, folder = self._spare.pop() if self._spare else (-math.inf, self._scratch / uuid4().hex)
        try:
            if time.monotonic() - emptied_at >= _YOUNG:
                await self._run(_make_young, folder)
            yield folder
        except OSError as error:
            if error.errno in _FULL | _DISK or not folder.exists():
                raise _translated(error) from error
            raise
        finally:
            emptied = folder in self._emptied
            self._emptied.discard(folder)
            if emptied and len(self._spare) < _SPARE:
                self._spare.append((time.monotonic(), folder))
            else:
                # What cannot be removed now (a cancelled thread may still write into it) is left to sweep_scratch.
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def adopt(
        self,
        files: Mapping[str, Path],
        attributes: Mapping[str, ObjectAttributes] | None = None,  # noqa: ARG002 - the port's; only the API serves these
    ) -> None:
        """Move files out of a scratch folder to their keys, durably; on an error, none of them.

        All in one visit to a thread: each visit costs more than the file system does.

        Raises:
            StorageFull: no room.
            StorageUnavailable: any other failure of the file system.
        """
        moves = [(source, self._path(key)) for key, source in files.items()]
        self._emptied.update(await self._run(self._place, moves))

    async def local_path(self, key: str, scratch: Path) -> Path:  # noqa: ARG002 - the port's; only remote storages copy
        """The stored file itself."""
        path = self._path(key)
        await self._run(self._require, path)
        return path

    async def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The object's bytes from ``start`` on, at most ``length`` of them, in pieces of at most 256 KiB."""
        file, size = await self._open(self._path(key))
        try:
            end = size if length is None else min(size, start + length)
            while start < end:
                # pread, because a cancelled read may still be running in its thread when the file is closed: it must
                # not move the position of whatever the descriptor's number stands for by then.
                piece = await self._run(os.pread, file.fileno(), min(PIECE_BYTES, end - start), start)
                if not piece:
                    return
                yield piece
                start += len(piece)
        finally:
            file.close()

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove objects. A key with nothing under it is fine.

        Not made durable: a file that a power loss brings back has no row, and the sweeper takes it.
        """
        paths = iter([self._path(key) for key in keys])
        while batch := tuple(islice(paths, _BATCH)):
            await self._run(self._unlink, batch)

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """Every object whose key starts with ``prefix``, in no particular order, in memory that does not grow."""
        folder, _, _ = prefix.rpartition("/")
        check_prefix(prefix)
        found = self._walk(self._root / folder, prefix)
        while batch := await self._run(_take, found):
            for item in batch:
                yield item

    async def sweep_scratch(self, older_than: float) -> int:
        """Remove what a crash left in the scratch folder more than ``older_than`` seconds ago; returns how many."""
        return await self._run(self._sweep, older_than)

    async def bind_to_database(self, owner: str) -> str:
        """Note whose files these are, unless it is noted already; returns whose they are."""
        return await self._run(self._claim, owner)

    async def probe(self) -> None:
        """Return if a file can be written.

        Raises:
            StorageFull: no room for one block.
            StorageUnavailable: not writable, or no answer within two seconds.
        """
        # One at a time: on a disk that hangs, each further probe would take one more thread from the pool for good.
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._run(self._write_probe))
            self._probing.add_done_callback(_retrieve)
        done, _ = await asyncio.wait({self._probing}, timeout=PROBE_SECONDS)
        if not done:
            raise StorageUnavailable
        self._probing.result()

    async def _run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call in a thread, once the folders exist, and translate what the file system says."""
        try:
            if not self._prepared:
                await asyncio.to_thread(self._prepare)
                self._prepared = True
            return await asyncio.to_thread(function, *args, **kwargs)
        except OSError as error:
            raise _translated(error) from error

    def _prepare(self) -> None:
        for folder in (self._root, self._scratch):
            _create_tree(folder)

    async def _open(self, path: Path) -> tuple[FileIO, int]:
        """The file and its size in bytes."""
        opening = asyncio.ensure_future(self._run(self._open_now, path))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise

    def _open_now(self, path: Path) -> tuple[FileIO, int]:
        size = self._require(path)
        return path.open("rb", buffering=0), size

    def _require(self, path: Path) -> int:
        """The size in bytes of a stored file; ObjectMissing if there is none."""
        try:
            status = path.stat()
        except _ABSENT as error:
            self._check_mounted()
            raise ObjectMissing from error
        if not stat.S_ISREG(status.st_mode):
            raise ObjectMissing
        return status.st_size

    def _check_mounted(self) -> None:
        """Tell "no such file" from "no storage": FileNotFoundError if the scratch folder is gone as well."""
        self._scratch.stat()

    def _path(self, key: str) -> Path:
        check(key)
        return self._root / key

    def _place(self, moves: Sequence[tuple[Path, Path]]) -> set[Path]:
        """Returns the folders that are empty now."""
        placed: list[Path] = []
        try:
            for _, target in moves:
                self._ensure_shard(target.parent)
            # Before they are durable: one entry in the file system's journal then holds content and name. Nobody looks
            # under a key before its row is there, and a file that a crash leaves half has none: the sweeper takes it.
            for source, target in moves:
                source.rename(target)
                placed.append(target)
            _sync_files(placed)
            for folder in dict.fromkeys(target.parent for target in placed):
                _sync_folder(folder)
        except OSError:
            self._durable.clear()  # in case a folder was removed behind our back: the next call makes it again
            for target in placed:
                with suppress(OSError):
                    target.unlink()
            raise
        return {folder for folder in {source.parent for source, _ in moves} if _is_empty(folder)}

    def _ensure_shard(self, folder: Path) -> None:
        """Create a folder between a key and the root, and make it durable once in this process's life.

        Even if it exists: another process may have made it a moment ago and not have synced it yet.
        """
        if folder == self._root or folder in self._durable:
            return
        self._ensure_shard(folder.parent)
        _create(folder)
        _sync_folder(folder.parent)
        self._durable.add(folder)

    def _walk(self, folder: Path, prefix: str) -> Iterator[StoredObject]:
        try:
            entries = os.scandir(folder)
        except _ABSENT:
            self._check_mounted()
            return
        with entries:
            for entry in entries:
                path = Path(entry.path)
                key = path.relative_to(self._root).as_posix()
                if not key.startswith(prefix) or entry.name.startswith(".") or path == self._scratch:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(path, prefix)
                elif entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # deleted since the folder was read
                        modified = entry.stat(follow_symlinks=False).st_mtime
                        yield StoredObject(key=key, age_seconds=max(0.0, self._now() - modified))

    def _sweep(self, older_than: float) -> int:
        removed = 0
        newest = self._now() - older_than
        with os.scandir(self._scratch) as entries:
            for entry in entries:
                # Its owner may be alive after all and still write or remove; and what cannot be removed must not keep
                # the rest from being swept.
                with suppress(OSError):
                    if _last_written(entry) < newest:
                        _remove(entry)
                        removed += 1
        return removed

    def _now(self) -> float:
        """The time, but never later than this process can account for: a clock put forward ages no file."""
        return min(time.time(), self._began + time.monotonic())

    def _unlink(self, paths: Iterable[Path]) -> None:
        for path in paths:
            try:
                path.unlink()
            except _ABSENT:
                self._check_mounted()

    def _claim(self, owner: str) -> str:
        path = self._root / _OWNER
        with suppress(FileExistsError), path.open("x"):
            pass
        if noted := path.read_text():
            return noted
        path.write_text(owner)  # an empty note, if a crash left one, says nothing
        return owner

    def _write_probe(self) -> None:
        path = self._scratch / f"probe-{uuid4().hex}"
        try:
            path.write_bytes(b"\0")  # an empty file can be created on a full disk
        finally:
            path.unlink(missing_ok=True)


def _translated(error: OSError) -> ServiceError:
    return StorageFull() if error.errno in _FULL else StorageUnavailable()


def _create(folder: Path) -> None:
    """Create a folder; fine if it exists."""
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        folder.chmod(_FOLDER_MODE)


def _create_tree(folder: Path) -> None:
    """Create a folder and its missing parents, durably; fine if it exists."""
    try:
        _create(folder)
    except FileNotFoundError:
        _create_tree(folder.parent)
        _create(folder)
    # Even if it was there: whoever made it may have died before this.
    _sync_folder(folder.parent)


def _sync_files(paths: Sequence[Path]) -> None:
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb", buffering=0)) for path in paths]
        for file in files:
            os.fchmod(file.fileno(), _FILE_MODE)
            if len(files) > 1:
                # Has the kernel begin to write without waiting for it: then all are under way at once.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for file in files:
            os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_young(folder: Path) -> None:
    """Make a folder, or one that is there young again, so that it is not swept while it is used."""
    try:
        os.utime(folder)
    except FileNotFoundError:
        folder.mkdir(_FOLDER_MODE)


def _is_empty(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def _take(found: Iterator[StoredObject]) -> tuple[StoredObject, ...]:
    return tuple(islice(found, _BATCH))


def _last_written(entry: os.DirEntry[str]) -> float:
    """When anything in a scratch folder was last written: writing a file does not touch the folder's own time."""
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
    """Look at a probe's outcome, so that one whose caller was cancelled is not reported as forgotten."""
    if not task.cancelled():
        task.exception()


def _close(opening: asyncio.Task[tuple[FileIO, int]]) -> None:
    """Close a file that nobody waits for any longer."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()
