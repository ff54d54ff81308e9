"""What every process says of image formats and recipes at its start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from image_service.cli.run import _announce
from image_service.config.decoders import Formats

START = (
    "import sys; sys.modules['imagecodecs'] = None\n"
    "from image_service.config import load_settings\n"
    "from image_service.program.process import logging_to_stderr\n"
    "with logging_to_stderr(load_settings()): pass\n"
)


def test_log_names_formats_that_are_enabled_and_those_that_could_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENABLED_FORMATS", "png,heic")
    monkeypatch.setenv("LOG_FORMAT", "json")
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, check=True)  # noqa: S603 (this program)
    (line,) = [each for each in map(json.loads, done.stdout.splitlines()) if each["event"] == "image formats"]
    found = (line["enabled"], line["available"], line["not_installed"])
    assert found == ("heic,png", "avif,bmp,gif,jpeg,tiff,webp", "jxl")


def test_log_names_the_recipes_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "recipes.toml"
    file.write_text('[[recipes.small.presets]]\nname = "a"\nwidth = 1\n')
    monkeypatch.setenv("RECIPES_FILE", str(file))
    monkeypatch.setenv("LOG_FORMAT", "json")
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, check=True)  # noqa: S603 (this program)
    (line,) = [each for each in map(json.loads, done.stdout.splitlines()) if each["event"] == "recipes"]
    assert (line["file"], line["names"]) == (str(file), "default,small")


def test_standalone_shows_formats(capsys: pytest.CaptureFixture[str]) -> None:
    _announce(Formats("jpeg,png", "bmp,tiff", "jxl"), "http://localhost:8000")
    assert "  Formats: jpeg,png; ENABLED_FORMATS can add bmp,tiff; not installed: jxl\n" in capsys.readouterr().out
    _announce(Formats("jpeg", "", ""), "http://localhost:8000")
    assert "  Formats: jpeg\n" in capsys.readouterr().out
