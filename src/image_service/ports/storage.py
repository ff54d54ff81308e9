"""Storage: where originals and thumbnails are kept."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """A file in the storage."""

    key: str
    age_seconds: float
    """Seconds since it was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectAttributes:
    """What a storage says about a file to whoever gets it from there directly, by a link."""

    content_type: str
    attachment: bool = False
    """Whether browsers are to save it rather than show it."""


class Storage(Protocol):
    """Keeps files under keys such as ``originals/7f/0190…``.

    Every method raises ``StorageUnavailable`` when the storage cannot be reached and ``StorageFull`` when it has no
    room; both leave nothing half-written under a key.
    """

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """An empty local folder, whose content is removed on leaving, whatever happened."""
        ...

    async def adopt(self, files: Mapping[str, Path], attributes: Mapping[str, ObjectAttributes] | None = None) -> None:
        """Move files out of a scratch folder to their keys, durably.

        When this returns, every file survives a power loss. When it raises, a key holds either the whole file or
        nothing. The given paths may be gone afterwards.

        Args:
            files: The files, by key.
            attributes: How some of them present themselves, by key; for storages that can make links.
        """
        ...

    async def local_path(self, key: str, scratch: Path) -> Path:
        """A local file with the object's bytes: the stored file itself, or a copy made in ``scratch``. Read only.

        Raises:
            ObjectMissing: there is nothing under the key.
        """
        ...

    def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The object's bytes from ``start`` on, at most ``length`` of them, in pieces of bounded size.

        Raises:
            ObjectMissing: there is nothing under the key; raised before the first piece.
        """
        ...

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove objects. A key with nothing under it is fine."""
        ...

    def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """Every object whose key starts with ``prefix``, in no particular order."""
        ...

    async def sweep_scratch(self, older_than: float) -> int:
        """Remove scratch folders that a crash left behind more than ``older_than`` seconds ago; returns how many."""
        ...

    async def bind_to_database(self, owner: str) -> str:
        """Note whose files these are, unless it is noted already; returns whose they are."""
        ...

    async def probe(self) -> None:
        """Return if the storage can be written to."""
        ...


class PresignedUrls(Protocol):
    """What some storages can do beside: let clients get a file from the storage itself."""

    async def presign(self, key: str, *, method: str, seconds: int) -> str:
        """A URL that gives whoever has it this one object.

        Args:
            key: The object. Nobody looks whether there is one.
            method: ``GET`` or ``HEAD``: the only thing that can be done with the URL.
            seconds: For how long that works.

        Raises:
            StorageUnavailable: no link can be made.
        """
        ...
