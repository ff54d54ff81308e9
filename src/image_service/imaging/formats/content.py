"""Access to the bytes of a file, in memory or on disk, for the container readers."""

import os
from collections.abc import Iterable
from typing import BinaryIO, Final, Protocol

from image_service.errors import CorruptImage

_HEAD_BYTES: Final = 4096
"""Bytes at the start of a file that are read at once: most headers need no more."""


class Content(Protocol):
    """The bytes of a file. ``bytes`` is one; a slice that reaches beyond the end is short, as it is there."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: slice, /) -> bytes: ...


class FileContent:
    """The bytes of an open file, read where and when they are needed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._length = os.fstat(file.fileno()).st_size
        file.seek(0)
        self.head = file.read(_HEAD_BYTES)
        """The first 4096 bytes, or the whole of a shorter file."""

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: slice, /) -> bytes:
        start, stop = place.start or 0, self._length if place.stop is None else min(place.stop, self._length)
        if stop <= len(self.head):
            return self.head[start:stop]
        if start >= stop:
            return b""
        self._file.seek(start)
        return self._file.read(stop - start)


def take(content: Content, at: int, count: int) -> bytes:
    """Return the ``count`` bytes that begin at ``at``.

    Raises:
        CorruptImage: the file ends before that.
    """
    data = content[at : at + count]
    if len(data) < count:
        raise cut_off()
    return data


def number(content: Content, at: int, count: int) -> int:
    """Return the ``count`` bytes at ``at`` as an unsigned big-endian number; what lies beyond the end is left out."""
    return int.from_bytes(content[at : at + count])


def without(content: bytes, parts: Iterable[tuple[int, int]]) -> bytes:
    """Return the content without some of its parts, given as start and end in ascending order.

    Content from which nothing is removed is not copied.
    """
    kept, rest = [], 0
    for start, end in parts:
        if start > rest:
            kept.append(content[rest:start])
        rest = end
    return b"".join((*kept, content[rest:])) if rest else content


def cut_off() -> CorruptImage:
    """Return the error for a file that ends inside its header."""
    return CorruptImage("The file ends in the middle of its header. Send the whole file.")


def damaged(format_name: str, what: str) -> CorruptImage:
    """Return the error for a header that breaks the rules of its format."""
    return CorruptImage(f"The {format_name} header is damaged: {what}. Export the image again and upload the new file.")
