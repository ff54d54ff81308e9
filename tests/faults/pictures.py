"""The pictures that are uploaded: small ones of all kinds, some that are damaged, and one that nobody can afford."""

import random
import re
from dataclasses import dataclass

from PIL import Image

from harness.images import box, encoded, gradient, noise, oriented
from tests.faults.history import Picture

SIZES = ((1, 1), (37, 210), (64, 48), (300, 300), (333, 250), (900, 40), (1300, 900))
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF")
POISON_SIDE = 7070
"""Just below the 50 megapixels that are accepted."""
POISON_SCANS = {0: 63, 5: 26}
"""How often some of the scans are repeated: as many as are accepted. It takes more than three seconds to decode."""
SCAN = re.compile(rb"\xff\xda.*?(?=\xff[\xc4\xda\xd9])", re.DOTALL)
"""From its header to the next header or table; within the pixels 0xFF is followed by 0."""
END_OF_IMAGE = b"\xff\xd9"
POISON_LIMIT = 1
"""Seconds of processor time that a decoder has to be allowed for the poison to work."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to send."""

    content: bytes
    picture: Picture


class Pictures:
    """Makes every file once, and from it as many as are wanted that differ in a few bytes which nobody looks at."""

    def __init__(self) -> None:
        self._valid = [
            *(encoded(gradient(*size), kind) for size in SIZES for kind in FORMATS),
            encoded(gradient(1600, 1200), "PNG"),  # not small enough for the express lane
            encoded(gradient(3000, 2000), "JPEG"),
            encoded(noise(640, 480), "JPEG", progressive=True),
            encoded(gradient(500, 333), "JPEG", exif=oriented(gradient(500, 333), 6)),
            encoded(gradient(200, 100).convert("RGBA"), "PNG"),
            encoded(gradient(120, 90).convert("CMYK"), "JPEG"),
        ]
        self._corrupt = [_half(encoded(noise(400, 300), "JPEG")), _half(encoded(noise(300, 200), "PNG"))]
        self._poison = _poison()

    def valid(self, chance: random.Random) -> Upload:
        """Any ordinary picture."""
        return Upload(_unique(chance.choice(self._valid), chance), Picture.VALID)

    def corrupt(self, chance: random.Random) -> Upload:
        """One that ends in the middle of its pixels."""
        return Upload(chance.choice(self._corrupt) + _mark(chance), Picture.CORRUPT)

    def poison(self, chance: random.Random) -> Upload:
        """One that is all right, and cannot be decoded within the limits."""
        return Upload(_unique(self._poison, chance), Picture.POISON)


def _mark(chance: random.Random) -> bytes:
    return chance.randbytes(8).hex().encode()


def _unique(content: bytes, chance: random.Random) -> bytes:
    """The same picture in a file of its own: decoders ignore what follows its end, or what is marked as free."""
    return content + (box(b"free", _mark(chance)) if content[4:8] == b"ftyp" else _mark(chance))


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _poison() -> bytes:
    """A progressive JPEG, some of whose scans come again and again: each costs a pass over the whole picture."""
    flat = Image.new("RGB", (POISON_SIDE, POISON_SIDE), (200, 30, 60))
    content = encoded(flat, "JPEG", progressive=True, quality=30, subsampling=0)
    scans = SCAN.findall(content)
    repeated = b"".join(scans[index] * times for index, times in POISON_SCANS.items())
    return content.removesuffix(END_OF_IMAGE) + repeated + END_OF_IMAGE
