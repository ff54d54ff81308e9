"""WebP animations, encoded frame by frame with libwebp's encoder in Pillow's module.

Pillow's own function for animations takes all frames at once.
"""

from typing import Final

from PIL import Image, _webp

_TRANSPARENT: Final = 0
_KEY_FRAMES: Final = (3, 5)
"""The least and the most frames from one that stands for itself to the next, as gif2webp has them for lossy files."""


class Writer:
    """Writes an animation."""

    def __init__(self, size: tuple[int, int], *, plays: int, quality: int, method: int, mixed: bool = False) -> None:
        """Begin a file.

        Args:
            size: Of the canvas, in pixels.
            plays: How many times it is shown; zero: for ever.
            quality: From 1 to 100.
            method: From 0, fast, to 6, small.
            mixed: Whether each frame is encoded with and without loss, and the smaller one taken.
        """
        self._encoder = _webp.WebPAnimEncoder(size, _TRANSPARENT, plays, False, *_KEY_FRAMES, mixed, False)  # noqa: FBT003 — it takes no names
        self._quality, self._method = quality, method
        self._milliseconds = 0.0

    def add(self, image: Image.Image, milliseconds: float) -> None:
        """Append a frame.

        Args:
            image: All of the canvas, in mode L, RGB or RGBA.
            milliseconds: How long it is shown.

        Raises:
            OSError: there is too little memory.
        """
        frame = image.convert("RGB") if image.mode == "L" else image
        self._add(frame)
        self._milliseconds += milliseconds

    def finish(self) -> bytes:
        """Return the file.

        Raises:
            OSError: there is too little memory.
        """
        self._add(None)
        return bytes(self._encoder.assemble("", "", ""))

    def _add(self, frame: Image.Image | None) -> None:
        pixels = frame.getim() if frame else None
        self._encoder.add(pixels, round(self._milliseconds), False, self._quality, 100, self._method)  # noqa: FBT003 — it takes no names
