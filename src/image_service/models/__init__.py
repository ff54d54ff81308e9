"""The tables. ``migrations/`` creates them; a test compares the two."""

from image_service.models.base import Base
from image_service.models.events import DeliveryAttemptRow, DeliveryRow, EventRow, PositionRow, WebhookRow
from image_service.models.tables import IdentityRow, ImageRow, RemovalRow, ThumbnailRow

__all__ = [
    "Base",
    "DeliveryAttemptRow",
    "DeliveryRow",
    "EventRow",
    "IdentityRow",
    "ImageRow",
    "PositionRow",
    "RemovalRow",
    "ThumbnailRow",
    "WebhookRow",
]
