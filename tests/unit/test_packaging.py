"""The package's metadata fits its code."""

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

from image_service import __version__, cli

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_command_runs_the_programs_main_function() -> None:
    command = EntryPoint("image-service", PROJECT["scripts"]["image-service"], "console_scripts")
    assert command.load() is cli.main


def test_version_is_the_same_in_metadata_and_code() -> None:
    assert PROJECT["version"] == __version__
