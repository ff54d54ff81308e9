"""TIFF: the directories that describe its pages (TIFF 6.0 §2 and §8; BigTIFF), which EXIF is made of too."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from struct import Struct
from typing import Final, NamedTuple

from image_service.domain.image import MetadataKind
from image_service.errors import ImageTooLarge
from image_service.imaging.formats.colour import Signal, profile
from image_service.imaging.formats.content import Content, cut_off, damaged, take
from image_service.imaging.formats.metadata import Metadata
from image_service.imaging.limits import MAX_PROFILE_BYTES

_MAX_ENTRIES: Final = 4096
"""Entries of a directory that are read."""
_WIDTH, _HEIGHT = 256, 257
_OFFSETS: Final = frozenset({273, 324})
"""StripOffsets and TileOffsets, which have a value for each strip or tile."""
_MAX_PIECES: Final = 1 << 18
"""50 megapixels in the smallest legal tiles are 200,000 of them, and each costs the decoder a step."""
_NUMBERS: Final = {3: "H", 4: "I", 16: "Q"}
"""SHORT, LONG and BigTIFF's LONG8, by the number of the type."""

_ORIENTATION: Final = 274
_ORIENTATIONS: Final = range(1, 9)
_SHORT: Final = 3

_EXIF_DIRECTORY: Final = 0x8769
_GPS: Final = 0x8825
_PROFILE: Final = 0x8773
_GPS_VERSION: Final = 0
_KINDS: Final = {
    0x010E: MetadataKind.EXIF,  # ImageDescription
    0x010F: MetadataKind.EXIF,  # Make
    0x0110: MetadataKind.EXIF,  # Model
    0x0132: MetadataKind.EXIF,  # DateTime
    0x013B: MetadataKind.EXIF,  # Artist
    0x02BC: MetadataKind.XMP,
    0x8298: MetadataKind.EXIF,  # Copyright
    0x83BB: MetadataKind.IPTC,
    _EXIF_DIRECTORY: MetadataKind.EXIF,
    _PROFILE: MetadataKind.ICC,
}

_STRUCTURE: Final = {256, 257, 258, 259, 262, 266, 274, 277, 284, 332, 338, 339}
"""Size, kind of samples, compression, orientation, channels."""
_PIECES: Final = {273, 278, 279, 322, 323, 324, 325}
"""Where the strips or tiles are."""
_CODECS: Final = {292, 293, 317, 347, *range(512, 522)}
"""Parameters of the fax, differencing and JPEG decoders."""
_COLOURS: Final = {320, 529, 530, 531, 532}
"""Palette, and the colours of YCbCr."""
_NEEDED: Final = frozenset(_STRUCTURE | _PIECES | _CODECS | _COLOURS)


@dataclass(frozen=True, slots=True)
class Layout:
    """The structures of a file, by its byte order and variant."""

    order: str
    """``<`` or ``>``: the byte order of the whole file, as in ``struct``."""
    start: Struct
    """The beginning of the file, which ends with the position of the first directory."""
    count: Struct
    """How many entries follow."""
    entry: Struct
    """Tag, type, number of values, and a field with them or with their position."""
    position: Struct
    """A position in the file: of the next page's directory, or in the field of an entry."""


class Entry(NamedTuple):
    """An entry of a directory."""

    tag: int
    kind: int
    """The type of its values."""
    values: int
    """How many there are."""
    field: bytes
    """The values themselves, or their position."""


class Directory(NamedTuple):
    """A directory as far as the file holds it."""

    announced: int
    """How many entries it says it has."""
    entries: tuple[Entry, ...]
    """Those that are there, at most ``_MAX_ENTRIES``."""
    next: int
    """Where the directory of the next page is; zero if there is none."""


def _classic(order: str) -> Layout:
    return Layout(order, Struct(f"{order}4xI"), Struct(f"{order}H"), Struct(f"{order}HHI4s"), Struct(f"{order}I"))


def _big(order: str) -> Layout:
    return Layout(order, Struct(f"{order}8xQ"), Struct(f"{order}Q"), Struct(f"{order}HHQ8s"), Struct(f"{order}Q"))


LAYOUTS: Final = {b"II*\0": _classic("<"), b"MM\0*": _classic(">"), b"II+\0": _big("<"), b"MM\0+": _big(">")}
"""By the first four bytes of the file."""
_BY_ORDER: Final = {b"II": LAYOUTS[b"II*\0"], b"MM": LAYOUTS[b"MM\0*"]}
"""By the first two bytes: EXIF is read whatever its version says."""


def first_directory(content: Content, layout: Layout) -> int:
    """Return where the directory of the first page is.

    Raises:
        CorruptImage: the file ends before it says so.
    """
    (position,) = layout.start.unpack(take(content, 0, layout.start.size))
    return int(position)


def read_directory(content: Content, layout: Layout, position: int) -> Directory:
    """Return the directory at ``position``; an empty one where the file ends before its count."""
    field = content[position : position + layout.count.size]
    if len(field) < layout.count.size:
        return Directory(0, (), 0)
    (count,) = layout.count.unpack(field)
    start, size = position + layout.count.size, layout.entry.size
    table = content[start : start + min(count, _MAX_ENTRIES) * size]
    entries = layout.entry.iter_unpack(table[: len(table) // size * size])
    following = content[start + count * size : start + count * size + layout.position.size]
    (next_page,) = layout.position.unpack(following) if len(following) == layout.position.size else (0,)
    return Directory(count, tuple(Entry(*entry) for entry in entries), next_page)


def dimensions(content: Content) -> tuple[int, int]:
    """Return width and height in pixels of the first page; the others are never read.

    Raises:
        CorruptImage: its directory is incomplete, or does not give the size in plain numbers.
        ImageTooLarge: it consists of too many strips or tiles.
    """
    layout = LAYOUTS[take(content, 0, 4)]
    position = first_directory(content, layout)
    directory = read_directory(content, layout, position)
    if directory.announced > _MAX_ENTRIES:
        raise damaged("TIFF", "its directory has too many entries")
    size: dict[int, int] = {}
    for tag, kind, count, field in directory.entries:
        if tag in _OFFSETS and count > _MAX_PIECES:
            raise ImageTooLarge(
                f"The TIFF image is cut into {count:,} pieces, which take too long to put together. Export the image "
                "again and upload the new file."
            )
        if tag in {_WIDTH, _HEIGHT} and count == 1 and kind in _NUMBERS:
            # The first of its kind counts, as it does for decoders.
            size.setdefault(tag, struct.unpack_from(layout.order + _NUMBERS[kind], field)[0])
    if len(directory.entries) < directory.announced or position + layout.count.size > len(content):
        raise cut_off()
    if len(size) < len((_WIDTH, _HEIGHT)):
        raise damaged("TIFF", "it does not say how large the image is")
    return size[_WIDTH], size[_HEIGHT]


def metadata(content: bytes) -> Iterator[Metadata]:
    """Yield the metadata that the first directory of a TIFF file or an EXIF block names.

    A directory that follows it describes a thumbnail, or in a TIFF file another page.
    """
    layout = LAYOUTS.get(content[:4]) or _BY_ORDER.get(content[:2])
    if layout is None or len(content) < layout.start.size:
        return
    directory = read_directory(content, layout, first_directory(content, layout))
    tags = {entry.tag: entry for entry in directory.entries}
    yield from (Metadata(kind) for tag, kind in _KINDS.items() if tag in tags)
    if _GPS in tags:
        (position,) = layout.position.unpack(tags[_GPS].field)
        # Many cameras write an empty directory, with no more than the version in it.
        if {entry.tag for entry in read_directory(content, layout, position).entries} - {_GPS_VERSION}:
            yield Metadata(MetadataKind.GPS)
    if directory.next and read_directory(content, layout, directory.next).announced:
        yield Metadata(MetadataKind.THUMBNAIL)


def colour(content: bytes) -> Iterator[Signal]:
    """Yield the profile that the first directory names."""
    layout = LAYOUTS[content[:4]]
    for tag, _, count, field in read_directory(content, layout, first_directory(content, layout)).entries:
        if tag == _PROFILE:
            (position,) = layout.position.unpack(field)
            if found := profile(content[position : position + min(count, MAX_PROFILE_BYTES + 1)]):
                yield found
            return


def orientation(exif: bytes) -> int:
    """Return the orientation in an EXIF block, from 1 to 8 (EXIF 2.32 §4.6.4); 1 where it gives no valid one.

    As in browsers, it has to be a single SHORT in the first directory or in that of EXIF's own tags.
    """
    layout = LAYOUTS.get(exif[:4])
    if layout is None or layout not in _BY_ORDER.values() or len(exif) < layout.start.size:
        return 1
    directory = read_directory(exif, layout, first_directory(exif, layout))
    own_tags = next((entry.field for entry in directory.entries if entry.tag == _EXIF_DIRECTORY), None)
    directories = [directory]
    if own_tags is not None:
        directories.append(read_directory(exif, layout, layout.position.unpack(own_tags)[0]))
    for tag, kind, count, field in chain.from_iterable(each.entries for each in directories):
        if tag == _ORIENTATION and kind == _SHORT and count == 1:
            (value,) = struct.unpack_from(layout.order + _NUMBERS[kind], field)
            if value in _ORIENTATIONS:
                return int(value)
    return 1


def strip(content: bytes) -> bytes:
    """Return the file with a directory of what the picture of its first page needs, and nothing else.

    The new directory stands where the old one stood, and is no longer: all else keeps its place.
    """
    layout = LAYOUTS[content[:4]]
    position = first_directory(content, layout)
    kept: dict[int, Entry] = {}
    for entry in read_directory(content, layout, position).entries:
        if entry.tag in _NEEDED:
            kept.setdefault(entry.tag, entry)
    entries = (layout.entry.pack(*entry) for entry in kept.values())
    directory = b"".join((layout.count.pack(len(kept)), *entries, layout.position.pack(0)))
    return b"".join((content[:position], directory, content[position + len(directory) :]))
