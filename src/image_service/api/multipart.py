"""Reads the uploaded file, and the fields before it, from a multipart/form-data body, as a stream (RFC 7578).

The body is never collected in memory, and reaches the disk only as far as the file was accepted.
"""

from collections.abc import AsyncGenerator
from typing import Final

from starlette.requests import ClientDisconnect, Request

from image_service.api.form_file import FormFile
from image_service.api.form_parser import FormError, FormParser, Part
from image_service.api.parameters import parse_parameters
from image_service.api.upload_limit import Upload
from image_service.errors import MalformedUpload, MissingFile, NotMultipart, UnsupportedEncoding, UploadTooLarge

_OVERHEAD: Final = 64 * 1024
"""Bytes that a body may have beyond the largest file: boundaries, headers, other fields."""
_MAX_DIGITS: Final = 19
"""Digits of a Content-Length: the HTTP parser refuses more, except for leading zeros."""


class UploadReader:
    """Finds the file in a request's body.

    Args:
        max_file_size: Size of the largest file in bytes. A body that must hold more is refused before it is read.
    """

    def __init__(self, *, max_file_size: int) -> None:
        self._max_file_size = max_file_size
        self._max_body = max_file_size + _OVERHEAD

    async def file(self, request: Request, upload: Upload, form_file: FormFile) -> AsyncGenerator[bytes]:
        """Yields the bytes of the form's field `file`, then checks the rest of the form.

        Args:
            request: The request.
            upload: How long its bytes are waited for; takes its slot.
            form_file: Takes the form's parts; has the recipe once the first bytes are yielded.

        Raises:
            UploadRejected: the body is not a form with exactly one such file, is too large, or does not arrive.
            UploadDisplaced: the upload gave way to another.
            TooManyUploads: it found no slot.
        """
        boundary = _boundary(request.headers.get("content-type", ""))
        check_encoding(request)
        if content_length(request) > self._max_body:
            raise self._too_large()
        try:
            parser = FormParser(boundary)
            async for chunk in self._body(request, upload):
                for event in parser.feed(chunk):
                    if isinstance(event, Part):
                        form_file.begin(event)
                    elif content := form_file.add(event):
                        yield content
            parser.close()
        except FormError as error:
            raise MalformedUpload(
                f"The multipart/form-data is malformed: {error} Send it again with an ordinary encoder of forms."
            ) from error
        if content := form_file.end():
            yield content

    async def _body(self, request: Request, upload: Upload) -> AsyncGenerator[bytes]:
        received = 0
        stream = aiter(request.stream())
        while True:
            try:
                chunk = await upload.receive(stream)
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
    kind, parameters = parse_parameters(content_type)
    if kind != "multipart/form-data":
        raise NotMultipart
    boundaries = [boundary for boundary in parameters.get("boundary", ()) if boundary]
    if not boundaries:
        raise MalformedUpload("The Content-Type names no boundary. Let your HTTP client make the header by itself.")
    if len(boundaries) > 1:
        raise MalformedUpload("The Content-Type names two boundaries. Let your HTTP client make the header by itself.")
    return boundaries[0]


def check_encoding(request: Request) -> None:
    """Check that the body is not compressed: it would have to be decompressed to be limited (RFC 9110, 8.4).

    Raises:
        UnsupportedEncoding: it is.
    """
    for line in request.headers.getlist("content-encoding"):
        if any(coding.strip().lower() not in {"", "identity"} for coding in line.split(",")):
            raise UnsupportedEncoding


def content_length(request: Request) -> int:
    """Returns the body's length as the client announced it; 0 if it did not, or not as a number."""
    length = request.headers.get("content-length", "")
    return int(length.lstrip("0")[:_MAX_DIGITS] or "0") if length.isascii() and length.isdigit() else 0
