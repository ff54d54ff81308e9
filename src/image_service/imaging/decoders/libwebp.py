"""libwebp through ctypes, in the copy that Pillow uses, for a feature that Pillow lacks: scaled decoding of stills.

Only documented structures and functions of its header ``webp/decode.h`` are used. They have been the same since 2014;
the library checks the version of the interface that callers pass, and refuses any other.
"""

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from typing import Final

from PIL import _webp

_INTERFACE: Final = 0x0209
"""WEBP_DECODER_ABI_VERSION, of which the upper byte counts."""
_OK: Final = 0
"""A VP8StatusCode; the others do not say reliably what was wrong."""
_MODES: Final = {"RGB": 0, "RGBA": 1}
"""WEBP_CSP_MODE by Pillow's names."""


class Refused(Exception):
    """The library is unavailable, or cannot decode the file."""


class Features(ctypes.Structure):
    """WebPBitstreamFeatures: the properties in the file's headers, which were checked against each other."""

    _fields_ = (
        ("width", c_int),
        ("height", c_int),
        ("has_alpha", c_int),
        ("has_animation", c_int),
        ("format", c_int),
        ("pad", c_uint32 * 5),
    )
    width: int
    height: int
    has_alpha: int
    has_animation: int


class _Interleaved(ctypes.Structure):
    """WebPRGBABuffer."""

    _fields_ = (("rgba", c_void_p), ("stride", c_int), ("size", c_size_t))


class _Planes(ctypes.Structure):
    """WebPYUVABuffer; only its size matters here."""

    _fields_ = (("planes", c_void_p * 4), ("strides", c_int * 4), ("sizes", c_size_t * 4))


class _Pixels(ctypes.Union):
    _fields_ = (("interleaved", _Interleaved), ("planes", _Planes))
    interleaved: _Interleaved


class _Output(ctypes.Structure):
    """WebPDecBuffer."""

    _fields_ = (
        ("colorspace", c_int),
        ("width", c_int),
        ("height", c_int),
        ("is_external_memory", c_int),
        ("pixels", _Pixels),
        ("pad", c_uint32 * 4),
        ("private_memory", c_void_p),
    )
    pixels: _Pixels


class _Options(ctypes.Structure):
    """WebPDecoderOptions."""

    _fields_ = (
        ("bypass_filtering", c_int),
        ("no_fancy_upsampling", c_int),
        ("use_cropping", c_int),
        ("crop", c_int * 4),
        ("use_scaling", c_int),
        ("scaled_width", c_int),
        ("scaled_height", c_int),
        ("use_threads", c_int),
        ("dithering_strength", c_int),
        ("flip", c_int),
        ("alpha_dithering_strength", c_int),
        ("pad", c_uint32 * 5),
    )


class _Config(ctypes.Structure):
    """WebPDecoderConfig."""

    _fields_ = (("input", Features), ("output", _Output), ("options", _Options))
    input: Features
    output: _Output
    options: _Options


def _load() -> ctypes.CDLL | None:
    """Return the library, if Pillow's module is linked with it in a way that exposes its functions."""
    try:
        # Looking up a name in a module also searches the libraries that it is linked with, wherever they are.
        library = ctypes.CDLL(_webp.__file__)
        library.WebPInitDecoderConfigInternal.argtypes = (POINTER(_Config), c_int)
        library.WebPGetFeaturesInternal.argtypes = (c_char_p, c_size_t, POINTER(Features), c_int)
        library.WebPDecode.argtypes = (c_char_p, c_size_t, POINTER(_Config))
    except (AttributeError, OSError):
        return None
    return library


_library = _load()


def read_features(data: bytes) -> Features:
    """Return the properties of the image in the file.

    Raises:
        Refused: there is none, or the library is unavailable.
    """
    features = Features()
    if _library is None or _library.WebPGetFeaturesInternal(data, len(data), byref(features), _INTERFACE) != _OK:
        raise Refused
    return features


def decode(data: bytes, mode: str, size: tuple[int, int]) -> bytearray:
    """Return the pixels of a still image, row by row without gaps.

    Args:
        data: The whole file.
        mode: RGB or RGBA.
        size: Width and height to scale to; areas are averaged.

    Raises:
        Refused: the file is damaged or incomplete, or there is too little memory.
        MemoryError: there is too little for the pixels themselves.
    """
    config = _Config()
    if _library is None or not _library.WebPInitDecoderConfigInternal(byref(config), _INTERFACE):
        raise Refused
    config.input = read_features(data)
    width, height = size
    if (width, height) != (config.input.width, config.input.height):
        config.options.use_scaling, config.options.scaled_width, config.options.scaled_height = 1, width, height
    stride = width * len(mode)
    pixels = bytearray(stride * height)
    config.output.colorspace, config.output.is_external_memory = _MODES[mode], 1
    # The library checks every size that it is about to write against these.
    config.output.pixels.interleaved = _Interleaved(
        ctypes.addressof(ctypes.c_char.from_buffer(pixels)), stride, len(pixels)
    )
    if _library.WebPDecode(data, len(data), byref(config)) != _OK:
        raise Refused
    return pixels
