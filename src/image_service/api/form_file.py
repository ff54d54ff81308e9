"""Decides which part of a form is the uploaded file."""

from typing import Final

from image_service.api.form_parser import Part
from image_service.errors import MissingFile, TooManyFiles

FIELD: Final = "file"
"""The form field that holds the image."""

MAX_HELD: Final = 64 * 1024
"""Bytes of a part without a file name that are kept until it is known whether one with a file name follows."""


class FormFile:
    """Picks the file's bytes out of a form's parts, as they arrive.

    The file is the part named ``file`` that has a file name. If there is none, it is the only part of that name: some
    clients send no file names. Beside a file, parts of its name without a file name are ordinary fields, which are
    ignored: FilePond sends its metadata so, before the file.
    """

    def __init__(self) -> None:
        self._current: bytearray | None = None
        """Where the current part is kept; None if it is passed on or ignored."""
        self._passing_on = False
        """Whether the current part is the file, which is known already."""
        self._found = False
        """Whether the file is known."""
        self._unnamed_file = False
        """Whether that has no file name."""
        self._held = bytearray()
        self._unnamed = 0
        """Parts without a file name."""

    def begin(self, part: Part) -> None:
        """Take the head of the next part.

        Raises:
            TooManyFiles: it is a second file.
        """
        self._passing_on = False
        self._current = None
        if part.name != FIELD:
            return
        if part.has_file_name:
            if self._found:
                raise TooManyFiles
            self._held.clear()
            self._found = self._passing_on = True
        elif self._unnamed_file:
            raise TooManyFiles
        else:
            self._unnamed += 1
            if self._unnamed == 1 and not self._found:
                self._current = self._held

    def add(self, content: bytes) -> bytes:
        """Take bytes of the current part; returns those that are known now to be the file's."""
        if self._passing_on:
            return content
        if self._current is None:
            return b""
        self._current += content
        if len(self._current) <= MAX_HELD:
            return b""
        # Too long for a field beside a file.
        self._found = self._unnamed_file = self._passing_on = True
        return self._release()

    def end(self) -> bytes:
        """Returns the file's remaining bytes at the end of the form.

        Raises:
            MissingFile: no part has the file's name.
            TooManyFiles: more than one has it, and none a file name.
        """
        if self._found:
            return b""
        if not self._unnamed:
            raise MissingFile
        if self._unnamed > 1:
            raise TooManyFiles
        return self._release()

    def _release(self) -> bytes:
        content, self._held, self._current = bytes(self._held), bytearray(), None
        return content
