"""All settings, read from the environment and validated at startup."""

from image_service.config.loading import ConfigError, load_settings, standalone_settings
from image_service.config.settings import Settings
from image_service.config.types import EMBEDDED_QUEUE

__all__ = ["EMBEDDED_QUEUE", "ConfigError", "Settings", "load_settings", "standalone_settings"]
