"""The storage of originals and thumbnails."""

import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """A stored file."""

    key: str
    age_seconds: float
    """Seconds since it was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectAttributes:
    """HTTP metadata of a file for clients that get it from the storage by a presigned URL."""

    content_type: str
    attachment: bool = False
    """Whether browsers should save it instead of displaying it."""


def no_links(path: str | os.PathLike[str], flags: int) -> int:
    """An ``opener`` for ``open``, for files of the storage and of scratch directories, which contain no links.

    A link in a file's place would lead out of the storage, and what is there would be read or overwritten. New files
    are readable by owner and group.

    Raises:
        OSError: ELOOP if the file itself is a link.
    """
    return os.open(path, flags | os.O_NOFOLLOW, 0o640)


class Storage(Protocol):
    """Stores files under keys such as ``originals/7f/0190…``.

    Every method raises ``StorageUnavailable`` if the storage cannot be reached and ``StorageFull`` if it is full;
    neither leaves an incomplete file under a key.
    """

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """Returns a context manager with an empty local directory, which is always removed at its end."""
        ...

    async def check_space(self) -> None:
        """Return if an upload may use space; called often, and quick.

        Raises:
            StorageFull: what is free is kept for deletions and running work.
        """
        ...

    async def adopt(self, files: Mapping[str, Path], attributes: Mapping[str, ObjectAttributes] | None = None) -> None:
        """Move files from a scratch directory to their keys, durably.

        When this returns, every file survives a power failure. When it raises, each key holds either the complete file
        or nothing. The given paths may no longer exist afterwards.

        Args:
            files: The files, by key.
            attributes: HTTP metadata of some of them, by key; used by storages with presigned URLs.
        """
        ...

    async def local_path(self, key: str, scratch: Path, sha256: str) -> Path:
        """Returns a local file with the content, to be read only: the stored file, or a copy in ``scratch``.

        Args:
            key: The key of the file.
            scratch: An empty directory for a copy.
            sha256: The digest that the content must have, in hex digits.

        Raises:
            ObjectMissing: there is no file under the key.
            ObjectChanged: the content has another digest.
        """
        ...

    def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Yields the content from byte ``start``, at most ``length`` bytes, in pieces of bounded size.

        Raises:
            ObjectMissing: there is no file under the key; raised before the first piece.
        """
        ...

    async def delete(self, keys: Iterable[str]) -> None:
        """Delete files. Keys without a file are ignored."""
        ...

    def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """Yields every file whose key starts with ``prefix``, in any order."""
        ...

    async def sweep_scratch(self, older_than: float) -> int:
        """Remove scratch directories that a crash left more than ``older_than`` seconds ago; returns how many."""
        ...

    async def bind_to_database(self, owner: str) -> str:
        """Record the id of the database that the files belong to, unless one is recorded; returns the recorded id."""
        ...

    async def bound_database(self) -> str | None:
        """Returns the id of the database that the files belong to, or None if none is recorded."""
        ...

    async def probe(self) -> None:
        """Return if files can be stored; raise otherwise."""
        ...


class PresignedUrls(Protocol):
    """Makes presigned URLs, by which clients get files from the storage directly. Not every storage can."""

    async def presign(self, key: str, *, method: str, seconds: int) -> str:
        """Returns a URL that gives access to one file.

        Args:
            key: The key of the file. It is not checked that the file exists.
            method: ``GET`` or ``HEAD``, the only method that the URL works with.
            seconds: How long the URL is valid.

        Raises:
            StorageUnavailable: no URL can be made.
        """
        ...
