"""Decides which parts of a form are the uploaded file and the name of its recipe."""

from typing import Final

from image_service.api.form_parser import Part
from image_service.errors import MissingFile, RecipeAfterFile, RecipeConflict, TooManyFiles
from image_service.services.recipes import MAX_RECIPE_NAME

FIELD: Final = "file"
"""The form field that holds the image."""

RECIPE: Final = "recipe"
"""The form field, and the query's parameter, that holds the name of the recipe."""

MAX_HELD: Final = 64 * 1024
"""Bytes of a part without a file name that are kept until it is known whether one with a file name follows."""


class FormFile:
    """Picks the file's bytes out of a form's parts, as they arrive.

    The file is the part named ``file`` that has a file name. If there is none, it is the only part of that name: some
    clients send no file names. Beside a file, parts of its name without a file name are ordinary fields, which are
    ignored: FilePond sends its metadata so, before the file.

    The recipe is the content of the part named ``recipe``, which is before the file: it decides, before the file is
    received, whether that is accepted. All other parts are ignored.
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
        self._recipe: bytearray | None = None
        """The current part, if it holds the recipe."""
        self._chosen: set[str] = set()
        self._late = False
        """Whether a recipe follows the first part without a file name."""

    @property
    def recipe(self) -> str | None:
        """The name of the recipe; None if no part gives one, or none has yet."""
        return next(iter(self._chosen), None)

    def begin(self, part: Part) -> None:
        """Take the head of the next part.

        Raises:
            TooManyFiles: it is a second file.
            RecipeAfterFile: it holds the recipe, and the file was before it.
            RecipeConflict: the part before it holds a second recipe.
        """
        self._end_recipe()
        self._passing_on = False
        self._current = None
        if part.name == RECIPE:
            if self._found:
                raise RecipeAfterFile
            self._late = self._unnamed > 0
            self._current = self._recipe = bytearray()
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
        if self._recipe is not None:
            # One byte more than a name can have, so that a longer one is none.
            self._recipe += content[: MAX_RECIPE_NAME + 1 - len(self._recipe)]
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
            RecipeAfterFile: the recipe comes after it.
            RecipeConflict: the last part holds a second recipe.
        """
        self._end_recipe()
        if self._found:
            return b""
        if not self._unnamed:
            raise MissingFile
        if self._unnamed > 1:
            raise TooManyFiles
        if self._late:
            raise RecipeAfterFile
        return self._release()

    def _end_recipe(self) -> None:
        if self._recipe is None:
            return
        self._chosen.add(self._recipe.decode(errors="replace"))
        if len(self._chosen) > 1:
            raise RecipeConflict
        self._recipe = None

    def _release(self) -> bytes:
        content, self._held, self._current = bytes(self._held), bytearray(), None
        return content
