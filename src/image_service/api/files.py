"""Serving stored files (RFC 9110: conditional requests §13, ranges §14)."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from image_service.api.problems import problem_response
from image_service.errors import RangeNotSatisfiable
from image_service.services.lookup import PRESIGNED_SECONDS, StoredFile

_YEAR: Final = 31_536_000

PRIVATE_FOR_EVER: Final = f"private, max-age={_YEAR}, immutable"
PUBLIC_FOR_EVER: Final = f"public, max-age={_YEAR}, immutable"
REVALIDATE: Final = "public, no-cache"

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_AT_ONCE: Final = 256 * 1024
"""Bytes up to which a file is answered in one go."""

_LINK_KEPT: Final = PRESIGNED_SECONDS - 60
"""Seconds for which a client may follow a link without asking anew: what it begins then still gets through."""

Read = Callable[[StoredFile, int, int | None], AsyncIterator[bytes]]
Presign = Callable[[StoredFile, str], Awaitable[str | None]]


async def file_response(
    request: Request, file: StoredFile, *, read: Read, presign: Presign, cache: str, attachment: bool
) -> Response:
    """The answer to a GET or HEAD of a stored file.

    Args:
        request: Its conditional and range headers count.
        file: What to serve.
        read: Reads a part of it, from a position and at most so many bytes.
        presign: Tells where to get it with this method instead, if not from here.
        cache: The ``Cache-Control`` header.
        attachment: Whether browsers are to save it rather than show it.

    Raises:
        ObjectMissing: the file is not there; raised before anything is sent.
        StorageUnavailable: it cannot be read, or no link be made.
    """
    etag = f'"{file.sha256}"'
    headers = {
        "ETag": etag,
        "Cache-Control": cache,
        "Accept-Ranges": "bytes",
        # What a stranger uploaded is an image and nothing else, whatever a browser might make of its bytes.
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f'{"attachment" if attachment else "inline"}; filename="{file.name}"',
    }
    if _matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    if (elsewhere := await presign(file, request.method)) is not None:
        return _redirect(elsewhere, cache)
    wanted = _wanted_range(request, etag, file.size_bytes)
    if wanted is None:
        status, start, length = 200, 0, file.size_bytes
    elif (start := wanted.start) >= file.size_bytes:
        return problem_response(RangeNotSatisfiable(), {"Content-Range": f"bytes */{file.size_bytes}"})
    else:
        status, length = 206, len(wanted)
        headers["Content-Range"] = f"bytes {start}-{wanted.stop - 1}/{file.size_bytes}"
    headers["Content-Length"] = str(length)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=file.content_type)
    pieces = read(file, start, length)
    # Before the headers are sent: a file that is missing must still become an error.
    first = await anext(pieces, b"")
    if length <= _AT_ONCE:
        return Response(first + b"".join([piece async for piece in pieces]), status, headers, file.content_type)
    return StreamingResponse(_continued(first, pieces), status, headers, file.content_type)


def _redirect(url: str, cache: str) -> Response:
    """To a link that soon expires: whoever asks later has to come here again."""
    whose, _, lasting = cache.partition(", max-age")
    kept = f"{whose}, max-age={_LINK_KEPT}" if lasting else cache
    # A link is a key: no address that an answer names may learn it.
    return RedirectResponse(url, 307, {"Cache-Control": kept, "Referrer-Policy": "no-referrer"})


async def _continued(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def _matches(condition: str, etag: str) -> bool:
    """Whether an ``If-None-Match`` header names this entity; weakly, as §13.1.2 wants it."""
    candidates = [candidate.strip().removeprefix("W/") for candidate in condition.split(",")]
    return condition.strip() == "*" or etag in candidates


def _wanted_range(request: Request, etag: str, size: int) -> range | None:
    """The bytes of a single-range request, cut to the file's end; None where the whole file is wanted.

    Starts at or beyond ``size`` where it lies outside the file. Several ranges, other units and malformed headers are
    ignored, as §14.2 allows; a range of another version of the file has to be (§13.1.5).
    """
    match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if match is None or request.method != "GET" or request.headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    if first:
        stop = min(int(last) + 1, size) if last else size
        return range(int(first), stop) if not last or int(last) >= int(first) else None
    if not last:
        return None
    # The last so many bytes; none at all cannot be satisfied.
    return range(max(0, size - int(last)), size) if int(last) else range(size, size)
