"""Inspection and rendering of image files."""

from pathlib import Path
from typing import Protocol

from image_service.domain.image import ImageFormat, ImageHeader, Rendering
from image_service.domain.recipe import Recipe


class Inspector(Protocol):
    """Judges an upload by its content, without decoding a pixel."""

    def sniff(self, head: bytes) -> ImageFormat:
        """The format that the first bytes belong to; 4096 bytes, or all there are, decide it.

        Raises:
            UnsupportedFormat: none that is allowed.
        """
        ...

    def inspect(self, path: Path) -> ImageHeader:
        """Format and dimensions from the file's header, in bounded time and memory.

        Raises:
            UnsupportedFormat: the content is no allowed format.
            CorruptImage: the header is damaged.
            ImageTooLarge: more pixels than allowed.
        """
        ...


class Renderer(Protocol):
    """Makes thumbnails of a file that may be hostile."""

    async def render(self, source: Path, recipe: Recipe, out: Path) -> Rendering:
        """Make every preset of the recipe, as files in the folder ``out``. Cancelling stops the work at once.

        Raises:
            UploadRejected: the decoder's verdict on the file; another try would end the same.
            DecoderFailure: the decoder died; another try may end differently.
            ObjectMissing: the source is gone, though its storage is not.
        """
        ...
