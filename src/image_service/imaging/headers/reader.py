"""Reading headers without trusting them."""

import os
from typing import BinaryIO

from image_service.errors import CorruptImage


class Reader:
    """A file read front to back, where running off the end is the file's fault."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        """Length of the file in bytes."""

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes.

        Raises:
            CorruptImage: the file ends before that.
        """
        data = self._file.read(count)
        if len(data) < count:
            raise CorruptImage("The file ends in the middle of its header. Send the whole file.")
        return data

    def number(self, count: int) -> int:
        """The next ``count`` bytes as an unsigned big-endian number; raises what ``take`` raises."""
        return int.from_bytes(self.take(count))

    def skip(self, count: int) -> None:
        """Go ``count`` bytes on. Leaving the file shows at the next ``take``."""
        self._file.seek(count, os.SEEK_CUR)

    def seek(self, position: int) -> None:
        """Go to ``position`` bytes from the start."""
        self._file.seek(position)


def damaged(format_name: str, what: str) -> CorruptImage:
    """The error for a header that breaks its format's rules."""
    return CorruptImage(f"The {format_name} header is damaged: {what}. Export the image again and upload the new file.")
