"""Thumbnails of images that may be hostile: header checks, rendering, and the isolated processes it runs in."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from image_service.imaging.rendering import render

__all__ = ["render"]


def __getattr__(name: str) -> object:
    # Lazily: the API process inspects headers and must never load a decoder for it.
    if name == "render":
        from image_service.imaging.rendering import render  # noqa: PLC0415 — see above

        return render
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
