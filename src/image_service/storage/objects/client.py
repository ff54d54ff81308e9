"""The client of an object storage: connection settings, and the translation of its errors."""

import re
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar, cast

from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import MemoryStore, from_url

from image_service.causes import OutageLog, one_line
from image_service.errors import ObjectMissing, Outage, StartError, StorageFull, StorageUnavailable
from image_service.storage.conventions import PIECE_BYTES

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import AzureStore, BackoffConfig, ClientConfig, GCSStore, RetryConfig, S3Store

    Store = S3Store | GCSStore | AzureStore | MemoryStore

PROBE_KEY: Final = ".probe"

_CONNECT_TIMEOUT: Final = timedelta(seconds=1)
_REQUEST_TIMEOUT: Final = timedelta(hours=1)
"""Clients may read as slowly as the API lets them. The read timeout bounds how long the server is silent."""
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(milliseconds=50), timedelta(seconds=1)
_MAX_RETRIES: Final = 1000
"""Not reached: the retry timeout ends the retries."""
_UPLOAD_RETRY_TIMEOUT: Final = timedelta(seconds=60)
"""How long an upload is retried, and then removed, after its caller has given up."""

# obstore has its own exceptions for a few errors only; the response in their message distinguishes the others.
_NO_SPACE: Final = re.compile(r"status code: 507|<Code>(XMinioStorageFull|QuotaExceeded|InsufficientStorage)")
_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
_CONNECTION: Final = re.compile(r'^ +(?:error|message): "([^"]*)"', re.MULTILINE)
_QUERY: Final = re.compile(r"\?\S*")

_ERRORS: Final = (BaseError, OSError, ValueError)
"""What obstore raises; a missing object is a FileNotFoundError."""

T = TypeVar("T")


def open_stores(url: str, silence: timedelta) -> "tuple[Store, Store]":
    """Returns the store that a URL names, and the same with longer retries, for uploads.

    obstore reads the endpoint and the credentials from the environment.

    Args:
        url: Such as ``s3://bucket/prefix``.
        silence: How long the server may be silent, and how long requests are retried.

    Raises:
        StartError: the URL or the environment is wrong.
    """
    client: ClientConfig = {
        "allow_http": True,  # the endpoint's scheme decides about encryption
        "connect_timeout": min(_CONNECT_TIMEOUT, silence),
        "read_timeout": silence,
        "timeout": _REQUEST_TIMEOUT,
    }
    try:
        store, uploading = (
            from_url(url, client_options=client, retry_config=_retries(timeout))
            for timeout in (silence, max(silence, _UPLOAD_RETRY_TIMEOUT))
        )
    except _ERRORS as error:
        raise StartError(
            f"The object storage cannot be used: {_reason(error)}. Check STORAGE_URL, and the variables of the "
            "environment that say how to reach it (AWS_…, GOOGLE_… or AZURE_…)."
        ) from None
    return cast("Store", store), cast("Store", uploading)  # the URL's scheme excludes the other kinds


class ObjectClient:
    """Sends requests to a store, and raises the service's errors."""

    def __init__(self, store: "Store") -> None:
        self.store = store
        self.outages = OutageLog("object storage failed")

    async def answer(self, request: Awaitable[T]) -> T:
        """Returns the answer to a request.

        Raises:
            StorageFull: there is no space.
            StorageUnavailable: any other failure, including a missing object or bucket.
            AlreadyExistsError: the object was to be created and exists.
        """
        try:
            return await self._translated(request)
        except FileNotFoundError as error:
            raise self._outage(error) from error

    async def answer_about_object(self, request: Awaitable[T]) -> T:
        """Returns the answer to a request about one object.

        Raises:
            ObjectMissing: there is no such object.
            Outage: see ``answer``.
        """
        try:
            return await self._translated(request)
        except FileNotFoundError as error:
            await self._check_bucket()
            raise ObjectMissing from error

    async def size(self, key: str) -> int:
        """Returns the size in bytes of an object.

        Raises:
            ObjectMissing: there is no such object.
            Outage: see ``answer``.
        """
        return (await self.answer_about_object(self.store.head_async(key)))["size"]

    async def pieces(self, result: "GetResult") -> AsyncIterator[bytes]:
        """Yield the content of a response in pieces of at most 256 KiB.

        Raises:
            Outage: see ``answer``.
        """
        stream = result.stream(PIECE_BYTES)
        while (chunk := await self.answer(anext(stream, None))) is not None:
            view = memoryview(chunk)
            for start in range(0, len(view), PIECE_BYTES):
                yield bytes(view[start : start + PIECE_BYTES])

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects, if they exist; at most 1000 at once.

        Raises:
            Outage: see ``answer``.
        """
        try:
            await self._translated(self.store.delete_async(keys))
        except FileNotFoundError:
            # Some servers report one missing object of many, and leave open whether the others were deleted.
            for key in keys:
                with suppress(FileNotFoundError):
                    await self._translated(self.store.delete_async(key))
            await self._check_bucket()

    async def server_time(self) -> datetime:
        """Returns the time by the clock that dates the objects.

        Raises:
            Outage: see ``answer``.
        """
        await self.answer(self.store.put_async(PROBE_KEY, b"\0"))
        return (await self.answer(self.store.head_async(PROBE_KEY)))["last_modified"]

    async def _check_bucket(self) -> None:
        """Return if the bucket exists. Servers answer 404 both for a missing bucket and for a missing object."""
        await self.answer(self.store.list_with_delimiter_async(PROBE_KEY))

    async def _translated(self, request: Awaitable[T]) -> T:
        """Returns the answer to a request.

        Raises:
            StorageFull: there is no space.
            StorageUnavailable: any other failure but the next two.
            FileNotFoundError: the server answered that the object, or the bucket, is missing.
            AlreadyExistsError: the object was to be created and exists.
        """
        try:
            return await request
        except (FileNotFoundError, AlreadyExistsError):
            raise
        except _ERRORS as error:
            raise self._outage(error) from error

    def _outage(self, error: Exception) -> Outage:
        code = _CODE.search(str(error))
        cause = self.outages.note_cause(f"{type(error).__name__} {code and code[1]}", _reason(error))
        return (StorageFull if _NO_SPACE.search(str(error)) else StorageUnavailable)(cause=cause)


def _reason(error: Exception) -> str:
    """Returns an error's message in one line, without the query of a URL, which may hold a secret."""
    message = str(error)
    line = _QUERY.sub("", message.partition("\n")[0].partition(": <?xml")[0])
    # The server's own code; or what the connection failed with, which only obstore's account of the error says.
    code, connection = _CODE.search(message), _CONNECTION.findall(message)
    detail = code[1] if code else connection[-1] if connection else ""
    return one_line(f"{line} ({detail})" if detail else line)


def _retries(timeout: timedelta) -> "RetryConfig":
    """Returns retries with growing pauses, of which obstore waits a random part."""
    pauses: BackoffConfig = {"init_backoff": _FIRST_PAUSE, "max_backoff": _LONGEST_PAUSE, "base": 2}
    return {"max_retries": _MAX_RETRIES, "retry_timeout": timeout, "backoff": pauses}
