"""The package's metadata, and the development commands."""

import re
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from image_service import __main__ as program
from image_service import __version__

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_command_runs_the_programs_main_function() -> None:
    command = EntryPoint("image-service", PROJECT["scripts"]["image-service"], "console_scripts")
    assert command.load() is program.main


def test_version_is_the_same_in_metadata_and_code() -> None:
    assert PROJECT["version"] == __version__


BUILDS = ["Dockerfile.api", "Dockerfile.worker", "scripts/make-venv"]


@pytest.mark.parametrize("file", BUILDS)
def test_what_builds_the_program_is_installed_with_hashes_and_not_fetched_by_pip_itself(file: str) -> None:
    commands = (ROOT / file).read_text().replace("\\\n", " ").splitlines()
    builds = [line for line in commands if re.search(r"\bpip (wheel|install)\b.* \.$", line)]
    assert len(builds) == 1
    assert "--no-build-isolation" in builds[0]
    (backend,) = [line for line in commands if line.endswith("-r requirements-build.txt")]
    assert "--require-hashes" in backend
    assert commands.index(backend) < commands.index(builds[0])


def test_nothing_else_builds_the_program() -> None:
    files = [ROOT / "Makefile", *ROOT.glob("Dockerfile*"), *ROOT.glob("scripts/*"), *ROOT.glob(".github/workflows/*")]
    building = [
        file
        for file in files
        if file.is_file() and re.search(r"pip (wheel|install)\b.* \.$", file.read_text(), re.MULTILINE)
    ]
    assert sorted(str(file.relative_to(ROOT)) for file in building) == BUILDS


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
