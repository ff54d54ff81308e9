"""JPEG XL files for tests, made with libjxl's own encoder: what Pillow's formats have, and what only JPEG XL has."""

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_int32, c_size_t, c_uint8, c_uint32, c_void_p
from functools import lru_cache
from typing import Any, Self

from PIL import Image

from image_service.imaging.decoders.libjxl import load
from image_service.imaging.decoders.libjxl_structures import BasicInfo, ColourEncoding, PixelFormat

CODESTREAM = b"\xff\x0a"
CONTAINER = bytes.fromhex("0000000c4a584c200d0a870a") + bytes.fromhex("00000014667479706a786c20000000006a786c20")
"""The first two boxes of a file that is a container."""
_EFFORT, _BITS_FROM_CODESTREAM = 0, 1
_MORE_OUTPUT = 2
_BYTES, _WORDS = 2, 3
"""JxlDataType: samples of one and of two bytes."""


class _LayerInfo(ctypes.Structure):
    _fields_ = (
        ("have_crop", c_int),
        ("crop_x0", c_int32),
        ("crop_y0", c_int32),
        ("xsize", c_uint32),
        ("ysize", c_uint32),
        ("blendmode", c_int),
        ("source", c_uint32),
        ("alpha", c_uint32),
        ("clamp", c_int),
        ("save_as_reference", c_uint32),
    )


class _FrameHeader(ctypes.Structure):
    _fields_ = (
        ("duration", c_uint32),
        ("timecode", c_uint32),
        ("name_length", c_uint32),
        ("is_last", c_int),
        ("layer", _LayerInfo),
    )
    duration: int
    layer: _LayerInfo


class _ExtraChannelInfo(ctypes.Structure):
    _fields_ = (
        ("kind", c_int),
        ("bits", c_uint32),
        ("exponent", c_uint32),
        ("shift", c_uint32),
        ("name_length", c_uint32),
        ("alpha_premultiplied", c_int),
        ("spot", c_float * 4),
        ("filter", c_uint32),
    )


class _BitDepth(ctypes.Structure):
    _fields_ = (("kind", c_int), ("bits", c_uint32), ("exponent", c_uint32))


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    library = load()
    encoder = settings = c_void_p
    library.JxlEncoderCreate.argtypes, library.JxlEncoderCreate.restype = (c_void_p,), encoder
    library.JxlEncoderFrameSettingsCreate.argtypes = (encoder, c_void_p)
    library.JxlEncoderFrameSettingsCreate.restype = settings
    without_status: dict[str, tuple[Any, ...]] = {
        "InitBasicInfo": (POINTER(BasicInfo),),
        "InitFrameHeader": (POINTER(_FrameHeader),),
        "Destroy": (encoder,),
        "CloseInput": (encoder,),
    }
    for name, arguments in without_status.items():
        function = getattr(library, f"JxlEncoder{name}")
        function.argtypes, function.restype = arguments, None
    with_status: dict[str, tuple[Any, ...]] = {
        "SetBasicInfo": (encoder, POINTER(BasicInfo)),
        "SetExtraChannelInfo": (encoder, c_size_t, POINTER(_ExtraChannelInfo)),
        "SetColorEncoding": (encoder, POINTER(ColourEncoding)),
        "SetICCProfile": (encoder, c_char_p, c_size_t),
        "SetFrameLossless": (settings, c_int),
        "SetFrameDistance": (settings, c_float),
        "SetFrameBitDepth": (settings, POINTER(_BitDepth)),
        "FrameSettingsSetOption": (settings, c_int, ctypes.c_int64),
        "SetFrameHeader": (settings, POINTER(_FrameHeader)),
        "UseContainer": (encoder, c_int),
        "UseBoxes": (encoder,),
        "AddBox": (encoder, c_char_p, c_char_p, c_size_t, c_int),
        "StoreJPEGMetadata": (encoder, c_int),
        "AddJPEGFrame": (settings, c_char_p, c_size_t),
        "AddImageFrame": (settings, POINTER(PixelFormat), c_char_p, c_size_t),
        "ProcessOutput": (encoder, POINTER(POINTER(c_uint8)), POINTER(c_size_t)),
    }
    for name, arguments in with_status.items():
        getattr(library, f"JxlEncoder{name}").argtypes = arguments
    return library


class _Encoder:
    def __enter__(self) -> Self:
        self._handle = _library().JxlEncoderCreate(None)
        self.settings = _library().JxlEncoderFrameSettingsCreate(self._handle, None)
        return self

    def __exit__(self, *_: object) -> None:
        _library().JxlEncoderDestroy(self._handle)

    def call(self, name: str, *arguments: object) -> None:
        status = getattr(_library(), f"JxlEncoder{name}")(self._handle, *arguments)
        assert status == 0, f"{name}: {status}"

    def call_frame(self, name: str, *arguments: object) -> None:
        status = getattr(_library(), f"JxlEncoder{name}")(self.settings, *arguments)
        assert status == 0, f"{name}: {status}"

    def set_frame_header(self, duration: int, place: tuple[int, int, int, int] | None) -> None:
        header = _FrameHeader()
        _library().JxlEncoderInitFrameHeader(byref(header))
        header.duration = duration
        if place:
            header.layer = _LayerInfo(1, *place)
        self.call_frame("SetFrameHeader", byref(header))

    def add_frame(self, frame: Image.Image | bytes, channels: int) -> None:
        if isinstance(frame, Image.Image):
            kind, data = _BYTES, frame.tobytes()
        else:
            kind, data = _WORDS, frame
            self.call_frame("SetFrameBitDepth", byref(_BitDepth(_BITS_FROM_CODESTREAM, 0, 0)))
        self.call_frame("AddImageFrame", byref(PixelFormat(channels, kind, 0, 0)), data, len(data))

    def set_colours(self, colours: ColourEncoding, profile: bytes | None) -> None:
        if profile is None:
            self.call("SetColorEncoding", byref(colours))
        else:
            self.call("SetICCProfile", profile, len(profile))

    def output(self) -> bytes:
        _library().JxlEncoderCloseInput(self._handle)
        found, buffer = b"", (c_uint8 * (1 << 20))()
        status = _MORE_OUTPUT
        while status == _MORE_OUTPUT:
            place, left = ctypes.cast(buffer, POINTER(c_uint8)), c_size_t(len(buffer))
            status = _library().JxlEncoderProcessOutput(self._handle, byref(place), byref(left))
            found += bytes(buffer)[: len(buffer) - left.value]
        assert status == 0, status
        return found


def jxl(  # noqa: PLR0913 (each is a property that a file can have)
    *frames: Image.Image | bytes,
    size: tuple[int, int] | None = None,
    mode: str = "",
    offset: tuple[int, int] = (0, 0),
    bits: int = 8,
    lossless: bool = False,
    original_colours: bool | None = None,
    orientation: int = 1,
    premultiplied: bool = False,
    colours: ColourEncoding | None = None,
    profile: bytes | None = None,
    intensity: float = 0,
    duration: int = 0,
    container: bool = False,
    boxes: Sequence[tuple[bytes, bytes, bool]] = (),
    **fields: Any,  # noqa: ANN401 (of JxlBasicInfo)
) -> bytes:
    """Return a JPEG XL file.

    Args:
        frames: Pictures in mode L, LA, RGB or RGBA; or raw samples of two bytes, with ``size``, ``mode`` and ``bits``.
        size: Of the canvas, if it is not that of the first frame.
        mode: Of raw samples.
        offset: Of the frames on the canvas.
        bits: Of a sample, as the file says.
        lossless: Whether every sample is kept.
        original_colours: Whether the samples are stored in the original's colours, rather than as XYB.
        orientation: 1 to 8, as in EXIF.
        premultiplied: Whether the colours are multiplied by alpha.
        colours: The colour space; sRGB if left out.
        profile: An ICC profile instead.
        intensity: The brightness of white in cd/m²; the default of the colour space if it is zero.
        duration: Of each frame of an animation, in ticks.
        container: Whether it is stored as boxes.
        boxes: Kind and content of further boxes, and whether they are compressed.
        fields: Others of JxlBasicInfo.
    """
    first = frames[0]
    mode = mode or (first.mode if isinstance(first, Image.Image) else "RGB")
    frame_size = first.size if isinstance(first, Image.Image) else size
    assert frame_size
    canvas = size or frame_size
    colour_channels = 1 if mode.startswith("L") else 3
    info = BasicInfo()
    _library().JxlEncoderInitBasicInfo(byref(info))
    info.xsize, info.ysize = canvas
    info.bits_per_sample, info.num_color_channels = bits, colour_channels
    info.uses_original_profile = lossless if original_colours is None else original_colours
    info.orientation, info.intensity_target = orientation, intensity
    if mode.endswith("A"):
        info.num_extra_channels, info.alpha_bits, info.alpha_premultiplied = 1, bits, premultiplied
    if duration:
        info.have_animation, info.animation = 1, (10, 1, 0, 0)
    for name, value in fields.items():
        setattr(info, name, value)
    with _Encoder() as encoder:
        encoder.call("UseContainer", container or bool(boxes))
        encoder.call("SetBasicInfo", byref(info))
        if premultiplied:
            encoder.call("SetExtraChannelInfo", 0, byref(_ExtraChannelInfo(bits=bits, alpha_premultiplied=1)))
        encoder.set_colours(colours or ColourEncoding.srgb(colour_channels), profile)
        if boxes:
            encoder.call("UseBoxes")
            for kind, content, compressed in boxes:
                encoder.call("AddBox", kind, content, len(content), compressed)
        encoder.call_frame("SetFrameDistance", 0.0 if lossless else 1.0)
        encoder.call_frame("SetFrameLossless", lossless)
        encoder.call_frame("FrameSettingsSetOption", _EFFORT, 3)
        encoder.set_frame_header(duration, None if (frame_size, offset) == (canvas, (0, 0)) else (*offset, *frame_size))
        for frame in frames:
            encoder.add_frame(frame, len(mode))
        return encoder.output()


def encoded_jxl(  # noqa: PLR0913 (the options of other encoders)
    image: Image.Image,
    *,
    exif: bytes = b"",
    icc_profile: bytes | None = None,
    xmp: bytes = b"",
    append_images: Sequence[Image.Image] = (),
    duration: int = 0,
    lossless: bool = True,
    **_: object,
) -> bytes:
    """Return a JPEG XL file, with the options of Pillow's encoders; the orientation stands where decoders read it."""
    if image.mode not in {"L", "LA", "RGB", "RGBA"}:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    block = exif.removeprefix(b"Exif\0\0")
    tags = Image.Exif()
    if block.startswith((b"II*\0", b"MM\0*")):
        tags.load(block)
    orientation = tags.get(0x0112, 1)
    boxes = [*([(b"Exif", bytes(4) + block, False)] if exif else []), *([(b"xml ", xmp, False)] if xmp else [])]
    return jxl(
        image,
        *append_images,
        lossless=lossless,
        profile=icc_profile,
        boxes=boxes,
        duration=duration,
        orientation=orientation if 1 <= orientation <= 8 else 1,
    )


def jxl_of_jpeg(content: bytes) -> bytes:
    """Return a JPEG file in JPEG XL, from which it can be restored bit by bit."""
    with _Encoder() as encoder:
        encoder.call("StoreJPEGMetadata", 1)
        encoder.call_frame("AddJPEGFrame", content, len(content))
        return encoder.output()
