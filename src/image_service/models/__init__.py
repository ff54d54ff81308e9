"""The tables. ``migrations/`` makes them; a test holds that both agree."""

from image_service.models.base import Base
from image_service.models.tables import IdentityRow, ImageRow, RemovalRow, ThumbnailRow

__all__ = ["Base", "IdentityRow", "ImageRow", "RemovalRow", "ThumbnailRow"]
