"""WebP animations, encoded frame by frame with libwebp's encoder in Pillow's module.

Pillow's own function for animations takes all frames at once.
"""

from typing import Final

from PIL import Image, _webp

_TRANSPARENT: Final = 0
_KEY_FRAMES: Final = (3, 5)
"""The least and the most frames from one that stands for itself to the next, as gif2webp has them for lossy files."""
_MOST_PLAYS: Final = 0xFFFF
_ALPHA: Final = 100
"""Transparency is kept without loss."""


class Writer:
    """Writes an animation: each frame with or without loss, whichever is smaller. Drawn ones take a quarter so."""

    def __init__(self, size: tuple[int, int], *, plays: int, quality: int, method: int) -> None:
        """Begin a file.

        Args:
            size: Of the canvas, in pixels.
            plays: How many times it is shown; zero: for ever.
            quality: From 1 to 100.
            method: From 0, fast, to 6, small.
        """
        self.size = size
        """Of the canvas, in pixels."""
        self.size_bytes = 0
        """The length of the file, once it is finished."""
        plays = min(plays, _MOST_PLAYS)
        self._encoder = _webp.WebPAnimEncoder(size, _TRANSPARENT, plays, False, *_KEY_FRAMES, True, False)  # noqa: FBT003 — without names
        self._quality, self._method = quality, method
        self._milliseconds = 0.0

    def add(self, image: Image.Image, milliseconds: float) -> None:
        """Append a frame.

        Args:
            image: All of the canvas, in mode L, RGB or RGBA.
            milliseconds: How long it is shown.

        Raises:
            MemoryError: there is too little.
        """
        frame = image.convert("RGB") if image.mode == "L" else image
        self._add(frame)
        self._milliseconds += milliseconds

    def finish(self) -> bytes:
        """Return the file.

        Raises:
            MemoryError: there is too little.
        """
        self._add(None)
        content = self._encoder.assemble("", "", "")
        if content is None:
            raise MemoryError
        self.size_bytes = len(content)
        return bytes(content)

    def _add(self, frame: Image.Image | None) -> None:
        pixels = frame.getim() if frame else None
        try:
            self._encoder.add(pixels, round(self._milliseconds), False, self._quality, _ALPHA, self._method)  # noqa: FBT003 — without names
        except RuntimeError as error:
            # Nothing else of a picture can fail.
            raise MemoryError from error
