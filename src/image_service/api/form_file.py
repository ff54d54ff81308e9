"""Decides which parts of a form are the uploaded file and its options."""

from collections.abc import Mapping
from typing import Final

from image_service.api.form_parser import Part
from image_service.domain.event import MAX_METADATA
from image_service.errors import (
    MissingFile,
    OptionAfterFile,
    OptionConflict,
    RecipeAfterFile,
    RecipeConflict,
    TooManyFiles,
)
from image_service.services.recipes import MAX_RECIPE_NAME

FIELD: Final = "file"
"""The form field that holds the image."""

RECIPE: Final = "recipe"
"""The form field, and the query's parameter, that holds the name of the recipe."""

WEBHOOK: Final = "webhook"
"""The one that holds the id of a webhook endpoint."""

METADATA: Final = "metadata"
"""The one that holds the client's metadata."""

OPTIONS: Final[Mapping[str, int]] = {RECIPE: MAX_RECIPE_NAME, WEBHOOK: 64, METADATA: MAX_METADATA}
"""All of these, with the most bytes that one can hold."""

MAX_HELD: Final = 64 * 1024
"""Bytes of a part without a file name that are kept until it is known whether one with a file name follows."""


class FormFile:
    """Picks the file's bytes out of a form's parts, as they arrive.

    The file is the part named ``file`` that has a file name. If there is none, it is the only part of that name: some
    clients send no file names. Beside a file, parts of its name without a file name are ordinary fields, which are
    ignored: FilePond sends its metadata so, before the file.

    The options are the content of the parts named in ``OPTIONS``, which are before the file: they decide, before the
    file is received, whether that is accepted. All other parts are ignored.
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
        self._option: str | None = None
        """The name of the current part, if it holds an option."""
        self._options: dict[str, bytes] = {}
        self._late: str | None = None
        """The name of an option that follows the first part without a file name."""

    @property
    def options(self) -> Mapping[str, bytes]:
        """The options that parts have given so far; of one that is too long, one byte more than it can have."""
        return self._options

    def begin(self, part: Part) -> None:
        """Take the head of the next part.

        Raises:
            TooManyFiles: it is a second file.
            OptionAfterFile: it holds an option, and the file was before it.
            OptionConflict: the part before it holds an option that was given before, and differs.
        """
        self._end_option()
        self._passing_on = False
        self._current = None
        if part.name in OPTIONS:
            if self._found:
                raise _after_file(part.name)
            if self._unnamed:
                self._late = part.name
            self._option, self._current = part.name, bytearray()
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
        if self._option is not None:
            # One byte more than it can have, so that what is too long is known to be.
            self._current += content[: OPTIONS[self._option] + 1 - len(self._current)]
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
            OptionAfterFile: an option comes after it.
            OptionConflict: the last part holds an option that was given before, and differs.
        """
        self._end_option()
        if self._found:
            return b""
        if not self._unnamed:
            raise MissingFile
        if self._unnamed > 1:
            raise TooManyFiles
        if self._late is not None:
            raise _after_file(self._late)
        return self._release()

    def _end_option(self) -> None:
        if self._option is None or self._current is None:
            return
        value = bytes(self._current)
        if self._options.setdefault(self._option, value) != value:
            raise conflict(self._option)
        self._option = None

    def _release(self) -> bytes:
        content, self._held, self._current = bytes(self._held), bytearray(), None
        return content


def conflict(name: str) -> OptionConflict:
    """Returns the error of a request that gives an option twice, and not the same."""
    if name == RECIPE:
        return RecipeConflict()
    return OptionConflict(
        f"The request gives `{name}` twice, and not the same. Send it once, in the query or in the form."
    )


def _after_file(name: str) -> OptionAfterFile:
    """Returns the error of a form with an option after its file."""
    if name == RECIPE:
        return RecipeAfterFile()
    return OptionAfterFile(
        f"The form field `{name}` comes after the file. Send it before the file, or in the query: ?{name}=VALUE."
    )
