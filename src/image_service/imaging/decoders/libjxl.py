"""libjxl through ctypes, in the copy that the package imagecodecs ships: the first frame of a JPEG XL file.

Only documented structures and functions of its header ``jxl/decode.h`` are used, which are the same in the versions
that are accepted. No Python code of imagecodecs runs, and none of its other codecs is loaded.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from image_service.imaging.decoders.libjxl_structures import BasicInfo, ColourEncoding, PixelFormat
from image_service.imaging.formats.colour import SRGB, Cicp, Profile, Signal
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
_ORIGINAL: Final = 0
"""JxlColorProfileTarget: the colours that the file names."""
_DATA_TYPES: Final = {8: 2, 16: 3}
"""JxlDataType, by bits a sample."""
_D65: Final = 1
"""JxlWhitePoint."""
_PRIMARIES: Final = {1: 1, 9: 9, 11: 12}
"""From JxlPrimaries to ITU-T H.273; others occur in profiles only."""
_TRANSFERS: Final = {1: 13, 8: 8, 13: 13, 16: 16, 18: 18}
"""From JxlTransferFunction to ITU-T H.273. The curve of BT.709 is for cameras; browsers show it as that of sRGB."""
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
    bits: int
    """Of a sample."""
    signal: Signal | None
    """The colour space of the decoded pixels; None for sRGB."""


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
        ("SetUnpremultiplyAlpha", (c_int,)),
        ("SetOutputColorProfile", (POINTER(ColourEncoding), c_void_p, c_size_t)),
        ("SetImageOutBuffer", (POINTER(PixelFormat), c_void_p, c_size_t)),
    ):
        getattr(library, f"JxlDecoder{name}").argtypes = (decoder, *arguments)


class _Decoder:
    """A decoder that has read the file's headers; it has no threads of its own."""

    def __init__(self, library: ctypes.CDLL, handle: int, data: bytes) -> None:
        self._library, self._handle, self._data = library, handle, data
        self._call("SubscribeEvents", _BASIC_INFO | _COLOUR_ENCODING | _FULL_IMAGE)
        self._call("SetUnpremultiplyAlpha", 1)
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
        """What comes out.

        Raises:
            Refused: its colours are not supported.
        """
        info = self._info
        grey = "L" if info.num_color_channels == 1 else "RGB"
        return Picture(
            mode="RGBA" if info.alpha_bits else grey,
            size=(info.xsize, info.ysize),
            bits=info.bits_per_sample,
            signal=self._signal(),
        )

    def _signal(self) -> Signal | None:
        """Return the colours of the pixels: the original's, or sRGB where the library has to convert them anyway."""
        if named := self._code_points():
            return None if named == SRGB else named
        return self._profile() if self._info.uses_original_profile else None

    def _code_points(self) -> Cicp | None:
        """Return the code points of the original's colours; None where none describe them."""
        colours = self._colours
        if colours is None or colours.white_point != _D65:
            return None
        # Grey has no primaries.
        primaries = 1 if colours.color_space else _PRIMARIES.get(colours.primaries)
        transfer = _TRANSFERS.get(colours.transfer_function)
        return Cicp(primaries, transfer) if primaries and transfer else None

    def _profile(self) -> Profile | None:
        """Return the profile of the original; None if it is larger than any that is used.

        Raises:
            Refused: it is for CMYK.
        """
        size = c_size_t()
        self._call("GetICCProfileSize", _ORIGINAL, byref(size))
        if size.value > MAX_PROFILE_BYTES:
            return None
        buffer = ctypes.create_string_buffer(size.value)
        self._call("GetColorAsICCProfile", _ORIGINAL, buffer, size.value)
        if buffer.raw[_SPACE] == _CMYK:
            raise Refused("colours in CMYK are not supported")
        return Profile(buffer.raw)

    def decode(self, bits: int) -> bytearray:
        """Return the first frame, with 8 or 16 bits a sample."""
        picture = self.picture
        if not self._info.uses_original_profile:
            srgb = ColourEncoding.srgb(self._info.num_color_channels)
            wanted = self._colours if self._colours and self._code_points() else srgb
            self._call("SetOutputColorProfile", byref(wanted), None, 0)
        self._process(until=_NEED_IMAGE_OUT_BUFFER)
        (width, height), channels = picture.size, _CHANNELS[picture.mode]
        pixels = bytearray(width * height * channels * bits // 8)
        layout = PixelFormat(channels, _DATA_TYPES[bits], 0, 0)
        # The library compares the size that it is about to fill with this.
        buffer = ctypes.addressof(ctypes.c_char.from_buffer(pixels))
        self._call("SetImageOutBuffer", byref(layout), buffer, len(pixels))
        self._process(until=_FULL_IMAGE)
        return pixels


@contextmanager
def _decoder(data: bytes) -> Iterator[_Decoder]:
    library = load()
    handle = library.JxlDecoderCreate(None)
    if not handle:
        raise MemoryError
    try:
        yield _Decoder(library, handle, data)
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


def decode(data: bytes, bits: int = 8) -> bytearray:
    """Return the pixels of the first frame, all layers of it, upright, with alpha that is not premultiplied.

    Args:
        data: The whole file.
        bits: Of a sample, 8 or 16; the latter in the machine's byte order.

    Raises:
        Refused: the file is damaged or incomplete, of a kind that is not supported, or there is too little memory.
        MemoryError: there is too little for the pixels themselves.
    """
    with _decoder(data) as decoder:
        return decoder.decode(bits)
