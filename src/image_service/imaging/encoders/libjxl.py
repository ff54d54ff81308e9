"""libjxl's encoder through ctypes, in the copy that ``decoders.libjxl`` loads.

Only documented structures and functions of its header ``jxl/encode.h`` are used, which are the same in the versions
that are accepted. It has no threads of its own.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint8, c_void_p
from functools import lru_cache
from typing import Final

from PIL import Image

from image_service.imaging.address_space import is_available
from image_service.imaging.decoders import libjxl
from image_service.imaging.decoders.libjxl_structures import BasicInfo, ColourEncoding, PixelFormat

_LOSSLESS: Final = 100
"""The quality at which every sample is kept."""

_SUCCESS, _NEED_MORE_OUTPUT = 0, 2
"""Values of JxlEncoderStatus."""
_EFFORT: Final = 0
"""JXL_ENC_FRAME_SETTING_EFFORT."""
_BYTES: Final = 2
"""JXL_TYPE_UINT8."""
_BITS: Final = 8
_BUFFER: Final = 1 << 16
"""Bytes that are taken at once."""
_MEMORY: Final = 64 << 20
_MEMORY_PER_PIXEL: Final = 48
"""What it takes at the most, in bytes."""
_BYTES_PER_PIXEL: Final = 5
_BYTES_BESIDE_PIXELS: Final = 1 << 16
"""No file has more bytes: those of noise without loss have about one a sample."""


@lru_cache(maxsize=1)
def load() -> ctypes.CDLL:
    """Return the library.

    Raises:
        ImportError: it is not installed, or in a version whose structures are not known.
    """
    library = libjxl.load()
    encoder = settings = c_void_p
    library.JxlEncoderCreate.argtypes, library.JxlEncoderCreate.restype = (c_void_p,), encoder
    library.JxlEncoderDestroy.argtypes, library.JxlEncoderDestroy.restype = (encoder,), None
    library.JxlEncoderCloseInput.argtypes, library.JxlEncoderCloseInput.restype = (encoder,), None
    library.JxlEncoderInitBasicInfo.argtypes = (POINTER(BasicInfo),)
    library.JxlEncoderInitBasicInfo.restype = None
    library.JxlEncoderFrameSettingsCreate.argtypes = (encoder, c_void_p)
    library.JxlEncoderFrameSettingsCreate.restype = settings
    library.JxlEncoderDistanceFromQuality.argtypes = (c_float,)
    library.JxlEncoderDistanceFromQuality.restype = c_float
    for name, arguments in (
        ("UseContainer", (encoder, c_int)),
        ("SetBasicInfo", (encoder, POINTER(BasicInfo))),
        ("SetColorEncoding", (encoder, POINTER(ColourEncoding))),
        ("SetFrameLossless", (settings, c_int)),
        ("SetFrameDistance", (settings, c_float)),
        ("FrameSettingsSetOption", (settings, c_int, c_int64)),
        ("AddImageFrame", (settings, POINTER(PixelFormat), c_char_p, c_size_t)),
        ("ProcessOutput", (encoder, POINTER(POINTER(c_uint8)), POINTER(c_size_t))),
    ):
        getattr(library, f"JxlEncoder{name}").argtypes = arguments
    return library


def encode(image: Image.Image, quality: int, effort: int) -> bytearray:
    """Return the picture as a bare codestream in sRGB, without metadata.

    Args:
        image: In mode L, RGB or RGBA.
        quality: From 1 to 100, on a scale like that of JPEG; 100 keeps every sample.
        effort: From 1 to 9.

    Raises:
        MemoryError: there is too little, as nothing else of a picture can fail.
        ImportError: the library is not installed, or its version is not known.
    """
    library = load()
    # Where it gets too little memory, it sometimes ends the process.
    if not is_available(_MEMORY + image.width * image.height * _MEMORY_PER_PIXEL):
        raise MemoryError
    with _encoder(library) as encoder:
        settings = library.JxlEncoderFrameSettingsCreate(encoder, None)
        lossless = quality == _LOSSLESS
        channels = len(image.mode)
        info = _info(library, image, lossless=lossless)
        pixels = image.tobytes()
        for status in (
            library.JxlEncoderUseContainer(encoder, 0),
            library.JxlEncoderSetBasicInfo(encoder, byref(info)),
            library.JxlEncoderSetColorEncoding(encoder, byref(ColourEncoding.srgb(info.num_color_channels))),
            library.JxlEncoderFrameSettingsSetOption(settings, _EFFORT, effort),
            library.JxlEncoderSetFrameLossless(settings, 1)
            if lossless
            else library.JxlEncoderSetFrameDistance(settings, library.JxlEncoderDistanceFromQuality(quality)),
            library.JxlEncoderAddImageFrame(settings, byref(PixelFormat(channels, _BYTES, 0, 0)), pixels, len(pixels)),
        ):
            if status != _SUCCESS:
                raise MemoryError
        del pixels
        library.JxlEncoderCloseInput(encoder)
        return _output(library, encoder, image.width * image.height * _BYTES_PER_PIXEL + _BYTES_BESIDE_PIXELS)


@contextmanager
def _encoder(library: ctypes.CDLL) -> Iterator[int]:
    handle = library.JxlEncoderCreate(None)
    if not handle:
        raise MemoryError
    try:
        yield handle
    finally:
        library.JxlEncoderDestroy(handle)


def _info(library: ctypes.CDLL, image: Image.Image, *, lossless: bool) -> BasicInfo:
    info = BasicInfo()
    library.JxlEncoderInitBasicInfo(byref(info))
    info.xsize, info.ysize = image.size
    info.bits_per_sample, info.num_color_channels = _BITS, 1 if image.mode == "L" else 3
    info.uses_original_profile = lossless
    if image.mode == "RGBA":
        info.num_extra_channels, info.alpha_bits = 1, _BITS
    return info


def _output(library: ctypes.CDLL, encoder: int, limit: int) -> bytearray:
    """Return the file.

    Raises:
        MemoryError: there is too little, or the file would have more bytes than the limit.
    """
    found, buffer, status = bytearray(), (c_uint8 * _BUFFER)(), _NEED_MORE_OUTPUT
    while status == _NEED_MORE_OUTPUT and len(found) <= limit:
        place, left = ctypes.cast(buffer, POINTER(c_uint8)), c_size_t(_BUFFER)
        status = library.JxlEncoderProcessOutput(encoder, byref(place), byref(left))
        found += memoryview(buffer)[: _BUFFER - left.value]
    if status != _SUCCESS:
        raise MemoryError
    return found
