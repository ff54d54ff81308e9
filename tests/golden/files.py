"""Files of every format, written part by part as in their specifications where no encoder can."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
from PIL import Image, ImageChops

from harness.images import PNG_SIGNATURE, encoded, jpeg_segment, png, png_chunk, webp
from image_service.domain.image import ImageFormat
from tests.golden.reference import Indices, Pixels

_GREY, _RGB, _GREY_ALPHA, _RGBA = 0, 2, 4, 6
_COLOUR_TYPES: Final = {1: _GREY, 2: _GREY_ALPHA, 3: _RGB, 4: _RGBA}
"""PNG's number for a kind of picture, by its channels."""
_ADAM7: Final = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column, and the steps between rows and columns, of each pass (PNG specification §8.1)."""


def _heic(image: Image.Image, **options: Any) -> bytes:  # noqa: ANN401 (an encoder's own options)
    fine = {"quality": 96, "chroma": 444, "enc_params": {"preset": "ultrafast"}, **options}
    data = io.BytesIO()
    import_module("pillow_heif").from_pillow(image).save(data, format="HEIF", **fine)
    return data.getvalue()


ENCODERS: Final[dict[str, Callable[..., bytes]]] = {
    "jpeg": lambda image, **options: encoded(image, "JPEG", **{"quality": 98, "subsampling": 0, **options}),
    "png": lambda image, **options: encoded(image, "PNG", **options),
    "gif": lambda image, **options: encoded(image, "GIF", **options),
    "webp": lambda image, **options: encoded(image, "WEBP", **{"quality": 98, "method": 0, **options}),
    "avif": lambda image, **options: encoded(
        image, "AVIF", **{"quality": 96, "subsampling": "4:4:4", "speed": 9, **options}
    ),
    "tiff": lambda image, **options: encoded(image, "TIFF", **options),
    "bmp": lambda image, **options: encoded(image, "BMP", **options),
    "jxl": lambda image, **options: encoded(image, "JXL", **options),
}
"""How to write each format; HEIC only where its encoder is installed."""
if find_spec("pillow_heif"):
    ENCODERS["heic"] = _heic
FORMATS: Final = [each.value for each in ImageFormat if each.value in ENCODERS]
"""The formats that the renderer reads and these tests can write."""
TRUE_COLOUR: Final = [each for each in FORMATS if each != "gif"]


def write(image: Image.Image, image_format: str, **options: Any) -> bytes:  # noqa: ANN401 (an encoder's own options)
    """Return the image as a file, with as little loss as the format allows."""
    return ENCODERS[image_format](image, **options)


def exif(orientation: int = 1, *, thumbnail: bytes = b"", description: str = "") -> bytes:
    """Return an EXIF block with an orientation, a GPS position, a description and a thumbnail (EXIF 2.32 §4.6)."""
    text = description.encode() + b"\0\0\0\0"
    entries, gps, preview = 3, 1, 2
    after = 8 + 2 + 12 * entries + 4
    at_gps = after + len(text)
    at_preview = at_gps + 2 + 12 * gps + 4
    at_thumbnail = at_preview + 2 + 12 * preview + 4
    return b"".join(
        (
            b"Exif\0\0MM\0*\0\0\0\x08",
            struct.pack(">H", entries),
            struct.pack(">HHII", 0x010E, 2, len(text), after),
            struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0),
            struct.pack(">HHII", 0x8825, 4, 1, at_gps),
            struct.pack(">I", at_preview if thumbnail else 0),
            text,
            struct.pack(">HHHI4sI", gps, 1, 2, 2, b"N\0\0\0", 0),
            struct.pack(">H", preview),
            struct.pack(">HHII", 0x0201, 4, 1, at_thumbnail),
            struct.pack(">HHII", 0x0202, 4, 1, len(thumbnail)),
            struct.pack(">I", 0),
            thumbnail,
        )
    )


def png_of(pixels: Pixels, *chunks: bytes, depth: int = 8) -> bytes:
    """Return a PNG of 8 or 16 bits a sample, with chunks before the pixels."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    colour = _COLOUR_TYPES[channels]
    height, width = pixels.shape[:2]
    return png(width, height, _samples(pixels, depth), *chunks, depth=depth, colour=colour)


def packed_png(values: Indices, depth: int, *chunks: bytes, colour: int = 3) -> bytes:
    """Return a PNG of indices or grey values with fewer than 8 bits each."""
    height, width = values.shape
    bits = np.unpackbits(values[..., None], axis=2)[..., 8 - depth :].reshape(height, width * depth)
    return png(width, height, np.packbits(bits, axis=1).tobytes(), *chunks, depth=depth, colour=colour)


def interlaced_png(pixels: Pixels) -> bytes:
    """Return a PNG of RGB in the seven passes of Adam7."""
    height, width = pixels.shape[:2]
    passes = [pixels[top::down, left::right] for top, left, down, right in _ADAM7]
    rows = b"".join(b"\0" + _samples(row, 8) for each in passes for row in each if row.size)
    header = struct.pack(">IIBBBBB", width, height, 8, _RGB, 0, 0, 1)
    parts = (png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b""))
    return PNG_SIGNATURE + b"".join(parts)


def _samples(pixels: Pixels, depth: int) -> bytes:
    kind = np.dtype(">u2" if depth == 16 else "u1")
    return bytes(np.round(pixels * (2**depth - 1)).astype(kind).tobytes())


def jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of every segment up to the first scan of a well-formed JPEG file."""
    position = 2
    while True:
        code, length = content[position + 1], int.from_bytes(content[position + 2 : position + 4])
        yield code, content[position + 4 : position + 2 + length]
        if code == 0xDA:
            return
        position += 2 + length


def ycck_jpeg(inks: Pixels, **options: Any) -> bytes:  # noqa: ANN401 (an encoder's own options)
    """Return a YCCK JPEG as layout programs write it: the coloured inks as luma and chroma, black inverted."""
    values = np.round(inks * 255).astype(np.uint8)
    planes = (*Image.fromarray(values[..., :3]).convert("YCbCr").split(), Image.fromarray(255 - values[..., 3]))
    # The encoder inverts CMYK, and writes an Adobe segment without a transform.
    image = Image.merge("CMYK", [ImageChops.invert(plane) for plane in planes])
    content = encoded(image, "JPEG", quality=98, **options)
    at = content.index(b"Adobe") + len(b"Adobe") + 6
    assert content[at] == 0
    return content[:at] + b"\2" + content[at + 1 :]


def png_animation(frames: list[Image.Image], *, default: Image.Image | None = None) -> bytes:
    """Return an APNG; ``default`` is the image for programs without APNG support, if it is not the first frame."""
    options: dict[str, Any] = {"save_all": True, "duration": 100}
    if default is None:
        return encoded(frames[0], "PNG", append_images=frames[1:], **options)
    return encoded(default, "PNG", append_images=frames, default_image=True, **options)


def gif_animation(canvas: tuple[int, int], palette: bytes, *frames: bytes) -> bytes:
    """Return a GIF of four colours and the frames."""
    return b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x81, 0, 0) + palette + b"".join(frames) + b";"


def gif_frame(
    indices: Indices,
    at: tuple[int, int],
    *,
    transparent: int | None = None,
    disposal: int = 0,
) -> bytes:
    """Return a GIF frame with two bits a pixel, uncompressed: a clear code precedes every pixel."""
    flags = disposal << 2 | (transparent is not None)
    control = b"!\xf9\4" + struct.pack("<BHBB", flags, 10, transparent or 0, 0)
    height, width = indices.shape
    descriptor = b"," + struct.pack("<HHHHB", *at, width, height, 0)
    clear, end = 4, 5
    codes = [code for index in indices.flat for code in (clear, int(index))] + [end]
    bits = sum(code << 3 * place for place, code in enumerate(codes))
    data = bits.to_bytes((3 * len(codes) + 7) // 8, "little")
    blocks = b"".join(
        bytes((len(block),)) + block for block in (data[at : at + 255] for at in range(0, len(data), 255))
    )
    return control + descriptor + b"\2" + blocks + b"\0"


def webp_animation(canvas: tuple[int, int], *frames: bytes) -> bytes:
    """Return an animated WebP with alpha (RFC 9649 §2.7.1.1)."""
    extended = b"\x12\0\0\0" + _uint24(canvas[0] - 1, canvas[1] - 1)
    chunks = (b"VP8X", extended), (b"ANIM", b"\xff\0\0\xff\0\0"), *((b"ANMF", frame) for frame in frames)
    body = b"".join(webp(kind, content)[12:] for kind, content in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def webp_frame(image: Image.Image, at: tuple[int, int], **options: Any) -> bytes:  # noqa: ANN401 (as above)
    """Return a frame of an animated WebP; its upper left corner must have even coordinates."""
    still = encoded(image, "WEBP", method=0, **options)
    start = 30 if still[12:16] == b"VP8X" else 12
    return _uint24(at[0] // 2, at[1] // 2, image.width - 1, image.height - 1, 100) + b"\0" + still[start:]


def _uint24(*values: int) -> bytes:
    return b"".join(value.to_bytes(3, "little") for value in values)


def with_gain_map(base: bytes, gain_map: bytes) -> bytes:
    """Return an Ultra HDR photograph: the base picture, followed by its gain map."""
    container = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>'
        "</rdf:RDF></x:xmpmeta>"
    )
    xmp = jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + container.encode())
    head = base[:2] + xmp
    index_length = 4 + 4 + 8 + 2 + 12 * 3 + 4 + 32
    length = len(head) + index_length + len(base) - 2
    # Offsets of the index count from its byte order mark, after marker, length and identifier (CIPA DC-007 §5.2).
    start = len(head) + 8
    entries = (
        struct.pack(">HHI4s", 0xB000, 7, 4, b"0100"),
        struct.pack(">HHII", 0xB001, 4, 1, 2),
        struct.pack(">HHII", 0xB002, 7, 32, 8 + 2 + 12 * 3 + 4),
    )
    pictures = struct.pack(">IIIHH", 0x030000, length, 0, 0, 0) + struct.pack(
        ">IIIHH", 0, len(gain_map), length - start, 0, 0
    )
    index = b"MPF\0MM\0*\0\0\0\x08" + struct.pack(">H", 3) + b"".join(entries) + struct.pack(">I", 0) + pictures
    whole = head + jpeg_segment(0xE2, index) + base[2:]
    assert len(whole) == length
    return whole + gain_map


def with_box_value(content: bytes, box: bytes, value: int) -> bytes:
    """Return an ISO media file whose only box of a kind, which is one byte long, has another value."""
    at = content.index(box) + 4
    assert content.count(box) == 1
    return content[:at] + bytes((value,)) + content[at + 1 :]
