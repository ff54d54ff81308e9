"""Thumbnails as bytes from a decoder process: kept in memory there, checked and written to files here."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from image_service.domain.image import RenderedThumbnail
from image_service.errors import InvalidImage
from image_service.imaging.formats import read_dimensions
from image_service.imaging.formats.magic import identify
from image_service.imaging.isolation.protocol import Announced

_HEAD: Final = 4096
"""Bytes from which the format is detected."""
_MODE: Final = 0o640


@dataclass(slots=True)
class CollectedFiles:
    """Stands for a folder in the decoder process, which may write none: keeps the files that the pipeline writes."""

    contents: dict[str, bytes | memoryview] = field(default_factory=dict)

    def __truediv__(self, name: str) -> "_CollectedFile":
        return _CollectedFile(self, name)


@dataclass(frozen=True, slots=True)
class _CollectedFile:
    folder: CollectedFiles
    name: str

    def write_bytes(self, content: bytes | memoryview) -> int:
        """Keep the content."""
        self.folder.contents[self.name] = content
        return len(content)


def store(announced: Sequence[Announced], contents: Sequence[bytes], out: Path) -> Iterator[RenderedThumbnail]:
    """Check thumbnails and write them to files named like their outputs; yields each with its digest.

    Args:
        announced: The thumbnails.
        contents: Their bytes, in the same order.
        out: An existing folder.

    Raises:
        ValueError: a file is not what was announced; nothing was written.
        OSError: from the file system.
    """
    for each, content in zip(announced, contents, strict=True):
        _check(each, content)
    for each, content in zip(announced, contents, strict=True):
        path = out / each.output
        _write(path, content)
        yield RenderedThumbnail(
            output=each.output,
            path=path,
            content_type=each.format.content_type,
            width=each.width,
            height=each.height,
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )


def _check(announced: Announced, content: bytes) -> None:
    """Check that a file has the format and the size in pixels that were announced.

    Raises:
        ValueError: it has not.
    """
    try:
        found = identify(content[:_HEAD])
        size = read_dimensions(content, announced.format) if found is announced.format else (0, 0)
    except InvalidImage as error:
        raise ValueError(f"the thumbnail {announced.output} is damaged: {error.detail}") from error
    if size != (announced.width, announced.height):
        raise ValueError(f"the thumbnail {announced.output} is not the file that was announced")


def _write(path: Path, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(file, rest) :]
    finally:
        os.close(file)
