"""Images for tests, made on the spot: ordinary ones with Pillow, odd and hostile ones byte by byte."""

import io
import struct
import zlib
from functools import lru_cache
from typing import Any, Literal

from PIL import Image
from pillow_heif import register_heif_opener

from harness.jxl import encoded_jxl

register_heif_opener()
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:  # noqa: ANN401 (an encoder's own options)
    """The image as a file of the format."""
    if image_format == "JXL":
        return encoded_jxl(image, **options)
    data = io.BytesIO()
    image.save(data, image_format, **options)
    return data.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, blue is constant: every turn and mirror image shows."""
    return _gradient(width, height).copy()


@lru_cache(maxsize=16)
def _gradient(width: int, height: int) -> Image.Image:
    right = Image.linear_gradient("L").transpose(Image.Transpose.ROTATE_90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (right, down, Image.new("L", (width, height), 64)))


def noise(width: int, height: int) -> Image.Image:
    """Detail everywhere: costly to decode."""
    return Image.effect_noise((width, height), 100).convert("RGB")


def oriented(image: Image.Image, value: int) -> bytes:
    """An EXIF block that gives the image an orientation; any number, legal or not."""
    exif = image.getexif()
    exif[0x0112] = value
    return exif.tobytes()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int, *, depth: int = 8, colour: int = 2) -> bytes:
    """The signature and IHDR of a PNG file."""
    return PNG_SIGNATURE + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def png(width: int, height: int, rows: bytes, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG file of raw rows, without their filter bytes, and chunks before the pixels."""
    length = len(rows) // height
    filtered = b"".join(b"\0" + rows[at : at + length] for at in range(0, len(rows), length))
    header = png_header(width, height, depth=depth, colour=colour)
    return header + b"".join(chunks) + png_chunk(b"IDAT", zlib.compress(filtered)) + png_chunk(b"IEND", b"")


def jpeg_segment(marker: int, content: bytes) -> bytes:
    """A marker segment with its length."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_frame_header(width: int, height: int, marker: int = 0xC0) -> bytes:
    """A frame header of three components."""
    return jpeg_segment(marker, struct.pack(">BHHB", 8, height, width, 3) + bytes(9))


def webp(kind: bytes, content: bytes) -> bytes:
    """A WebP file of one chunk."""
    chunk = kind + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def box(kind: bytes, *contents: bytes) -> bytes:
    """A box of an ISO base media file."""
    content = b"".join(contents)
    return struct.pack(">I", len(content) + 8) + kind + content


def extents(width: int, height: int) -> bytes:
    """The box that gives an AVIF image its size."""
    return box(b"ispe", bytes(4), struct.pack(">II", width, height))


def avif_header(*properties: bytes, brands: bytes = b"avif\0\0\0\0avifmif1") -> bytes:
    """An AVIF file that holds nothing but properties."""
    return box(b"ftyp", brands) + box(b"meta", bytes(4), box(b"iprp", box(b"ipco", *properties)))


HEIC = b"heic\0\0\0\0mif1heic"
"""The brands of a HEIC file."""

SHORT, LONG, LONG8 = 3, 4, 16
"""Types of values in TIFF, by number."""


def tiff(
    *entries: tuple[int, int, int, int], order: Literal["<", ">"] = "<", big: bool = False, rest: bytes = b""
) -> bytes:
    """A TIFF file: a directory of entries (tag, type, number of values, the value or its position), then the rest."""
    mark = {"<": b"II", ">": b"MM"}[order]
    if big:
        start = mark + struct.pack(f"{order}HHHQ", 43, 8, 0, 16) + struct.pack(f"{order}Q", len(entries))
    else:
        start = mark + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", len(entries))
    values = {SHORT: "H", LONG: "I", LONG8: "Q"}
    size = 8 if big else 4
    fields = [
        struct.pack(f"{order}HH{'Q' if big else 'I'}", tag, kind, count)
        + struct.pack(order + values.get(kind, "I"), value)[:size].ljust(size, b"\0")
        for tag, kind, count, value in entries
    ]
    return b"".join((start, *fields, bytes(size), rest))


def tiff_size(width: int, height: int, kind: int = LONG) -> list[tuple[int, int, int, int]]:
    """The entries of a TIFF directory that give the size."""
    return [(256, kind, 1, width), (257, kind, 1, height)]


def raw_tiff(
    width: int,
    height: int,
    pixels: bytes,
    *entries: tuple[int, int, int, int],
    order: Literal["<", ">"] = "<",
    grey: bool = False,
) -> bytes:
    """A TIFF file of one strip with raw pixels of 8 bits a sample, unless further entries say otherwise."""
    photometric, samples = (1, 1) if grey else (2, 3)
    ours = [
        *tiff_size(width, height),
        (258, SHORT, 1, 8),
        (259, SHORT, 1, 1),
        (262, SHORT, 1, photometric),
        (273, LONG, 1, 0),
        (277, SHORT, 1, samples),
        (278, LONG, 1, height),
        (279, LONG, 1, len(pixels)),
    ]
    merged = {entry[0]: entry for entry in (*ours, *entries)}
    if merged[273] in ours:
        merged[273] = (273, LONG, 1, len(tiff(*merged.values())))
    return tiff(*merged.values(), order=order, rest=pixels)


def deflated_tiff(image: Image.Image, rows: int = 50) -> bytes:
    """An RGB image as a TIFF file of several strips, each deflated, behind the directory."""
    tops = range(0, image.height, rows)
    strips = [zlib.compress(image.crop((0, top, image.width, top + rows)).tobytes()) for top in tops]
    count, start = len(strips), 8 + 2 + 9 * 12 + 4
    lengths = [len(strip) for strip in strips]
    places = [start + 8 * count + sum(lengths[:index]) for index in range(count)]
    tables = struct.pack(f"<{2 * count}I", *places, *lengths)
    return raw_tiff(
        *image.size,
        tables + b"".join(strips),
        (259, SHORT, 1, 8),
        (273, LONG, count, start),
        (278, LONG, 1, rows),
        (279, LONG, count, start + 4 * count),
    )


def bmp_header(width: int, height: int, *, length: int = 40) -> bytes:
    """The file header and the information header of a BMP file of 24 bits a pixel, whose pixels follow."""
    if length == 12:
        header = struct.pack("<IHHHH", length, width, height, 1, 24)
    else:
        header = struct.pack("<IiiHH", length, width, height, 1, 24).ljust(length, b"\0")
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(header)) + header


def gif_header(width: int, height: int) -> bytes:
    """A GIF's signature and logical screen, without a colour table."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)


def gif_frame(left: int, top: int, width: int, height: int) -> bytes:
    """The descriptor of a GIF's frame."""
    return b"," + struct.pack("<HHHHB", left, top, width, height, 0)


def display_p3() -> bytes:
    """An ICC profile of the Display P3 colour space, with a plain gamma of 2.2."""
    return _profile(
        b"RGB ",
        {
            b"rXYZ": _xyz(0.51512, 0.24120, -0.00105),
            b"gXYZ": _xyz(0.29198, 0.69225, 0.04189),
            b"bXYZ": _xyz(0.15710, 0.06657, 0.78407),
            b"rTRC": _gamma(2.2),
            b"gTRC": _gamma(2.2),
            b"bTRC": _gamma(2.2),
        },
    )


def linear_grey() -> bytes:
    """An ICC profile of a grey scale that is linear in light."""
    return _profile(b"GRAY", {b"kTRC": _gamma(1.0)})


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {**tags, b"wtpt": _xyz(0.9642, 1.0, 0.8249), b"desc": _description(b"Test"), b"cprt": b"text\0\0\0\0CC0\0"}
    start = 128 + 4 + 12 * len(tags)
    table, body = b"", b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = bytearray(128)
    struct.pack_into(">I4sI4s4s4s", header, 0, start + len(body), b"\0\0\0\0", 0x02400000, b"mntr", space, b"XYZ ")
    header[36:40] = b"acsp"
    struct.pack_into(">III", header, 68, 0x0000F6D6, 0x00010000, 0x0000D32D)
    return bytes(header) + struct.pack(">I", len(tags)) + table + body


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(value * 65536) for value in values))


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256)) + b"\0\0"


def _description(text: bytes) -> bytes:
    return b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + b"\0" + bytes(78)
