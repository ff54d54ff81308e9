"""AV1 sequence headers made bit by bit (AV1 specification §5.5), and AVIF files around them."""

import struct

from harness.images import box, extents


def bits(*fields: tuple[int, int]) -> bytes:
    """Return numbers, each with its length in bits, one after the other."""
    text = "".join(f"{value:0{length}b}" for value, length in fields if length)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8))


SIZE = ((7, 4), (7, 4), (7, 8), (7, 8))
"""8x8 pixels."""
Fields = tuple[tuple[int, int], ...]
LEAST_TOOLS: Fields = ((0, 1), (0, 3), (0, 4), (0, 1), (1, 1), (1, 1))
"""No frame numbers, no tools, no order hints; tools for screen content and motion vectors are left open."""


def described(primaries: int, transfer: int, *, depth: Fields = ((0, 1),), mono: Fields = ((0, 1),)) -> Fields:
    """Return a colour configuration with a description."""
    return (*depth, *mono, (1, 1), (primaries, 8), (transfer, 8), (1, 8))


def reduced(*colours: tuple[int, int], profile: int = 0) -> bytes:
    """Return a header of a still picture."""
    return bits((profile, 3), (1, 1), (1, 1), (0, 5), *SIZE, (0, 3), (0, 3), *colours)


def full(*colours: tuple[int, int], tools: Fields = LEAST_TOOLS, profile: int = 0) -> bytes:
    """Return a header with one operating point."""
    return bits((profile, 3), (0, 2), (0, 1), (0, 1), (0, 5), (0, 12), (0, 5), *SIZE, *tools, (0, 3), *colours)


def unit(header: bytes, kind: int = 1) -> bytes:
    """Return a unit (OBU) with its size."""
    return bytes((kind << 3 | 2, len(header))) + header


def colr(kind: bytes, *content: bytes) -> bytes:
    return box(b"colr", kind, *content)


def nclx(primaries: int, transfer: int) -> bytes:
    return colr(b"nclx", struct.pack(">HHHB", primaries, transfer, 6, 0x80))


def pitm(item: int = 1, version: int = 0) -> bytes:
    return box(b"pitm", bytes((version, 0, 0, 0)), struct.pack(">I" if version else ">H", item))


def ipma(
    *entries: tuple[int, tuple[int, ...]], version: int = 0, wide: bool = False, count: int | None = None
) -> bytes:
    """Return associations: items with the indices of their properties."""
    listed = b"".join(
        struct.pack(">IB" if version else ">HB", item, len(indices))
        + b"".join(struct.pack(">H" if wide else ">B", index) for index in indices)
        for item, indices in entries
    )
    return box(
        b"ipma", bytes((version, 0, 0, wide)), struct.pack(">I", len(entries) if count is None else count), listed
    )


def avif(
    *properties: bytes, primary: bytes = b"", associations: bytes = b"", streams: dict[int, bytes] | None = None
) -> bytes:
    """Return a file with items in AV1, of which the first is the primary one and has all properties, if left out."""
    streams = streams or {}
    listed = (extents(8, 8), *properties)
    entries = [box(b"infe", b"\2\0\0\0", struct.pack(">HH", item, 0), b"av01\0") for item in streams]

    def head(start: int) -> bytes:
        places, position = b"", start
        for item, stream in streams.items():
            places += struct.pack(">HHHII", item, 0, 1, position, len(stream))
            position += len(stream)
        return box(b"ftyp", b"avif\0\0\0\0avifmif1") + box(
            b"meta",
            bytes(4),
            primary or pitm(),
            box(b"iloc", bytes(4), b"\x44\0", struct.pack(">H", len(streams)), places),
            box(b"iinf", bytes(4), struct.pack(">H", len(entries)), *entries),
            box(b"iprp", box(b"ipco", *listed), associations or ipma((1, tuple(range(1, len(listed) + 1))))),
        )

    return head(len(head(0)) + 8) + box(b"mdat", *streams.values())
