"""The package's metadata, and the development commands."""

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from image_service import __version__, cli

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_command_runs_the_programs_main_function() -> None:
    command = EntryPoint("image-service", PROJECT["scripts"]["image-service"], "console_scripts")
    assert command.load() is cli.main


def test_version_is_the_same_in_metadata_and_code() -> None:
    assert PROJECT["version"] == __version__


@pytest.mark.parametrize(
    "command",
    [
        "pip install -r requirements.txt",
        "pip install -r requirements-dev.txt",
        "pytest tests/ -v",
        "alembic upgrade head",
        'alembic revision --autogenerate -m "Description"',
        "make lint",
        "make format",
        "make check",
        "make test",
    ],
)
def test_development_commands_are_documented_and_run_in_ci(command: str) -> None:
    for document in ("README.md", ".github/workflows/ci.yml"):
        lines = [line.strip().removeprefix("- run: ") for line in (ROOT / document).read_text().splitlines()]
        assert any(line.split("  #")[0].rstrip() == command for line in lines), document
