"""Orientation: in EXIF wherever it may stand, in XMP, and in the boxes of AVIF."""

import struct
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Literal

from harness.images import LONG, SHORT, box, jpeg_segment, png_chunk, tiff
from image_service.domain.image import ImageFormat
from tests.browser.cases import avif, iso, jpeg, png, webp
from tests.browser.cases.case import Case
from tests.browser.pictures import HEIGHT, WIDTH
from tests.golden.profiles import DISPLAY_P3

TAG: Final = 0x0112
_BYTE: Final = 1
_APP1, _SOS = 0xE1, 0xDA
ALL: Final = range(1, 9)


def exif(value: int = 6, kind: int = SHORT, order: Literal["<", ">"] = ">", count: int = 1) -> bytes:
    """Return a TIFF structure with an orientation."""
    return tiff((TAG, kind, count, value), order=order)


def _in_second_directory() -> bytes:
    """Return one whose first directory is without the orientation, and whose second, of the preview, has it."""
    other = struct.pack(">HHIHH", 0x0128, SHORT, 1, 2, 0)
    second = struct.pack(">HHHIHHI", 1, TAG, SHORT, 1, 6, 0, 0)
    return b"MM\0*\0\0\0\x08" + struct.pack(">H", 1) + other + struct.pack(">I", 8 + 2 + 12 + 4) + second


def _in_exif_directory() -> bytes:
    """Return one that has the orientation only in the directory of the camera's settings."""
    inner = struct.pack(">HHHIHHI", 1, TAG, SHORT, 1, 6, 0, 0)
    return b"MM\0*\0\0\0\x08" + struct.pack(">HHHIII", 1, 0x8769, LONG, 1, 8 + 2 + 12 + 4, 0) + inner


def _in_both_directories(first: int, second: int) -> bytes:
    """Return one with an orientation in the first directory, and another among the camera's settings."""
    entries = struct.pack(">HHHIHH", 2, TAG, SHORT, 1, first, 0) + struct.pack(">HHIII", 0x8769, LONG, 1, 38, 0)
    return b"MM\0*\0\0\0\x08" + entries + struct.pack(">HHHIHHI", 1, TAG, SHORT, 1, second, 0, 0)


def _far(distance: int = 5000) -> bytes:
    """Return one whose directory stands behind other bytes."""
    directory = struct.pack(">HHHIHHI", 1, TAG, SHORT, 1, 6, 0, 0)
    return b"MM\0*" + struct.pack(">I", 8 + distance) + bytes(distance) + directory


def _xmp(value: int = 6) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{value}"/>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


STRUCTURES: Final[dict[str, bytes]] = {
    "short-little-endian": exif(order="<"),
    "long": exif(kind=LONG),
    "long-little-endian": exif(kind=LONG, order="<"),
    "byte": exif(6 << 24, kind=_BYTE),
    "byte-little-endian": exif(kind=_BYTE, order="<"),
    "signed-short": struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, TAG, 8, 1, 6, 0, 0),
    "two-values": exif(count=2),
    "no-value": exif(count=0),
    "zero": exif(0),
    "nine": exif(9),
    "twice-6-then-3": tiff((TAG, SHORT, 1, 6), (TAG, SHORT, 1, 3), order=">"),
    "after-other-tags": tiff((0x0100, SHORT, 1, 1), (0x0128, SHORT, 1, 2), (TAG, SHORT, 1, 6), order=">"),
    "second-directory": _in_second_directory(),
    "exif-directory": _in_exif_directory(),
    "3-and-exif-directory-6": _in_both_directories(3, 6),
    "6-and-exif-directory-3": _in_both_directories(6, 3),
    "directory-far-behind": _far(),
    "directory-cut-off": exif()[:-6],
    "more-entries-than-bytes": exif()[:8] + b"\0\x20" + exif()[10:],
    "wrong-magic": b"MM\0+" + exif()[4:],
    "wrong-byte-order": b"XX" + exif()[2:],
}
"""TIFF structures, tried in each format that holds them alike."""


def app1(structure: bytes) -> bytes:
    """Return the EXIF segment of a JPEG file."""
    return jpeg_segment(_APP1, b"Exif\0\0" + structure)


_XMP_SEGMENT: Final = jpeg_segment(_APP1, b"http://ns.adobe.com/xap/1.0/\0" + _xmp())


def _after_end() -> bytes:
    return jpeg.rgb(b"") + app1(exif())


def _after_jfif() -> bytes:
    content = jpeg.rgb(b"")
    (length,) = struct.unpack_from(">H", content, 4)
    return content[: 4 + length] + app1(exif()) + content[4 + length :]


_JPEG: Final[dict[str, Callable[[], bytes]]] = {
    "after-jfif": _after_jfif,
    "xmp-only": partial(jpeg.rgb, _XMP_SEGMENT),
    "xmp-3-and-exif-6": partial(
        jpeg.rgb, jpeg_segment(_APP1, b"http://ns.adobe.com/xap/1.0/\0" + _xmp(3)) + app1(exif())
    ),
    "exif-6-then-exif-3": partial(jpeg.rgb, app1(exif()) + app1(exif(3))),
    "exif-without-then-exif-6": partial(jpeg.rgb, app1(tiff((0x0128, SHORT, 1, 2))) + app1(exif())),
    "exif-malformed-then-exif-6": partial(jpeg.rgb, app1(b"XX") + app1(exif())),
    "after-sof": lambda: jpeg.before(_SOS, jpeg.rgb(b""), app1(exif())),
    "after-scan": lambda: jpeg.rgb(b"")[:-2] + app1(exif()) + b"\xff\xd9",
    "after-end": _after_end,
    "name-with-other-ending": partial(jpeg.rgb, jpeg_segment(_APP1, b"Exif\0\xff" + exif())),
    "app2": partial(jpeg.rgb, jpeg_segment(0xE2, b"Exif\0\0" + exif())),
    "app13": partial(jpeg.rgb, jpeg_segment(0xED, b"Exif\0\0" + exif())),
}


def _raw_profile(keyword: bytes) -> bytes:
    """Return EXIF as older programs store it in PNG: in hexadecimal."""
    content = b"Exif\0\0" + exif()
    text = b"\nexif\n%8d\n" % len(content) + content.hex().encode() + b"\n"
    return png_chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(text))


def png_exif(structure: bytes) -> bytes:
    """Return the EXIF chunk of a PNG file."""
    return png_chunk(b"eXIf", structure)


_PNG_BEFORE: Final[dict[str, bytes]] = {
    "with-jpeg-name": png_exif(b"Exif\0\0" + exif()),
    "exif-6-then-exif-3": png_exif(exif()) + png_exif(exif(3)),
    "wrong-checksum": png.wrong_checksum(png_exif(exif())),
    "raw-profile-exif": _raw_profile(b"Raw profile type exif"),
    "raw-profile-app1": _raw_profile(b"Raw profile type APP1"),
    "xmp-only": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _xmp()),
}


def _webp_exif(structure: bytes, *, announced: bool = True, before: bool = False) -> bytes:
    """Return a WebP file with an EXIF chunk after or before the pixels."""
    head, *rest = [chunk for _, chunk in webp.chunks(webp.write(DISPLAY_P3.content, quality=98))]
    rest = [each for each in rest if each[:4] != b"ICCP"]
    flags = bytes((0x08 if announced else 0,))
    extended = head[:8] + flags + head[9:]
    chunk = b"EXIF" + struct.pack("<I", len(structure)) + structure + bytes(len(structure) % 2)
    return webp.join([extended, chunk, *rest] if before else [extended, *rest, chunk])


_WEBP: Final[dict[str, Callable[[], bytes]]] = {
    "with-jpeg-name": partial(_webp_exif, b"Exif\0\0" + exif()),
    "unannounced": partial(_webp_exif, exif(), announced=False),
    "before-pixels": partial(_webp_exif, exif(), before=True),
}


def turned(*boxes: bytes) -> bytes:
    """Return an AVIF file with transformations."""
    return avif.boxed(iso.nclx(1, 13, 6), *boxes)


def irot(quarters: int) -> bytes:
    """Return a turn anticlockwise."""
    return box(b"irot", bytes((quarters,)))


def imir(axis: int) -> bytes:
    """Return a mirror: 0 swaps top and bottom, 1 left and right."""
    return box(b"imir", bytes((axis,)))


def _avif_with_exif(*boxes: bytes) -> bytes:
    picture = iso.picture_in(avif.coded("rgb", 8))
    metadata = bytes(4) + exif()
    return iso.write(picture, WIDTH, HEIGHT, (iso.nclx(1, 13, 6), *boxes), metadata=metadata)


_AVIF: Final[dict[str, Callable[[], bytes]]] = {
    **{f"irot-{quarters}": partial(turned, irot(quarters)) for quarters in range(4)},
    **{f"imir-{axis}": partial(turned, imir(axis)) for axis in range(2)},
    **{f"irot-{q}-imir-{axis}": partial(turned, irot(q), imir(axis)) for q in (1, 2, 3) for axis in range(2)},
    "imir-1-then-irot-1": partial(turned, imir(1), irot(1)),
    "exif-only": _avif_with_exif,
    "exif-6-and-irot-2": partial(_avif_with_exif, irot(2)),
}


def cases() -> list[Case]:
    """Return all cases of orientation."""

    def several(image_format: ImageFormat, found: Mapping[str, Callable[[], bytes]], mode: str = "rgb") -> list[Case]:
        return [
            Case(format=image_format, mode=mode, depth=8, signal=f"orientation-{signal}", make=make)
            for signal, make in found.items()
        ]

    def jpeg_of(structure: bytes) -> bytes:
        return jpeg.rgb(app1(structure))

    def png_of(structure: bytes) -> bytes:
        return png.rgb(png_exif(structure), 8)

    holders = {ImageFormat.JPEG: jpeg_of, ImageFormat.PNG: png_of, ImageFormat.WEBP: _webp_exif}
    found = []
    for image_format, make in holders.items():
        found += several(image_format, {str(value): partial(make, exif(value)) for value in ALL})
        found += several(image_format, {signal: partial(make, each) for signal, each in STRUCTURES.items()})
    found += several(ImageFormat.PNG, {signal: partial(png.rgb, each, 8) for signal, each in _PNG_BEFORE.items()})
    late = {"after-idat": partial(png.rgb, b"", 8, after=png_exif(exif()))}
    both = {"before-6-after-idat-3": partial(png.rgb, png_exif(exif()), 8, after=png_exif(exif(3)))}
    found += several(ImageFormat.PNG, late | both)
    found += several(ImageFormat.PNG, {"6": partial(png.rgb, png_exif(exif()), 8, alpha=True)}, "rgba")
    return [
        *found,
        *several(ImageFormat.JPEG, _JPEG),
        *several(ImageFormat.WEBP, _WEBP),
        *several(ImageFormat.AVIF, _AVIF),
    ]
