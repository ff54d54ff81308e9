"""Builds multipart/form-data bodies."""

BOUNDARY = b"-----boundary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY.decode()}"

BEFORE_SLOT = 16 * 1024
"""Bytes of a body that the service receives before the upload takes a slot."""


def part(content: bytes, name: bytes = b"file", file_name: bytes | None = b"photo.jpg", *headers: bytes) -> bytes:
    """Returns one field of a form, with additional headers."""
    disposition = b'Content-Disposition: form-data; name="' + name + b'"'
    if file_name is not None:
        disposition += b'; filename="' + file_name + b'"'
    lines = [b"--" + BOUNDARY, disposition, *headers, b"", content]
    return b"\r\n".join(lines) + b"\r\n"


def form(*parts: bytes) -> bytes:
    """Returns a complete body."""
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"
