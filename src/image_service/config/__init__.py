"""All settings, read from the environment and validated at startup."""

from image_service.config.decoders import formats
from image_service.config.loading import (
    ConfigError,
    doubts,
    load_settings,
    settings_without_recipes,
    standalone_settings,
)
from image_service.config.recipe_toml import as_toml
from image_service.config.recipes_file import InvalidRecipesError, load_recipes
from image_service.config.server_urls import EMBEDDED_QUEUE
from image_service.config.settings import Settings

__all__ = [
    "EMBEDDED_QUEUE",
    "ConfigError",
    "InvalidRecipesError",
    "Settings",
    "as_toml",
    "doubts",
    "formats",
    "load_recipes",
    "load_settings",
    "settings_without_recipes",
    "standalone_settings",
]
