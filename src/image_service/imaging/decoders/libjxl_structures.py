"""Structures of libjxl's headers ``jxl/codestream_header.h``, ``jxl/color_encoding.h`` and ``jxl/types.h``."""

import ctypes
from ctypes import c_double, c_float, c_int, c_size_t, c_uint8, c_uint32
from typing import Final

_RGB, _GREY = 0, 1
"""JxlColorSpace."""
_D65, _PRIMARIES_709 = 1, 1
_SRGB: Final = 13
"""JxlWhitePoint, JxlPrimaries and JxlTransferFunction, with the numbers of ITU-T H.273 where it has them."""
_RELATIVE: Final = 1
"""JxlRenderingIntent."""


class BasicInfo(ctypes.Structure):
    """JxlBasicInfo: the properties in the file's header."""

    _fields_ = (
        ("have_container", c_int),
        ("xsize", c_uint32),
        ("ysize", c_uint32),
        ("bits_per_sample", c_uint32),
        ("exponent_bits_per_sample", c_uint32),
        ("intensity_target", c_float),
        ("min_nits", c_float),
        ("relative_to_max_display", c_int),
        ("linear_below", c_float),
        ("uses_original_profile", c_int),
        ("have_preview", c_int),
        ("have_animation", c_int),
        ("orientation", c_int),
        ("num_color_channels", c_uint32),
        ("num_extra_channels", c_uint32),
        ("alpha_bits", c_uint32),
        ("alpha_exponent_bits", c_uint32),
        ("alpha_premultiplied", c_int),
        ("preview", c_uint32 * 2),
        ("animation", c_uint32 * 4),
        ("intrinsic", c_uint32 * 2),
        ("padding", c_uint8 * 100),
    )
    xsize: int
    ysize: int
    bits_per_sample: int
    intensity_target: float
    uses_original_profile: int
    num_color_channels: int
    num_extra_channels: int
    alpha_bits: int


class ColourEncoding(ctypes.Structure):
    """JxlColorEncoding."""

    _fields_ = (
        ("color_space", c_int),
        ("white_point", c_int),
        ("white_point_xy", c_double * 2),
        ("primaries", c_int),
        ("primaries_xy", c_double * 6),
        ("transfer_function", c_int),
        ("gamma", c_double),
        ("rendering_intent", c_int),
    )
    color_space: int
    white_point: int
    primaries: int
    transfer_function: int

    @classmethod
    def srgb(cls, channels: int) -> "ColourEncoding":
        """Return sRGB for pictures of three colour channels, or its grey for those of one."""
        return cls(
            color_space=_GREY if channels == 1 else _RGB,
            white_point=_D65,
            primaries=_PRIMARIES_709,
            transfer_function=_SRGB,
            rendering_intent=_RELATIVE,
        )


class PixelFormat(ctypes.Structure):
    """JxlPixelFormat."""

    _fields_ = (("num_channels", c_uint32), ("data_type", c_int), ("endianness", c_int), ("align", c_size_t))
