"""Stores files as objects; durable once the server has confirmed them."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
from obstore import sign_async
from obstore.exceptions import AlreadyExistsError
from obstore.store import MemoryStore

from image_service.errors import ObjectChanged, ObjectMissing, Outage, StorageUnavailable
from image_service.ports import ObjectAttributes, StoredObject
from image_service.storage.conventions import OWNER, check_key, check_prefix
from image_service.storage.folder import StorageFolder
from image_service.storage.objects.client import PROBE_KEY, ObjectClient, open_stores
from image_service.storage.objects.upload import Uploader
from image_service.storage.probe import PROBE_TIMEOUT, WriteProbe
from image_service.storage.reserve import SpaceReserve
from image_service.storage.scratch import ScratchDirectories

if TYPE_CHECKING:
    from obstore import GetOptions

    from image_service.storage.objects.client import Store

_DELETE_BATCH: Final = 1000
_LIST_PAGE: Final = 1000
_ABANDONED_AFTER: Final = 3600.0
"""Age in seconds of a scratch directory whose process must have ended."""

_log = structlog.get_logger(__name__)


class ObjectStorage:
    """``ports.Storage`` and ``ports.PresignedUrls`` on an object storage, with a local folder for scratch directories.

    Objects appear whole or not at all, and are overwritten as a whole, so that a request whose reply was lost is simply
    sent again. No two processes write the same key, except for the owner's, which is only ever created.
    """

    def __init__(
        self,
        store: "Store",
        folder: Path,
        *,
        limit: float,
        largest_copy: int,
        upload_store: "Store | None" = None,
        reserve: float = 0,
    ) -> None:
        """Nothing has to be reachable yet.

        Args:
            store: The storage, with its own timeouts.
            folder: Holds the folder ``scratch``, as that of a ``LocalStorage`` does. Nothing in it has to be kept.
            limit: Seconds within which files are stored, or their upload fails.
            largest_copy: Size in bytes above which an object is not the service's, and is not copied to the local disk.
            upload_store: The same storage, with longer retries for uploads.
            reserve: Percentage of the local disk that uploads leave free; see ``SpaceReserve``.
        """
        self._client = ObjectClient(store)
        self.uploader = Uploader(self._client, upload_store or store, limit=limit)
        local = StorageFolder(folder)
        self._scratch = ScratchDirectories(local)
        self._probe = WriteProbe(local)
        self._reserve = SpaceReserve(local, percent=reserve)
        self._largest_copy = largest_copy
        self._swept = False

    @classmethod
    def at(cls, url: str, folder: Path, *, limit: float, largest_copy: int, reserve: float = 0) -> "ObjectStorage":
        """Returns the storage that a URL names; obstore reads endpoint and credentials from the environment.

        Raises:
            StartError: the URL or the environment is wrong.
        """
        store, upload_store = open_stores(url, silence=timedelta(seconds=limit / 2))
        return cls(store, folder, limit=limit, largest_copy=largest_copy, upload_store=upload_store, reserve=reserve)

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """Returns an empty local directory for a block; see ``ScratchDirectories.create``."""
        return self._scratch.create()

    async def sweep_scratch(self, older_than: float) -> int:
        """Remove what a crash left in this machine's scratch folder; returns how many directories."""
        return await self._scratch.sweep(older_than)

    async def check_space(self) -> None:
        """Return if an upload may use space of the local disk; see ``SpaceReserve.check``."""
        await self._reserve.check()

    async def adopt(self, files: Mapping[str, Path], attributes: Mapping[str, ObjectAttributes] | None = None) -> None:
        """Upload files to their keys; on an error, none of them. Each is one request.

        Raises:
            StorageFull: there is no space.
            StorageUnavailable: any other failure, or not done in time.
        """
        for key in files:
            check_key(key)
        await self._sweep_once()
        await self.uploader.upload(files, attributes or {})

    async def local_path(self, key: str, scratch: Path, sha256: str) -> Path:
        """Returns the path of a copy of the object in ``scratch``, which is removed with it.

        Raises:
            ObjectMissing: there is no such object, or it is too large to be the service's.
            ObjectChanged: its digest is not ``sha256``.
            StorageUnavailable: the server failed.
        """
        check_key(key)
        result = await self._client.answer_about_object(self._client.store.get_async(key))
        if (size := result.meta["size"]) > self._largest_copy:
            _log.warning("unexpected object size", key=key, size_bytes=size)
            raise ObjectMissing
        path, digest = scratch / "stored", hashlib.sha256()
        # ScratchDirectories.create translates the errors of the local disk.
        with await asyncio.to_thread(path.open, "xb") as file:
            async for piece in self._client.pieces(result):
                digest.update(piece)
                await asyncio.to_thread(file.write, piece)
        if digest.hexdigest() != sha256:
            raise ObjectChanged
        return path

    async def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Yield up to ``length`` bytes of the object from ``start`` on, in pieces of at most 256 KiB."""
        check_key(key)
        if length == 0:
            await self._client.size(key)
            return
        options: GetOptions = {}
        if length is not None:
            options["range"] = (start, start + length)
        elif start:
            options["range"] = {"offset": start}
        try:
            result = await self._client.answer_about_object(self._client.store.get_async(key, options=options))
        except StorageUnavailable:
            # Servers refuse a range outside the object, each with another error.
            if options and await self._client.size(key) <= start:
                return
            raise
        async for piece in self._client.pieces(result):
            yield piece

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, if they exist."""
        names = list(keys)
        for key in names:
            check_key(key)
        remaining = iter(names)
        while batch := list(islice(remaining, _DELETE_BATCH)):
            await self._client.delete(batch)

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """Yield every object whose key starts with ``prefix``, in bounded memory.

        Ages are by the server's clock, which dates the objects.
        """
        check_prefix(prefix)
        folder, _, _ = prefix.rpartition("/")
        began = await self._client.server_time()
        since = time.monotonic()
        pages = self._client.store.list(folder or None, chunk_size=_LIST_PAGE)
        while page := await self._client.answer(anext(pages, None)):
            for item in page:
                key = item["path"]
                if key.startswith(prefix) and not any(part.startswith(".") for part in key.split("/")):
                    age = (began - item["last_modified"]).total_seconds() + time.monotonic() - since
                    yield StoredObject(key=key, age_seconds=max(0.0, age))

    async def bind_to_database(self, owner: str) -> str:
        """Record the database that the files belong to, unless one is recorded; returns the recorded one."""
        if (recorded := await self.bound_database()) is not None:
            return recorded
        with suppress(AlreadyExistsError):  # created by another process, or by our own try whose reply was lost
            await self._client.answer(self._client.store.put_async(OWNER, owner.encode(), mode="create"))
        return await self.bound_database() or owner

    async def bound_database(self) -> str | None:
        """Returns the id of the recorded database, or None; see ``bind_to_database``."""
        try:
            result = await self._client.answer_about_object(self._client.store.get_async(OWNER))
        except ObjectMissing:
            return None
        return bytes(await self._client.answer(result.bytes_async())).decode()

    async def probe(self) -> None:
        """Check that an object and a scratch file can be written.

        Raises:
            StorageFull: there is no space.
            StorageUnavailable: not writable, or no answer within two seconds.
        """
        await self._probe.run()
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self._client.answer(self._client.store.put_async(PROBE_KEY, b"\0"))
        except TimeoutError:
            cause = self._client.outages.note_cause("slow", f"no answer within {PROBE_TIMEOUT:g} s")
            raise StorageUnavailable(cause=cause) from None

    async def presign(self, key: str, *, method: str, seconds: int) -> str:
        """Returns a presigned URL of the object; see ``PresignedUrls.presign``."""
        check_key(key)
        store = self._client.store
        if isinstance(store, MemoryStore):
            raise StorageUnavailable
        signing = sign_async(store, "HEAD" if method == "HEAD" else "GET", key, timedelta(seconds=seconds))
        return await self._client.answer(signing)

    async def _sweep_once(self) -> None:
        """Remove what an earlier process left on this machine: the sweeper may run on another machine only."""
        if not self._swept:
            self._swept = True
            with suppress(Outage):
                await self._scratch.sweep(_ABANDONED_AFTER)
