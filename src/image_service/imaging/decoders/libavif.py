"""libavif through ctypes, in the copy that Pillow uses, for a feature that Pillow lacks: more than eight bits a sample.

Only documented functions of its header ``avif/avif.h`` are used, and one structure, which has been the same since 1.0.
"""

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from typing import Final

from PIL import _avif

_VERSION: Final = b"1."
"""How versions begin that have the structure."""
_OK: Final = 0
_FORMATS: Final = {3: 0, 4: 1}
"""AVIF_RGB_FORMAT_RGB and AVIF_RGB_FORMAT_RGBA, by the number of channels."""
_BITS: Final = 16


class Refused(Exception):
    """The library is unavailable, or cannot decode the file."""


class _Pixels(ctypes.Structure):
    """avifRGBImage: what the pixels are converted to, and where to."""

    _fields_ = (
        ("width", c_uint32),
        ("height", c_uint32),
        ("depth", c_uint32),
        ("format", c_int),
        ("chroma_upsampling", c_int),
        ("chroma_downsampling", c_int),
        ("avoid_libyuv", c_int),
        ("ignore_alpha", c_int),
        ("alpha_premultiplied", c_int),
        ("is_float", c_int),
        ("max_threads", c_int),
        ("pixels", c_void_p),
        ("row_bytes", c_uint32),
    )
    width: int
    height: int


def _load() -> ctypes.CDLL | None:
    """Return the library, if Pillow's module is linked with it in a way that exposes its functions."""
    try:
        # Looking up a name in a module also searches the libraries that it is linked with, wherever they are.
        library = ctypes.CDLL(_avif.__file__)
        library.avifVersion.restype = c_char_p
        library.avifDecoderCreate.restype = library.avifImageCreateEmpty.restype = c_void_p
        library.avifDecoderDestroy.argtypes = library.avifImageDestroy.argtypes = (c_void_p,)
        library.avifDecoderReadMemory.argtypes = (c_void_p, c_void_p, c_char_p, c_size_t)
        library.avifRGBImageSetDefaults.argtypes = (POINTER(_Pixels), c_void_p)
        library.avifImageYUVToRGB.argtypes = (c_void_p, POINTER(_Pixels))
        return library if library.avifVersion().startswith(_VERSION) else None
    except (AttributeError, OSError):
        return None


_library = _load()


def decode(data: bytes, size: tuple[int, int], channels: int) -> bytearray:
    """Return the samples of the first picture, of sixteen bits in the machine's byte order, row by row without gaps.

    Args:
        data: The whole file.
        size: Width and height that the picture has to have.
        channels: Three for RGB, four with alpha.

    Raises:
        Refused: the file is damaged, or has another size; there is too little memory for it; or no library.
        MemoryError: there is too little for the pixels themselves.
    """
    if _library is None:
        raise Refused
    decoder, image = _library.avifDecoderCreate(), _library.avifImageCreateEmpty()
    try:
        if not decoder or not image or _library.avifDecoderReadMemory(decoder, image, data, len(data)) != _OK:
            raise Refused
        pixels = _Pixels()
        _library.avifRGBImageSetDefaults(byref(pixels), image)
        if (pixels.width, pixels.height) != size:
            raise Refused
        row = pixels.width * channels * _BITS // 8
        samples = bytearray(row * pixels.height)
        pixels.depth, pixels.format, pixels.max_threads, pixels.row_bytes = _BITS, _FORMATS[channels], 1, row
        pixels.pixels = ctypes.addressof(ctypes.c_char.from_buffer(samples))
        if _library.avifImageYUVToRGB(image, byref(pixels)) != _OK:
            raise Refused
        return samples
    finally:
        # Both take a null pointer.
        _library.avifImageDestroy(image)
        _library.avifDecoderDestroy(decoder)
