"""Animations for tests, of frames with any place, disposal and blending: also those that no encoder would write."""

import io
import struct
from dataclasses import dataclass

from PIL import GifImagePlugin, Image

from harness.images import PNG_SIGNATURE, encoded, png_chunk, png_header

KEEP, CLEAR, RESTORE = "keep", "clear", "restore"
GIF_DISPOSALS = {KEEP: 1, CLEAR: 2, RESTORE: 3}
PNG_DISPOSALS = {KEEP: 0, CLEAR: 1, RESTORE: 2}
FOR_EVER = 0


@dataclass(frozen=True, kw_only=True)
class Part:
    """A frame of an animation."""

    image: Image.Image
    """In mode RGBA."""
    at: tuple[int, int] = (0, 0)
    milliseconds: int = 100
    disposal: str = KEEP
    blend: bool = True


def gif(size: tuple[int, int], *parts: Part, plays: int = FOR_EVER, background: int = 0, palette: bytes = b"") -> bytes:
    """Return a GIF file; pixels whose alpha is zero are transparent."""
    flags = 0xF7 if palette else 0x70
    content = b"GIF89a" + struct.pack("<HHBBB", *size, flags, background, 0) + palette
    if plays != 1:
        content += b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", max(plays - 1, 0), 0)
    for part in parts:
        content += gif_frame(part)
    return content + b";"


def gif_frame(part: Part) -> bytes:
    """Return a graphic control extension and an image with a palette of its own."""
    pixels = part.image.convert("RGB").quantize(255, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    pixels.paste(255, mask=part.image.getchannel("A").point(lambda alpha: 255 if alpha == 0 else 0))
    palette = bytes(pixels.getpalette() or b"")[:765].ljust(768, b"\0")
    flags = GIF_DISPOSALS[part.disposal] << 2 | 1
    control = b"!\xf9\x04" + struct.pack("<BHBB", flags, part.milliseconds // 10, 255, 0)
    descriptor = b"," + struct.pack("<HHHHB", *part.at, *part.image.size, 0x87)
    return control + descriptor + palette + b"".join(GifImagePlugin.getdata(pixels))[10:]


def apng(
    size: tuple[int, int], *parts: Part, plays: int = FOR_EVER, default: Image.Image | None = None, chunks: bytes = b""
) -> bytes:
    """Return an animated PNG file in RGBA.

    Args:
        size: Of the canvas.
        parts: The frames; the first is also the default image, unless there is another.
        plays: How often it is shown.
        default: A default image that is no part of the animation.
        chunks: Others, before the pixels.
    """
    content = [png_header(*size, colour=6), png_chunk(b"acTL", struct.pack(">II", len(parts), plays)), chunks]
    if default:
        content.append(png_chunk(b"IDAT", _png_pixels(default)))
    sequence = 0
    for index, part in enumerate(parts):
        disposal = PNG_DISPOSALS[part.disposal]
        timing = part.milliseconds, 1000, disposal, part.blend
        content.append(png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", sequence, *part.image.size, *part.at, *timing)))
        sequence += 1
        pixels = _png_pixels(part.image)
        if index == 0 and default is None:
            content.append(png_chunk(b"IDAT", pixels))
            continue
        # In two chunks, as large frames are.
        for piece in (pixels[: len(pixels) // 2], pixels[len(pixels) // 2 :]):
            content.append(png_chunk(b"fdAT", struct.pack(">I", sequence) + piece))
            sequence += 1
    return b"".join((*content, png_chunk(b"IEND", b"")))


def _png_pixels(image: Image.Image) -> bytes:
    """Return the content of a PNG file's pixel chunks."""
    content, position, found = encoded(image.convert("RGBA"), "PNG"), len(PNG_SIGNATURE), b""
    while position < len(content):
        length, kind = struct.unpack(">I4s", content[position : position + 8])
        found += content[position + 8 : position + 8 + length] if kind == b"IDAT" else b""
        position += length + 12
    return found


def webp(size: tuple[int, int], *parts: Part, plays: int = FOR_EVER, profile: bytes = b"") -> bytes:
    """Return an animated WebP file, with even offsets, and no disposal but these two."""
    flags = 0x12 | (0x20 if profile else 0)
    sides = (size[0] - 1).to_bytes(3, "little") + (size[1] - 1).to_bytes(3, "little")
    body = riff_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides)
    body += riff_chunk(b"ICCP", profile) if profile else b""
    body += riff_chunk(b"ANIM", struct.pack("<IH", 0xFFFFFFFF, plays))
    for part in parts:
        body += webp_frame(part)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def webp_frame(part: Part, *, lossless: bool = True) -> bytes:
    """Return an ANMF chunk."""
    still = encoded(part.image, "WEBP", lossless=lossless, exact=True)
    # Behind the header, and behind that of the extended format.
    chunks = still[30:] if still[12:16] == b"VP8X" else still[12:]
    numbers = (part.at[0] // 2, part.at[1] // 2, part.image.width - 1, part.image.height - 1, part.milliseconds)
    flags = (part.disposal == CLEAR) | (0 if part.blend else 2)
    return riff_chunk(b"ANMF", b"".join(each.to_bytes(3, "little") for each in numbers) + bytes([flags]) + chunks)


def riff_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a WebP file."""
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def frames_of(content: bytes) -> list[tuple[Image.Image, float]]:
    """Return the frames of a file as Pillow composes them, in RGBA, and how long each is shown."""
    found = []
    with Image.open(io.BytesIO(content)) as image:
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()
            found.append((image.convert("RGBA"), float(image.info.get("duration", 0))))
    return found
