"""libjxl through ctypes, in the copy that the package imagecodecs ships: the first frame of a JPEG XL file, in 8 bits.

Only documented structures and functions of its header ``jxl/decode.h`` are used, which are the same in the versions
that are accepted. No Python code of imagecodecs runs, and none of its other codecs is loaded.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_void_p
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from image_service.imaging.decoders.libjxl_structures import BasicInfo, ColourEncoding, PixelFormat
from image_service.imaging.limits import MAX_PROFILE_BYTES

PACKAGE: Final = "imagecodecs"
_VERSIONS: Final = range(11_002, 14_000)
"""JxlDecoderVersion: major, minor and patch release in three digits each. 0.11.2 corrects flaws of those before; the
structures of 0.14 are unknown."""

_SUCCESS: Final = 0
_NEED_IMAGE_OUT_BUFFER: Final = 5
_BASIC_INFO: Final = 0x40
_COLOUR_ENCODING: Final = 0x100
_FULL_IMAGE: Final = 0x1000
"""Values of JxlDecoderStatus; errors and a lack of input or memory are others, and not told apart reliably."""
_ORIGINAL, _DATA = 0, 1
"""JxlColorProfileTarget: the colours that the file names, and those of the pixels that come out."""
_UINT8: Final = 2
"""JxlDataType."""
_PQ, _HLG = 16, 18
"""JxlTransferFunction, with the numbers of ITU-T H.273."""
_REFERENCE_WHITE: Final = 203.0
"""The brightness of white paper in images of high dynamic range, in cd/m² (ITU-R BT.2408 §2.2)."""
_CMYK: Final = b"CMYK"
_SPACE: Final = slice(16, 20)
"""Where a profile's header names the colour space that it is for (ICC.1 §7.2)."""
_DAMAGED: Final = "the picture is damaged or incomplete"
_CHANNELS: Final = {"L": 1, "RGB": 3, "RGBA": 4}


class Refused(Exception):
    """The library cannot decode the file."""


class Picture(NamedTuple):
    """What a file's headers say of its picture."""

    mode: str
    """L, RGB or RGBA."""
    size: tuple[int, int]
    """Width and height in pixels, upright."""
    bright: bool
    """Whether it has a high dynamic range that the library reduces."""


class Pixels(NamedTuple):
    """A decoded picture."""

    data: bytearray
    """Row by row without gaps."""
    profile: bytes | None
    """The ICC profile of the pixels; None if they are in sRGB."""


@lru_cache(maxsize=1)
def load() -> ctypes.CDLL:
    """Return the library.

    Raises:
        ImportError: it is not installed, or in a version whose structures are not known.
    """
    spec = find_spec(PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        for module in Path(folder).glob("_jpegxl.*"):
            # Looking up a name in a module also searches the libraries that it is linked with, wherever they are.
            try:
                library = ctypes.CDLL(str(module))
            except OSError as error:
                raise ImportError(f"{PACKAGE} cannot be loaded: {error}") from error
            if library.JxlDecoderVersion() not in _VERSIONS:
                raise ImportError(f"the version of libjxl in {PACKAGE} is not supported: {library.JxlDecoderVersion()}")
            _declare(library)
            return library
    raise ImportError(f"{PACKAGE} is not installed, or lacks its JPEG XL codec")


def _declare(library: ctypes.CDLL) -> None:
    decoder = c_void_p
    library.JxlDecoderCreate.argtypes, library.JxlDecoderCreate.restype = (c_void_p,), decoder
    library.JxlDecoderDestroy.argtypes, library.JxlDecoderDestroy.restype = (decoder,), None
    library.JxlDecoderCloseInput.argtypes, library.JxlDecoderCloseInput.restype = (decoder,), None
    for name, arguments in (
        ("SubscribeEvents", (c_int,)),
        ("SetInput", (c_char_p, c_size_t)),
        ("ProcessInput", ()),
        ("GetBasicInfo", (POINTER(BasicInfo),)),
        ("GetColorAsEncodedProfile", (c_int, POINTER(ColourEncoding))),
        ("GetICCProfileSize", (c_int, POINTER(c_size_t))),
        ("GetColorAsICCProfile", (c_int, c_void_p, c_size_t)),
        ("SetDesiredIntensityTarget", (c_float,)),
        ("SetUnpremultiplyAlpha", (c_int,)),
        ("SetOutputColorProfile", (POINTER(ColourEncoding), c_void_p, c_size_t)),
        ("SetImageOutBuffer", (POINTER(PixelFormat), c_void_p, c_size_t)),
    ):
        getattr(library, f"JxlDecoder{name}").argtypes = (decoder, *arguments)


class _Decoder:
    """A decoder that has read the file's headers; it has no threads of its own."""

    def __init__(self, library: ctypes.CDLL, handle: int, data: bytes, white: float) -> None:
        self._library, self._handle, self._data = library, handle, data
        self._call("SubscribeEvents", _BASIC_INFO | _COLOUR_ENCODING | _FULL_IMAGE)
        self._call("SetUnpremultiplyAlpha", 1)
        self._call("SetDesiredIntensityTarget", white)
        self._call("SetInput", data, len(data))
        library.JxlDecoderCloseInput(handle)
        self._process(until=_BASIC_INFO)
        self._info = BasicInfo()
        self._call("GetBasicInfo", byref(self._info))
        self._process(until=_COLOUR_ENCODING)
        colours = ColourEncoding()
        known = library.JxlDecoderGetColorAsEncodedProfile(handle, _ORIGINAL, byref(colours)) == _SUCCESS
        self._colours = colours if known else None
        """The colour space of the original; None if only a profile describes it."""

    def _call(self, name: str, *arguments: object) -> None:
        """Call a function of the decoder.

        Raises:
            Refused: it failed.
        """
        if getattr(self._library, f"JxlDecoder{name}")(self._handle, *arguments) != _SUCCESS:
            raise Refused(_DAMAGED)

    def _process(self, *, until: int) -> None:
        """Decode up to an event.

        Raises:
            Refused: another came first, such as an error.
        """
        if self._library.JxlDecoderProcessInput(self._handle) != until:
            raise Refused(_DAMAGED)

    @property
    def picture(self) -> Picture:
        """What comes out."""
        info = self._info
        grey = "L" if info.num_color_channels == 1 else "RGB"
        hdr = self._colours is not None and self._colours.transfer_function in {_PQ, _HLG}
        return Picture(
            mode="RGBA" if info.alpha_bits else grey,
            size=(info.xsize, info.ysize),
            bright=hdr and not info.uses_original_profile,
        )

    def decode(self) -> Pixels:
        """Return the first frame."""
        profile = self._choose_colours()
        self._process(until=_NEED_IMAGE_OUT_BUFFER)
        mode, (width, height), _ = self.picture
        pixels = bytearray(width * height * _CHANNELS[mode])
        layout = PixelFormat(_CHANNELS[mode], _UINT8, 0, 0)
        # The library compares the size that it is about to fill with this.
        buffer = ctypes.addressof(ctypes.c_char.from_buffer(pixels))
        self._call("SetImageOutBuffer", byref(layout), buffer, len(pixels))
        self._process(until=_FULL_IMAGE)
        return Pixels(pixels, profile)

    def _choose_colours(self) -> bytes | None:
        """Have the pixels in sRGB where the library converts them anyway; else return their profile."""
        if not self._info.uses_original_profile:
            wanted = ColourEncoding.srgb(self._info.num_color_channels)
            self._call("SetOutputColorProfile", byref(wanted), None, 0)
            return None
        if self._colours is not None and self._colours.is_srgb:
            return None
        profile = self._profile()
        if profile[_SPACE] == _CMYK:
            raise Refused("colours in CMYK are not supported")
        return profile

    def _profile(self) -> bytes:
        """Return the profile of the pixels, which the library makes for colour spaces that have a name."""
        size = c_size_t()
        self._call("GetICCProfileSize", _DATA, byref(size))
        if size.value > MAX_PROFILE_BYTES:
            return b""
        buffer = ctypes.create_string_buffer(size.value)
        self._call("GetColorAsICCProfile", _DATA, buffer, size.value)
        return buffer.raw


@contextmanager
def _decoder(data: bytes, white: float = 0) -> Iterator[_Decoder]:
    library = load()
    handle = library.JxlDecoderCreate(None)
    if not handle:
        raise MemoryError
    try:
        yield _Decoder(library, handle, data, white)
    finally:
        library.JxlDecoderDestroy(handle)


def read_picture(data: bytes) -> Picture:
    """Return what the headers say of the picture.

    Raises:
        Refused: they are damaged.
        MemoryError: there is too little.
    """
    with _decoder(data) as decoder:
        return decoder.picture


def decode(data: bytes, picture: Picture) -> Pixels:
    """Return the pixels of the first frame, all layers of it, upright, with alpha that is not premultiplied.

    A high dynamic range is reduced with the library's curve (ITU-R BT.2408 annex 5), which keeps the brightness of
    reference white, where the file has its own colours; else with the profile that the library makes for it.

    Args:
        data: The whole file.
        picture: From ``read_picture``.

    Raises:
        Refused: the file is damaged or incomplete, of a kind that is not supported, or there is too little memory.
        MemoryError: there is too little for the pixels themselves.
    """
    with _decoder(data, _REFERENCE_WHITE if picture.bright else 0) as decoder:
        return decoder.decode()
