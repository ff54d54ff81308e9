"""Uploads to an object storage: all files of a group are stored in time, or none."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from image_service.errors import Outage, StorageUnavailable
from image_service.ports import ObjectAttributes
from image_service.storage.objects.client import ObjectClient

if TYPE_CHECKING:
    from obstore import Attributes

    from image_service.storage.objects.client import Store

_CONCURRENT_UPLOADS: Final = 4
"""Files that one process uploads at once; more wait. A file is in memory while it is uploaded."""
_LARGE: Final = 10 * 1024 * 1024
"""Size in bytes above which files are uploaded one at a time, which bounds the memory."""


class Uploader:
    """Uploads groups of files.

    Args:
        client: The storage.
        store: The same storage, with longer retries.
        limit: Seconds within which a group is stored, or its upload fails.
    """

    def __init__(self, client: ObjectClient, store: "Store", *, limit: float) -> None:
        self._client = client
        self._store = store
        self._limit = limit
        self._slots = asyncio.Semaphore(_CONCURRENT_UPLOADS)
        self._large = asyncio.Semaphore(1)
        self.cleanups: set[asyncio.Task[None]] = set()
        """Tasks that remove what an abandoned upload stored."""

    async def upload(self, files: Mapping[str, Path], attributes: Mapping[str, ObjectAttributes]) -> None:
        """Upload files to their keys; on an error, none of them.

        Raises:
            StorageFull: there is no space.
            StorageUnavailable: any other failure, or not done in time.
        """
        uploading = asyncio.create_task(self._upload_all(files, attributes))
        try:
            async with asyncio.timeout(self._limit):
                await asyncio.shield(uploading)
        except (TimeoutError, asyncio.CancelledError) as error:
            # Cancelling a request might leave an object: a task waits for its end.
            self._start_cleanup(self._remove_when_done(uploading, files))
            if isinstance(error, TimeoutError):
                cause = self._client.outages.note_cause("slow", f"not stored within {self._limit:g} s")
                raise StorageUnavailable(cause=cause) from None
            raise

    async def _upload_all(self, files: Mapping[str, Path], attributes: Mapping[str, ObjectAttributes]) -> None:
        """Upload files; if one fails, wait for the others, and remove all if possible."""
        uploads = (self._upload(key, path, attributes.get(key)) for key, path in files.items())
        outcomes = await asyncio.gather(*uploads, return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failures:
            with suppress(Outage):  # the sweeper finds them then
                await self._client.delete(list(files))
            raise failures[0]

    async def _upload(self, key: str, path: Path, attributes: ObjectAttributes | None) -> None:
        """Upload a file in one request: a killed process would leave the parts of a multipart upload."""
        size = await self._client.answer(asyncio.to_thread(_size, path))
        async with self._large if size > _LARGE else self._slots:
            await self._client.answer(
                self._store.put_async(key, path, attributes=_headers(attributes), use_multipart=False)
            )

    async def _remove_when_done(self, uploading: "asyncio.Task[None]", keys: Iterable[str]) -> None:
        """Remove the objects of an upload whose caller has given up."""
        with suppress(Outage):
            await uploading  # a failed upload has removed everything itself
            await self._client.delete(list(keys))

    def _start_cleanup(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self.cleanups.add(task)  # the event loop alone does not keep tasks alive
        task.add_done_callback(self.cleanups.discard)


def _size(path: Path) -> int:
    return path.stat().st_size


def _headers(attributes: ObjectAttributes | None) -> "Attributes":
    if attributes is None:
        return {}
    headers: Attributes = {"Content-Type": attributes.content_type}
    if attributes.attachment:
        headers["Content-Disposition"] = "attachment"
    return headers
