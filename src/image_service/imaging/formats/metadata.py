"""Metadata that a file carries beside its picture, as the formats' readers report it."""

from typing import NamedTuple

from image_service.domain.image import MetadataKind


class Metadata(NamedTuple):
    """A kind of metadata, and where its data lies; start and end are equal where no single place holds it."""

    kind: MetadataKind
    start: int = 0
    end: int = 0
