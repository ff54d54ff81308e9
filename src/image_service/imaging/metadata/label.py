"""What the search yields, and how far it goes."""

from typing import Final, TypeAlias

from image_service.domain.image import MetadataKind

Label: TypeAlias = tuple[MetadataKind, slice]
"""A kind of metadata, and the place of it in the file."""

MAX_STEPS: Final = 10_000
"""Blocks looked at in one list of them: far more than ordinary files have, and over in some milliseconds."""
