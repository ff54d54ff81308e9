"""The package's metadata, and the development commands."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from image_service import __main__ as program
from image_service import __version__
from image_service.domain.image import DEFAULT_FORMATS

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


EXTRA_FORMATS = ("heic", "jxl")


@pytest.mark.parametrize("file", ["Dockerfile.api", "Dockerfile.worker"])
def test_one_build_argument_adds_formats_to_an_image(file: str) -> None:
    text = (ROOT / file).read_text().replace("\\\n", " ")
    stages = re.split(r"^FROM .*$", text, flags=re.MULTILINE)
    asking = [stage for stage in stages if "ARG EXTRA_FORMATS=\n" in stage]
    installing, running = asking
    (command,) = [line for line in installing.splitlines() if "EXTRA_FORMATS" in line and line.startswith("RUN")]
    assert re.search(
        r"--require-hashes --only-binary :all: --no-deps +-r \"requirements-\$format.txt\" \|\| exit;", command
    )
    (accepted,) = re.findall(r'^ENV ENABLED_FORMATS="(.*),\$\{EXTRA_FORMATS\}"$', running, re.MULTILINE)
    assert set(accepted.split(",")) == DEFAULT_FORMATS
    for name in EXTRA_FORMATS:
        assert f"requirements-{name}.txt" in installing.split("RUN pip")[0]
        assert f"!requirements-{name}.txt" in (ROOT / ".dockerignore").read_text().splitlines()


def test_compose_passes_the_build_argument_to_both_images() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("api", "worker"):
        assert services[name]["build"]["args"] == {"EXTRA_FORMATS": "${EXTRA_FORMATS:-}"}


@pytest.mark.parametrize("name", EXTRA_FORMATS)
def test_each_extra_format_has_requirements_of_its_decoder_alone(name: str) -> None:
    wanted = {Requirement(each).name for each in PROJECT["optional-dependencies"][name]}
    pinned = re.findall(r"^([a-z0-9-]+)==.*$", (ROOT / f"requirements-{name}.txt").read_text(), re.MULTILINE)
    assert set(pinned) == wanted


def test_requirements_match_the_metadata() -> None:
    subprocess.run([sys.executable, "scripts/check_requirements.py"], cwd=ROOT, check=True)
