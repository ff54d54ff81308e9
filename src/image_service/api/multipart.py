"""Reads the uploaded file from a multipart/form-data body, as a stream (RFC 7578).

The body is never collected in memory, and reaches the disk only as far as the file was accepted.
"""

from collections.abc import AsyncGenerator
from typing import Final

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from image_service.api.upload_limit import UploadSlot
from image_service.errors import (
    MalformedUpload,
    MissingFile,
    NotMultipart,
    TooManyFiles,
    UploadTooLarge,
)

FIELD: Final = "file"
"""The form field that holds the image."""

_OVERHEAD: Final = 64 * 1024
"""Bytes that a body may have beyond the largest file: boundaries, headers, other fields."""
_MAX_FIELDS: Final = 64


class UploadReader:
    """Finds the file in a request's body.

    Args:
        max_file_size: Size of the largest file in bytes. A body that must hold more is refused before it is read.
    """

    def __init__(self, *, max_file_size: int) -> None:
        self._max_file_size = max_file_size
        self._max_body = max_file_size + _OVERHEAD

    async def file(self, request: Request, slot: UploadSlot) -> AsyncGenerator[bytes]:
        """Yields the bytes of the form's field `file`, then checks the rest of the form.

        Args:
            request: The upload.
            slot: The place that it has; it says how long its bytes are waited for.

        Raises:
            UploadRejected: the body is not a form with exactly one such field, is too large, or does not arrive.
            UploadDisplaced: the upload gave way to another.
        """
        boundary = _boundary(request.headers.get("content-type", ""))
        if _content_length(request) > self._max_body:
            raise self._too_large()
        files = 0
        in_file = False
        try:
            # Latin-1 decodes any byte: file names are not used, so none can be invalid.
            with PushMultipartParser(boundary, max_segment_count=_MAX_FIELDS, header_charset="latin-1") as parser:
                async for chunk in self._body(request, slot):
                    for event in parser.parse(chunk):
                        if isinstance(event, MultipartSegment):
                            in_file = event.name == FIELD
                            files += in_file
                            if files > 1:
                                raise TooManyFiles
                        elif event is not None and in_file:
                            yield event
        except MultipartError as error:
            raise MalformedUpload(
                f"The multipart body is malformed: {error}. Send it again with an ordinary multipart/form-data encoder."
            ) from error
        if not files:
            raise MissingFile

    async def _body(self, request: Request, slot: UploadSlot) -> AsyncGenerator[bytes]:
        received = 0
        stream = aiter(request.stream())
        while True:
            try:
                chunk = await slot.receive(stream)
            except ClientDisconnect:
                raise MalformedUpload("The connection was closed before the upload was complete.") from None
            if chunk is None:
                return
            received += len(chunk)
            if received > self._max_body:
                raise self._too_large()
            if chunk:
                yield chunk

    def _too_large(self) -> UploadTooLarge:
        return UploadTooLarge(
            f"The upload is too large: this service accepts files of up to {self._max_file_size:,} bytes. "
            "Send a smaller one."
        )


def _boundary(content_type: str) -> str:
    if not content_type:
        raise MissingFile
    kind, options = parse_options_header(content_type)
    if kind != "multipart/form-data":
        raise NotMultipart
    boundary: str = options.get("boundary", "")
    if not boundary:
        raise MalformedUpload("The Content-Type names no boundary. Let your HTTP client make the header by itself.")
    return boundary


def _content_length(request: Request) -> int:
    """Returns the body's length as the client announced it; 0 if it did not, or not as a number."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0
