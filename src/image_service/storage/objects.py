"""Files in an object storage: S3, Google Cloud Storage or Azure. Durable once the server has said so.

The only module that knows obstore; it is loaded where an object storage is used, and nowhere else.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
from obstore import sign_async
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import MemoryStore, from_url

from image_service.errors import ObjectMissing, Outage, StartError, StorageFull, StorageUnavailable
from image_service.ports import ObjectAttributes, StoredObject
from image_service.storage.local import PIECE_BYTES, PROBE_SECONDS, LocalStorage
from image_service.storage.names import check, check_prefix

if TYPE_CHECKING:
    from obstore import Attributes, GetOptions, GetResult
    from obstore.store import AzureStore, BackoffConfig, ClientConfig, GCSStore, RetryConfig, S3Store

    Store = S3Store | GCSStore | AzureStore | MemoryStore

PART_BYTES: Final = 5 * 1024 * 1024
"""The size of the parts that larger files are sent in: the least that S3 takes."""

_SENT_AT_ONCE: Final = 4
"""Files that one process sends at a time; more wait. With two parts of each under way, this bounds the memory."""
_PARTS_AT_ONCE: Final = 2
_DELETED_AT_ONCE: Final = 1000
_LISTED_AT_ONCE: Final = 1000
_LEFT_BEHIND: Final = 3600.0
"""Age in seconds of a scratch folder whose process must be dead."""

_OWNER: Final = ".owner"
_PROBE: Final = ".probe"

_CONNECT: Final = timedelta(seconds=1)
_WHOLE_REQUEST: Final = timedelta(hours=1)
"""A client may read as slowly as the API lets it. What counts is how long the server is silent."""
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(milliseconds=50), timedelta(seconds=1)
_ENOUGH: Final = 1000
"""Retries that time alone bounds."""
_SENDING_PATIENCE: Final = timedelta(seconds=60)
"""For how long a file goes on being sent, and is then taken back, that nobody waits for any longer.

In an outage of less, an upload in parts leaves none behind, since it comes to an end after all.
"""

# obstore tells apart only what it has an exception for; the rest is in its words, which quote the answer.
_NO_ROOM: Final = re.compile(r"status code: 507|<Code>(XMinioStorageFull|QuotaExceeded|InsufficientStorage)")
_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
_QUERY: Final = re.compile(r"\?\S*")

_FAILURES: Final = (BaseError, OSError, ValueError)
"""What obstore raises; an object that is not there is a FileNotFoundError."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class ObjectStorage:
    """``ports.Storage`` and ``ports.PresignedUrls`` on a server that keeps objects, with a local folder for scratch.

    Objects appear whole or not at all, and are overwritten as a whole, so that a request whose reply was lost is simply
    sent again. No two writers have the same key, except for the owner's note, which is only ever created.
    """

    def __init__(
        self, store: "Store", folder: Path, *, limit: float, largest_copy: int, sender: "Store | None" = None
    ) -> None:
        """Make it; nothing has to be reachable yet.

        Args:
            store: The server, with its own limits of time.
            folder: Holds the folder ``scratch``, as that of a ``LocalStorage`` does. Nothing in it is ever missed.
            limit: Seconds within which files are stored, or are not.
            largest_copy: Bytes beyond which an object is none of ours, and is not copied to the local disk.
            sender: The same server, with more patience: for files.
        """
        self._store = store
        self._sender = sender or store
        self._local = LocalStorage(folder)
        self._limit = limit
        self._largest_copy = largest_copy
        self._turns = asyncio.Semaphore(_SENT_AT_ONCE)
        self._unwatched: set[asyncio.Task[None]] = set()
        self._tidied = False

    @classmethod
    def at(cls, url: str, folder: Path, *, limit: float, largest_copy: int) -> "ObjectStorage":
        """The storage that a URL names; how it is reached and with which rights, obstore reads from the environment.

        Raises:
            StartError: there is something wrong with these.
        """
        silence = timedelta(seconds=limit / 2)
        client: ClientConfig = {
            "allow_http": True,  # whoever sets an endpoint says with it whether it is encrypted
            "connect_timeout": min(_CONNECT, silence),
            "read_timeout": silence,
            "timeout": _WHOLE_REQUEST,
        }
        try:
            store, sender = (
                from_url(url, client_options=client, retry_config=_retries(patience))
                for patience in (silence, max(silence, _SENDING_PATIENCE))
            )
        except _FAILURES as error:
            raise StartError(
                f"The object storage cannot be used: {_reason(error)}. Check STORAGE_URL, and the variables of the "
                "environment that say how to reach it (AWS_…, GOOGLE_… or AZURE_…)."
            ) from None
        return cls(store, folder, limit=limit, largest_copy=largest_copy, sender=sender)  # type: ignore[arg-type]  # by the URL's scheme both are such

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """A new empty local folder; see ``LocalStorage.scratch``."""
        return self._local.scratch()

    async def sweep_scratch(self, older_than: float) -> int:
        """Remove what a crash left in this machine's scratch folder; returns how many folders."""
        return await self._local.sweep_scratch(older_than)

    async def adopt(self, files: Mapping[str, Path], attributes: Mapping[str, ObjectAttributes] | None = None) -> None:
        """Send files to their keys; on an error, none of them. Larger ones go in parts, in memory that does not grow.

        Raises:
            StorageFull: no room.
            StorageUnavailable: any other failure, or not done in time.
        """
        for key in files:
            check(key)
        await self._tidy()
        sending = asyncio.create_task(self._send_all(files, attributes or {}))
        try:
            async with asyncio.timeout(self._limit):
                await asyncio.shield(sending)
        except (TimeoutError, asyncio.CancelledError) as error:
            # A request that is cut off leaves parts behind, and perhaps an object: its end is waited for, elsewhere.
            self._watch(self._take_back(sending, files))
            if isinstance(error, TimeoutError):
                _log.warning("object storage failed", reason=f"not stored within {self._limit:g} s")
                raise StorageUnavailable from None
            raise

    async def local_path(self, key: str, scratch: Path) -> Path:
        """A copy of the object in ``scratch``, which is removed with it.

        Raises:
            ObjectMissing: there is nothing under the key, or something that is too large to be ours.
            StorageUnavailable: the server failed.
        """
        check(key)
        got = await self._found(self._store.get_async(key))
        if (size := got.meta["size"]) > self._largest_copy:
            _log.warning("an object is too large to be ours", key=key, size_bytes=size)
            raise ObjectMissing
        path = scratch / "stored"
        # What only a disk can say of this is for whoever made the scratch folder: see LocalStorage.scratch.
        with await asyncio.to_thread(path.open, "xb") as file:
            async for piece in self._pieces(got):
                await asyncio.to_thread(file.write, piece)
        return path

    async def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The object's bytes from ``start`` on, at most ``length`` of them, in pieces of at most 256 KiB."""
        check(key)
        if length == 0:
            await self._size(key)
            return
        options: GetOptions = {}
        if length is not None:
            options["range"] = (start, start + length)
        elif start:
            options["range"] = {"offset": start}
        try:
            got = await self._found(self._store.get_async(key, options=options))
        except StorageUnavailable:
            # A range that lies outside the object is refused, by each server in its own words.
            if options and await self._size(key) <= start:
                return
            raise
        async for piece in self._pieces(got):
            yield piece

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove objects. A key with nothing under it is fine."""
        names = list(keys)
        for key in names:
            check(key)
        remaining = iter(names)
        while batch := list(islice(remaining, _DELETED_AT_ONCE)):
            await self._delete(batch)

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """Every object whose key starts with ``prefix``, in memory that does not grow.

        Their ages are by the server's clock, which is the one that dated them.
        """
        check_prefix(prefix)
        folder, _, _ = prefix.rpartition("/")
        began = await self._answer(self._server_time())
        since = time.monotonic()
        pages = self._store.list(folder or None, chunk_size=_LISTED_AT_ONCE)
        while page := await self._answer(anext(pages, None)):
            for item in page:
                key = item["path"]
                if key.startswith(prefix) and not any(part.startswith(".") for part in key.split("/")):
                    age = (began - item["last_modified"]).total_seconds() + time.monotonic() - since
                    yield StoredObject(key=key, age_seconds=max(0.0, age))

    async def bind_to_database(self, owner: str) -> str:
        """Note whose files these are, unless it is noted already; returns whose they are."""
        if (noted := await self._noted()) is not None:
            return noted
        with suppress(AlreadyExistsError):  # made by another, or by our own first try, whose reply was lost
            await self._answer(self._store.put_async(_OWNER, owner.encode(), mode="create"))
        return await self._noted() or owner

    async def probe(self) -> None:
        """Return if an object and a scratch file can be written.

        Raises:
            StorageFull: no room.
            StorageUnavailable: not writable, or no answer within two seconds.
        """
        await self._local.probe()
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._answer(self._store.put_async(_PROBE, b"\0"))
        except TimeoutError:
            raise StorageUnavailable from None

    async def presign(self, key: str, *, method: str, seconds: int) -> str:
        """A signed URL of the object; see ``PresignedUrls.presign``."""
        check(key)
        if isinstance(self._store, MemoryStore):
            raise StorageUnavailable
        signing = sign_async(self._store, "HEAD" if method == "HEAD" else "GET", key, timedelta(seconds=seconds))
        return await self._answer(signing)

    async def _tidy(self) -> None:
        """Remove what an earlier life of this process has left: a sweeper may run on another machine only."""
        if not self._tidied:
            self._tidied = True
            with suppress(Outage):
                await self._local.sweep_scratch(_LEFT_BEHIND)

    async def _send_all(self, files: Mapping[str, Path], attributes: Mapping[str, ObjectAttributes]) -> None:
        """Send files; if one fails, wait for the others, and take all back as far as that is possible."""
        sending = (self._send(key, path, attributes.get(key)) for key, path in files.items())
        outcomes = await asyncio.gather(*sending, return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failures:
            with suppress(Outage):  # then the sweeper finds them
                await self._delete(list(files))
            raise failures[0]

    async def _send(self, key: str, path: Path, presentation: ObjectAttributes | None) -> None:
        async with self._turns:
            await self._answer(
                self._sender.put_async(
                    key,
                    path,
                    attributes=_attributes(presentation),
                    chunk_size=PART_BYTES,
                    max_concurrency=_PARTS_AT_ONCE,
                )
            )

    async def _take_back(self, sending: "asyncio.Task[None]", keys: Iterable[str]) -> None:
        """Remove what has been sent after all, when nobody waits for it any longer."""
        with suppress(Outage):
            await sending  # or it has taken back everything itself
            await self._delete(list(keys))

    def _watch(self, work: Coroutine[object, object, None]) -> None:
        """Have something done that nobody waits for."""
        task = asyncio.create_task(work)
        self._unwatched.add(task)  # a loop alone does not keep its tasks alive
        task.add_done_callback(self._unwatched.discard)

    async def _pieces(self, got: "GetResult") -> AsyncIterator[bytes]:
        stream = got.stream(PIECE_BYTES)
        while (chunk := await self._answer(anext(stream, None))) is not None:
            view = memoryview(chunk)
            for start in range(0, len(view), PIECE_BYTES):
                yield bytes(view[start : start + PIECE_BYTES])

    async def _size(self, key: str) -> int:
        """The size in bytes of an object.

        Raises:
            ObjectMissing: there is none.
        """
        return (await self._found(self._store.head_async(key)))["size"]

    async def _delete(self, keys: Sequence[str]) -> None:
        try:
            await _translated(self._store.delete_async(keys))
        except FileNotFoundError:
            # Some servers say so when one of many is not there, and leave open what has become of the others.
            for key in keys:
                with suppress(FileNotFoundError):
                    await _translated(self._store.delete_async(key))
            await self._stand()

    async def _noted(self) -> str | None:
        """Whose files these are, if that is noted."""
        try:
            got = await self._found(self._store.get_async(_OWNER))
        except ObjectMissing:
            return None
        return bytes(await self._answer(got.bytes_async())).decode()

    async def _server_time(self) -> datetime:
        """The time by the clock that dates the objects."""
        await self._answer(self._store.put_async(_PROBE, b"\0"))
        return (await self._answer(self._store.head_async(_PROBE)))["last_modified"]

    async def _stand(self) -> None:
        """Return if there is a bucket. Servers answer with 404 whether it or an object is missing."""
        await self._answer(self._store.list_with_delimiter_async(_PROBE))

    async def _found(self, asking: Awaitable[T]) -> T:
        """The answer to a question about one object.

        Raises:
            ObjectMissing: there is no such object.
            Outage: see ``_translated``.
        """
        try:
            return await _translated(asking)
        except FileNotFoundError as error:
            await self._stand()
            raise ObjectMissing from error

    async def _answer(self, asking: Awaitable[T]) -> T:
        """The answer to any other question.

        Raises:
            Outage: see ``_translated``.
        """
        try:
            return await _translated(asking)
        except FileNotFoundError as error:
            raise _outage(error) from error


async def _translated(asking: Awaitable[T]) -> T:
    """The answer, or our own word for what went wrong.

    Raises:
        StorageFull: no room.
        StorageUnavailable: any other failure but the next two.
        FileNotFoundError: the server answered that there is no such object, or no such bucket.
        AlreadyExistsError: what was only to be created is there.
    """
    try:
        return await asking
    except (FileNotFoundError, AlreadyExistsError):
        raise
    except _FAILURES as error:
        raise _outage(error) from error


def _outage(error: Exception) -> Outage:
    _log.warning("object storage failed", reason=_reason(error))
    return StorageFull() if _NO_ROOM.search(str(error)) else StorageUnavailable()


def _reason(error: Exception) -> str:
    """What went wrong, in one line and without what a URL may carry as a secret."""
    told = str(error)
    code = _CODE.search(told)
    line = _QUERY.sub("", told.partition("\n")[0].partition(": <?xml")[0])
    return f"{line} ({code[1]})" if code else line


def _retries(patience: timedelta) -> "RetryConfig":
    """With growing pauses, of a random part of that length."""
    pauses: BackoffConfig = {"init_backoff": _FIRST_PAUSE, "max_backoff": _LONGEST_PAUSE, "base": 2}
    return {"max_retries": _ENOUGH, "retry_timeout": patience, "backoff": pauses}


def _attributes(presentation: ObjectAttributes | None) -> "Attributes":
    if presentation is None:
        return {}
    attributes: Attributes = {"Content-Type": presentation.content_type}
    if presentation.attachment:
        attributes["Content-Disposition"] = "attachment"
    return attributes
