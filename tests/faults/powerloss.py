"""Simulates a power failure: undoes everything that POSIX does not guarantee to be durable.

A file's content is durable once the file was synced, and its name once its folder was. Processes record what they sync.
At a power failure unsynced content is truncated, unsynced names disappear, and unsynced removals are reverted.
"""

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

Entries: TypeAlias = dict[str, tuple[int, bool]]
"""Names in a folder, each with its inode and whether it is a folder."""
Note: TypeAlias = dict[str, Any]


class Journal:
    """Records what one process has synced. Must be on the disk's file system: it keeps hard links."""

    def __init__(self, folder: Path) -> None:
        """Create this process's file in the shared folder."""
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._file = os.open(
            folder / f"{time.monotonic_ns()}-{os.getpid()}.jsonl", os.O_CREAT | os.O_APPEND | os.O_WRONLY
        )

    def observe(self, path: Path) -> Note:
        """Return what a sync that starts now will have made durable at its end."""
        inode = path.stat().st_ino
        if path.is_dir():
            return {"at": time.monotonic_ns(), "folder": inode, "holds": _entries(path)}
        link = self._folder / str(inode)
        if not link.exists():
            os.link(path, link)  # which also keeps the inode from being reused
        return {"at": time.monotonic_ns(), "file": inode, "sha256": _digest(path)}

    def write(self, note: Note) -> None:
        """Record a finished sync, unbuffered and in one write, so that a kill loses nothing."""
        os.write(self._file, json.dumps(note).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def sync_all(disk: Path, journal: Path) -> None:
    """Record everything on the disk as synced."""
    shutil.rmtree(journal, ignore_errors=True)
    notes = Journal(journal)
    for path in (disk, *disk.rglob("*")):
        notes.write(notes.observe(path))
    notes.close()


def lose_power(disk: Path, journal: Path) -> None:
    """Undo everything unsynced. No process may use the disk."""
    _restore(disk, disk.stat().st_ino, _Kept.read(journal))
    sync_all(disk, journal)


@dataclass(slots=True)
class _Kept:
    links: Path
    folders: dict[int, Entries] = field(default_factory=dict)
    files: dict[int, str] = field(default_factory=dict)

    @classmethod
    def read(cls, journal: Path) -> "_Kept":
        kept = cls(journal)
        lines = [line for file in journal.glob("*.jsonl") for line in file.read_text().splitlines()]
        for note in sorted(map(json.loads, lines), key=lambda note: int(note["at"])):
            if "folder" in note:
                kept.folders[note["folder"]] = {
                    name: (inode, is_dir) for name, (inode, is_dir) in note["holds"].items()
                }
            else:
                kept.files[note["file"]] = note["sha256"]
        return kept


def _restore(folder: Path, inode: int, kept: _Kept) -> None:
    """Restore a folder to its last synced state; ``inode`` is the one that it had then."""
    durable = kept.folders.get(inode, {})
    for name, entry in _entries(folder).items():
        if durable.get(name) != entry:
            _remove(folder / name)
    for name, (its_inode, is_dir) in durable.items():
        if is_dir:
            (folder / name).mkdir(exist_ok=True)
            _restore(folder / name, its_inode, kept)
        else:
            _restore_file(folder / name, its_inode, kept)


def _restore_file(path: Path, inode: int, kept: _Kept) -> None:
    if not path.exists():
        if inode in kept.files:
            os.link(kept.links / str(inode), path)
        else:
            path.touch()
    if _digest(path) != kept.files.get(inode):
        os.truncate(path, 0)


def _entries(folder: Path) -> Entries:
    return {entry.name: (entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in os.scandir(folder)}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
