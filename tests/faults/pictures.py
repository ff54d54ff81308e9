"""Makes test images: valid ones in all formats, truncated ones, and one that exceeds the decoder's limits."""

import random
import re
from dataclasses import dataclass

from PIL import Image

from harness.images import box, encoded, gradient, noise, oriented
from tests.faults.history import Picture

SIZES = ((1, 1), (37, 210), (64, 48), (300, 300), (333, 250), (900, 40), (1300, 900))
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF")
POISON_SIDE = 14_000
POISON_PIXELS = POISON_SIDE**2
"""MAX_PIXELS with which the poison image is accepted."""
POISON_SCANS = {9: 10}
"""Repetitions by scan: as many as are accepted. Decoding takes 2.4 to 4 s of processor time; a limit of one second lets
up to two pass."""
SCAN = re.compile(rb"\xff\xda.*?(?=\xff[\xc4\xda\xd9])", re.DOTALL)
"""From a scan header to the next header or table; in entropy-coded data 0xFF is followed by 0."""
END_OF_IMAGE = b"\xff\xd9"
POISON_LIMIT = 1
"""DECODE_CPU_SECONDS for which the poison image is poison."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to upload."""

    content: bytes
    picture: Picture


class Pictures:
    """Encodes every image once and derives any number of files that differ in a few ignored bytes."""

    def __init__(self) -> None:
        self._valid = [
            *(encoded(gradient(*size), kind) for size in SIZES for kind in FORMATS),
            encoded(gradient(1600, 1200), "PNG"),  # too large for the express lane
            encoded(gradient(3000, 2000), "JPEG"),
            encoded(noise(640, 480), "JPEG", progressive=True),
            encoded(gradient(500, 333), "JPEG", exif=oriented(gradient(500, 333), 6)),
            encoded(gradient(200, 100).convert("RGBA"), "PNG"),
            encoded(gradient(120, 90).convert("CMYK"), "JPEG"),
        ]
        self._corrupt = [_half(encoded(noise(400, 300), "JPEG")), _half(encoded(noise(300, 200), "PNG"))]
        self._poison = _poison()

    def valid(self, rng: random.Random) -> Upload:
        """Return a valid image."""
        return Upload(_unique(rng.choice(self._valid), rng), Picture.VALID)

    def corrupt(self, rng: random.Random) -> Upload:
        """Return an image that is truncated in its pixel data."""
        return Upload(rng.choice(self._corrupt) + _mark(rng), Picture.CORRUPT)

    def poison(self, rng: random.Random) -> Upload:
        """Return a valid image that cannot be decoded within the limits."""
        return Upload(_unique(self._poison, rng), Picture.POISON)


def _mark(rng: random.Random) -> bytes:
    return rng.randbytes(8).hex().encode()


def _unique(content: bytes, rng: random.Random) -> bytes:
    """Make the file unique: decoders ignore data after the end and ``free`` boxes."""
    return content + (box(b"free", _mark(rng)) if content[4:8] == b"ftyp" else _mark(rng))


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _poison() -> bytes:
    """Make a progressive JPEG with many repeated scans, each of which costs a pass over the whole image."""
    flat = Image.new("RGB", (POISON_SIDE, POISON_SIDE), (200, 30, 60))
    content = encoded(flat, "JPEG", progressive=True, quality=30, subsampling=2)
    scans = SCAN.findall(content)
    repeated = b"".join(scans[index] * times for index, times in POISON_SCANS.items())
    return content.removesuffix(END_OF_IMAGE) + repeated + END_OF_IMAGE
