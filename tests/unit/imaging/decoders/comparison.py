"""Helpers to compare decoders on the same files."""

import io
from collections.abc import Callable

from PIL import Image, ImageChops, ImageFile

from harness.images import gradient


def translucent(width: int, height: int) -> Image.Image:
    image = gradient(width, height).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((width, height)))
    return image


def outcome(opener: Callable[[io.BytesIO], ImageFile.ImageFile], content: bytes) -> Image.Image | None:
    """Return the picture; None for a damaged file."""
    try:
        image = opener(io.BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return None
    return image


def assert_same(one: Image.Image, other: Image.Image, tolerance: int = 0) -> None:
    assert (one.mode, one.size) == (other.mode, other.size)
    for channel in ImageChops.difference(one, other).split():
        assert channel.getextrema()[1] <= tolerance  # type: ignore[operator]
