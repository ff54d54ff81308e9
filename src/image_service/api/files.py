"""Responses that serve stored files."""

from collections.abc import AsyncIterator
from typing import Final, Protocol

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from image_service.api.caching import CachePolicy
from image_service.api.conditional import is_not_modified, is_other_version, requested_range
from image_service.api.problems import problem_response
from image_service.api.security_headers import INERT
from image_service.errors import PreconditionFailed, RangeNotSatisfiable
from image_service.services.lookup import PRESIGNED_SECONDS, StoredFile

_SINGLE_BODY: Final = 256 * 1024
"""Bytes up to which a file is read completely and sent as one message."""
_REDIRECT_SECONDS: Final = PRESIGNED_SECONDS - 60
"""Seconds for which a redirect may be cached: a download that starts within them still finds its URL valid."""


class FileSource(Protocol):
    """Where files are read from."""

    def read(self, file: StoredFile, start: int, length: int | None) -> AsyncIterator[bytes]:
        """Returns the bytes from a position on, at most ``length`` of them."""
        ...

    async def presign(self, file: StoredFile, method: str) -> str | None:
        """Returns a URL from which the client gets the file with this method; None to serve it from here."""
        ...


async def file_response(
    request: Request,
    file: StoredFile,
    source: FileSource,
    *,
    cache: CachePolicy,
    attachment: bool,
    location: str | None = None,
) -> Response:
    """Returns the response to a GET or HEAD request for a stored file.

    Args:
        request: Its conditional and range headers are honoured.
        file: The file to serve.
        source: Where the file is read from.
        cache: How the response may be cached.
        attachment: Whether browsers should save the file instead of showing it.
        location: The path at which this file, and no other, is served; None: the one that was requested.

    Raises:
        PreconditionFailed: the client asked for another version of the file.
        ObjectMissing: the file does not exist; raised before anything is sent.
        StorageUnavailable: the file cannot be read, or no presigned URL can be made.
    """
    etag = f'"{file.sha256}"'
    if is_other_version(request, etag):
        raise PreconditionFailed
    headers = _headers(file, etag, cache, attachment=attachment)
    if location is not None:
        headers["Content-Location"] = location
    if is_not_modified(request, etag):
        return Response(status_code=304, headers=headers)
    if (url := await source.presign(file, request.method)) is not None:
        return _redirect(url, cache)
    positions = requested_range(request, etag, file.size_bytes)
    if positions is None:
        status, positions = 200, range(file.size_bytes)
    elif positions.start >= file.size_bytes:
        return problem_response(
            RangeNotSatisfiable(), {"Content-Range": f"bytes */{file.size_bytes}"} | cache.vary_header
        )
    else:
        status = 206
        headers["Content-Range"] = f"bytes {positions.start}-{positions.stop - 1}/{file.size_bytes}"
    headers["Content-Length"] = str(len(positions))
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=file.content_type)
    chunks = source.read(file, positions.start, len(positions))
    # Read before the headers are sent, so that a missing file still becomes an error response.
    first = await anext(chunks, b"")
    if len(positions) <= _SINGLE_BODY:
        return Response(first + b"".join([chunk async for chunk in chunks]), status, headers, file.content_type)
    return StreamingResponse(_chain(first, chunks), status, headers, file.content_type)


def _headers(file: StoredFile, etag: str, cache: CachePolicy, *, attachment: bool) -> dict[str, str]:
    return {
        "ETag": etag,
        "Cache-Control": cache.header,
        **cache.vary_header,
        "Accept-Ranges": "bytes",
        **INERT,  # the content is untrusted: browsers must treat it as an image only
        "Content-Disposition": f'{"attachment" if attachment else "inline"}; filename="{file.name}"',
    }


def _redirect(presigned_url: str, cache: CachePolicy) -> Response:
    headers = {
        **cache.vary_header,
        # The URL expires: a cached redirect must expire before it does.
        "Cache-Control": cache.at_most(_REDIRECT_SECONDS).header,
        # The URL grants access: it must not reach other sites as a referrer.
        "Referrer-Policy": "no-referrer",
    }
    return RedirectResponse(presigned_url, 307, headers)


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
