"""Inspection and rendering of image files."""

from pathlib import Path
from typing import Protocol

from image_service.domain.image import ImageFormat, ImageHeader, Rendering
from image_service.domain.recipe import Recipe


class Inspector(Protocol):
    """Checks an upload by its content, without decoding it."""

    def sniff(self, head: bytes) -> ImageFormat:
        """Returns the format by the first 4096 bytes, or all of them if there are fewer.

        Raises:
            UnsupportedFormat: it is no allowed format.
        """
        ...

    def inspect(self, path: Path) -> ImageHeader:
        """Returns the format and size from the file's header, in bounded time and memory.

        Raises:
            UnsupportedFormat: it is no allowed format.
            CorruptImage: the header is damaged.
            ImageTooLarge: it has more pixels than allowed, or needs more memory.
        """
        ...


class Renderer(Protocol):
    """Makes thumbnails of an untrusted file."""

    async def render(self, source: Path, recipe: Recipe, out: Path) -> Rendering:
        """Render every output of the recipe to files in the directory ``out``. Cancelling stops at once.

        Raises:
            InvalidImage: the file cannot be rendered; another attempt would have the same result.
            DecoderFailure: the decoder process ended; another attempt may succeed.
            ObjectMissing: the source file is missing, although its storage is available.
            ObjectUnreadable: the source file is there, but reading it fails.
        """
        ...
