"""Converts the pixel modes of decoded files to the few that can be resized and encoded."""

from typing import Final

from PIL import Image

_READY: Final = frozenset({"L", "RGB", "RGBA", "CMYK"})
_GREY16: Final = frozenset({"I;16", "I;16B", "I;16L", "I"})
_GREY16_VALUES: Final = 1 << 16
_OPAQUE: Final = 255


def normalise(image: Image.Image) -> Image.Image:
    """Return the image in mode L, RGB, RGBA or CMYK; RGBA only where a pixel is not fully opaque.

    A transparent colour or palette entry becomes alpha, and 16-bit grey is scaled to 8 bits.
    """
    transparent = image.has_transparency_data
    if image.mode in _GREY16:
        return _from_grey16(image)
    if transparent:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        # Many exporters write an alpha channel that is opaque everywhere.
        return image.convert("RGB") if image.getchannel("A").getextrema() == (_OPAQUE, _OPAQUE) else image
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in _READY else image.convert("RGB")


def _from_grey16(image: Image.Image) -> Image.Image:
    # Pillow's own conversion to L clips: everything above 255 of 65,535 would be white.
    wide = image.convert("I")
    grey = wide.point([value >> 8 for value in range(_GREY16_VALUES)], "L")
    key = image.info.get("transparency")
    if key is None:
        return grey
    alpha = wide.point([0 if value == key else _OPAQUE for value in range(_GREY16_VALUES)], "L")
    return Image.merge("RGBA", (grey, grey, grey, alpha))
