"""GIF: extension blocks (GIF89a §23 to §26), which may stand before, between and after the frames."""

from collections.abc import Iterator
from typing import Final

from image_service.domain.image import MetadataKind
from image_service.imaging.metadata.label import MAX_STEPS, Label

_SCREEN_LENGTH: Final = 13
_SCREEN_FLAGS: Final = 10
_DESCRIPTOR_LENGTH: Final = 10
_DESCRIPTOR_FLAGS: Final = 9
_HAS_COLOUR_TABLE: Final = 0x80
_COLOUR_TABLE_BITS: Final = 0x07
_APPLICATION_LABEL: Final = 14
_LABELS: Final = {
    b"!\x01": MetadataKind.TEXT,
    b"!\xfe": MetadataKind.COMMENT,
    b"!\xff\x0bXMP DataXMP": MetadataKind.XMP,
    b"!\xff\x0bICCRGBG1012": MetadataKind.ICC,
}


def labels(content: bytes) -> Iterator[Label]:
    """What the file's extensions are labelled as."""
    position, steps = _SCREEN_LENGTH + _colour_table(content, _SCREEN_FLAGS), 0
    while steps < MAX_STEPS:
        start, label = position, content[position : position + 2]
        if label[:1] == b",":
            position += _DESCRIPTOR_LENGTH + _colour_table(content, position + _DESCRIPTOR_FLAGS) + 1
        elif label[:1] == b"!":
            position += 2
        else:
            return
        while (length := _byte(content, position)) and steps < MAX_STEPS:
            position, steps = position + 1 + length, steps + 1
        position, steps = position + 1, steps + 1
        kind = _LABELS.get(label) or _LABELS.get(content[start : start + _APPLICATION_LABEL])
        if kind:
            yield kind, slice(start, position)


def _colour_table(content: bytes, at: int) -> int:
    """The length in bytes of the colour table that the flags there announce."""
    flags = _byte(content, at)
    return 3 << (1 + (flags & _COLOUR_TABLE_BITS)) if flags & _HAS_COLOUR_TABLE else 0


def _byte(content: bytes, at: int) -> int:
    """Zero beyond the end."""
    return int.from_bytes(content[at : at + 1])
