"""Parses multipart/form-data as it arrives (RFC 7578, RFC 2046 section 5.1), in bounded memory.

Nothing of a part's content is kept, and of its head at most ``MAX_HEAD`` bytes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from image_service.api.parameters import parse_parameters

MAX_BOUNDARY: Final = 70
"""Characters of a boundary (RFC 2046, 5.1.1)."""
MAX_PARTS: Final = 64
"""Parts of a form: each costs a little time, and no form for one image has as many."""
MAX_HEAD: Final = 4096 + 1024
"""Bytes of all header lines of a part: a file name may have 4 KB."""
MAX_LINES: Final = 8
"""Header lines of a part: RFC 7578 knows three."""
MAX_PADDING: Final = 256
"""Blanks after a boundary, which RFC 2046 allows for the sake of mail gateways that pad lines."""

_MAX_DIGITS: Final = 19
"""Digits of the length of a part: more than any body has."""
_BLANKS: Final = b" \t"
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class FormError(ValueError):
    """The body is not a form. The message says why, as a whole sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The head of one part of a form."""

    name: str
    """The field; empty if it has no name."""
    has_file_name: bool
    length: int | None = None
    """The length that the part says it has."""


class _State(Enum):
    PREAMBLE = auto()
    DELIMITER = auto()
    """After a boundary: blanks and the end of the line, or the dashes of the last one."""
    HEAD = auto()
    CONTENT = auto()
    EPILOGUE = auto()


class FormParser:
    """Finds the parts of a form in the bytes that arrive.

    Args:
        boundary: The boundary that the Content-Type names.

    Raises:
        FormError: it is no valid boundary.
    """

    def __init__(self, boundary: str) -> None:
        if len(boundary) > MAX_BOUNDARY:
            raise FormError(f"The boundary is longer than {MAX_BOUNDARY} characters.")
        if not (boundary.isascii() and boundary.isprintable()) or boundary.endswith(" "):
            raise FormError("The boundary has a character that RFC 2046 does not allow.")
        self._delimiter = b"\r\n--" + boundary.encode()
        self._state = _State.PREAMBLE
        # As if a line had ended before the body: the first boundary needs none before it.
        self._buffer = b"\r\n"
        self._parts = 0
        self._length: int | None = None
        self._received = 0
        """Bytes of the current part's content."""

    def feed(self, data: bytes) -> Iterator[Part | bytes]:
        """Yields the head of each part, and pieces of its content after it. Must be consumed completely.

        Raises:
            FormError: the body is not a form.
        """
        buffer = self._buffer + data
        at = 0
        while self._state is not _State.EPILOGUE:
            if self._state is _State.HEAD:
                if (head := self._head(buffer, at)) is None:
                    break
                part, at = head
                yield part
            elif self._state is _State.DELIMITER:
                if (end := self._end_of_delimiter(buffer, at)) is None:
                    break
                at = end
            else:
                end, complete = self._end_of_content(buffer, at)
                if self._state is _State.CONTENT and end > at:
                    self._received += end - at
                    yield buffer[at:end]
                at = end
                if not complete:
                    break
                self._end_part()
                at += len(self._delimiter)
        self._buffer = b"" if self._state is _State.EPILOGUE else buffer[at:]

    def close(self) -> None:
        """Check that the form is complete.

        Raises:
            FormError: it is not.
        """
        if self._state is _State.PREAMBLE:
            raise FormError("The boundary that the Content-Type names is not in the body.")
        if self._state is not _State.EPILOGUE:
            raise FormError("The body ends before its last boundary.")

    def _end_of_content(self, buffer: bytes, start: int) -> tuple[int, bool]:
        """Returns the position up to which a buffer is content, and whether a boundary is there."""
        if (found := buffer.find(self._delimiter, start)) >= 0:
            return found, True
        # Only the last CR can begin a boundary that is not complete yet, because there is none within one.
        last = buffer.rfind(b"\r", max(start, len(buffer) - len(self._delimiter) + 1))
        return (last if last >= 0 and self._delimiter.startswith(buffer[last:]) else len(buffer)), False

    def _end_of_delimiter(self, buffer: bytes, start: int) -> int | None:
        """Returns where to go on after a boundary, whose end is at ``start``; None if more bytes are needed."""
        rest = buffer[start : start + MAX_PADDING + 2]
        if rest.startswith(b"--"):
            self._state = _State.EPILOGUE
            return start
        padded = rest.lstrip(_BLANKS)
        if padded.startswith(b"\r\n"):
            self._parts += 1
            if self._parts > MAX_PARTS:
                raise FormError(f"It has more than {MAX_PARTS} fields.")
            self._state = _State.HEAD
            return start + len(rest) - len(padded)
        if padded.startswith(b"\n"):
            raise FormError("A line ends with LF alone instead of CRLF.")
        if rest == b"-" or (padded in {b"", b"\r"} and len(rest) - len(padded) <= MAX_PADDING):
            return None
        raise FormError("A line that begins with the boundary goes on behind it.")

    def _head(self, buffer: bytes, start: int) -> tuple[Part, int] | None:
        """Returns a part's head and the position of its content; None if more bytes are needed."""
        # The line end of the boundary belongs to it, because a head without lines has no other.
        end = buffer.find(b"\r\n\r\n", start)
        if (len(buffer) if end < 0 else end) - start > MAX_HEAD:
            raise FormError(f"The header of a part has more than {MAX_HEAD} bytes.")
        if end < 0:
            return None
        part = _parse_head(buffer[start + 2 : end])
        self._length, self._received = part.length, 0
        self._state = _State.CONTENT
        return part, end + 4

    def _end_part(self) -> None:
        if self._length is not None and self._length != self._received:
            raise FormError("A part is not as long as its Content-Length says.")
        self._state = _State.DELIMITER


def _parse_head(head: bytes) -> Part:
    """Parse the header lines of a part, each of which begins a line."""
    headers: dict[str, str] = {}
    for line in _unfolded(head):
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if not colon or not _HEADER_NAME.fullmatch(name):
            raise FormError("A part has a header line without a name.")
        if name in headers and name in {"content-disposition", "content-length"}:
            raise FormError(f"A part has two headers {name.title()}.")
        headers[name] = value.strip()
    disposition, parameters = parse_parameters(headers.get("content-disposition", ""))
    if disposition != "form-data":
        raise FormError("A part has no header Content-Disposition: form-data.")
    return Part(
        name=parameters.get("name", [""])[-1],
        has_file_name="filename" in parameters or "filename*" in parameters,
        length=_length(headers.get("content-length")),
    )


def _unfolded(head: bytes) -> list[str]:
    """Returns the header lines, each with the lines that continue it."""
    lines: list[str] = []
    # Latin-1 decodes any byte: the names of fields other than ours, and of files, do not matter.
    for line in head.decode("latin-1").split("\r\n"):
        if "\r" in line or "\n" in line:
            raise FormError("A header line ends with CR or LF alone instead of CRLF.")
        if lines and line.startswith((" ", "\t")):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    if len(lines) > MAX_LINES:
        raise FormError(f"A part has more than {MAX_LINES} header lines.")
    return lines


def _length(value: str | None) -> int | None:
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS):
        raise FormError("The Content-Length of a part is not a number.")
    return int(value)
