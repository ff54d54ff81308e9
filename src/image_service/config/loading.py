"""Reads the settings from the environment and explains invalid values."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from image_service.config.raw_values import misspelled
from image_service.config.recipes_file import InvalidRecipesError
from image_service.config.server_urls import EMBEDDED_QUEUE, SQLITE
from image_service.config.settings import Settings

# Error messages do not repeat these values, because they may contain passwords.
_SECRET: Final = frozenset({"database_url", "rabbitmq_url", "storage_url", "otel_exporter_otlp_endpoint"})


class ConfigError(Exception):
    """A setting has an invalid value. The message is one sentence that names the setting.

    Where RECIPES_FILE has several problems, each follows on a line of its own.
    """


def load_settings(**given: object) -> Settings:
    """Returns the settings from the environment; ``given`` values (command options) take precedence.

    The recipes are read and checked, too.

    Raises:
        ConfigError: a value is invalid, or RECIPES_FILE cannot be used.
    """
    settings = settings_without_recipes(**given)
    try:
        _ = settings.recipes
    except InvalidRecipesError as error:
        raise ConfigError(_of_file(settings.recipes_file, str(error))) from None
    return settings


def settings_without_recipes(**given: object) -> Settings:
    """Returns the same for what renders nothing: RECIPES_FILE is not read, and need not exist.

    Raises:
        ConfigError: a value is invalid.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # checked by pydantic at run time
    except ValidationError as error:
        raise ConfigError(_one_sentence(error)) from None


def standalone_settings(data: Path, environ: Mapping[str, str] = os.environ, **given: object) -> Settings:
    """Returns the settings for standalone use: defaults that need no server, in a data directory.

    Raises:
        ConfigError: a value is invalid.
    """
    data = data.absolute()
    own: dict[str, object] = {
        "database_url": f"{SQLITE}{data / 'images.db'}",
        "rabbitmq_url": EMBEDDED_QUEUE,
        "storage_path": data / "storage",
        "liveness_file": data / "worker.liveness",
        "api_host": "127.0.0.1",
        "allowed_hosts": (),  # a page whose host name leads to this machine must not reach what listens on loopback
    }
    unset = {name: value for name, value in own.items() if not environ.get(name.upper(), "").strip()}
    return load_settings(**{**unset, **{name: value for name, value in given.items() if value is not None}})


def doubts(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Returns sentences about what is probably a mistake in valid settings, for the log."""
    found = [
        f"{name} is not a setting, but {setting} is: correct its name, or ignore this if another program uses it."
        for name, setting in misspelled(environ, Settings.model_fields).items()
    ]
    url = settings.database_url.get_secret_value()
    if "channel_binding=require" in url and "sslmode=verify-full" not in url:
        found.append(
            "DATABASE_URL asks for channel_binding=require, which has no effect: "
            "use sslmode=verify-full, which also makes sure of the server."
        )
    if settings.events_exchange is not None and settings.public_url is None:
        found.append(
            "EVENTS_EXCHANGE is set and PUBLIC_URL is not: URLs in events have paths only. "
            "Set PUBLIC_URL to where clients reach the API."
        )
    return found


def _of_file(file: Path | None, problems: str) -> str:
    first, *others = problems.splitlines()
    return "\n".join([f"RECIPES_FILE={file} is not usable: {first}", *others]) + "."


def _one_sentence(error: ValidationError) -> str:
    return "; ".join(_problem(problem) for problem in error.errors(include_url=False)) + "."


def _problem(problem: Mapping[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    field = str(problem["loc"][0])
    setting = field.upper() if field in _SECRET else f"{field.upper()}={problem['input']}"
    return f"{setting} is not usable: {message[0].lower()}{message[1:]}"
