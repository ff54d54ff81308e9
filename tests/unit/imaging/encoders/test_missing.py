"""Outputs whose encoder is not installed are known before one is to be made."""

import subprocess
import sys

import pytest

from image_service.domain.recipe import OutputFormat
from image_service.imaging import encoders
from image_service.imaging.encoders import explain_missing_encoder


@pytest.mark.parametrize("output_format", OutputFormat)
def test_nothing_is_missing_here(output_format: OutputFormat) -> None:
    assert explain_missing_encoder(output_format) is None


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"PIL"}
    monkeypatch.setattr(encoders, "find_spec", lambda name: name if name in installed else None)
    missing = {each: text for each in OutputFormat if (text := explain_missing_encoder(each))}
    assert set(missing) == {OutputFormat.JXL, OutputFormat.AVIF}
    assert "JPEG XL outputs need" in missing[OutputFormat.JXL]
    assert "image-processing-service[jxl]" in missing[OutputFormat.JXL]
    assert "AVIF outputs need" in missing[OutputFormat.AVIF]
    installed.clear()
    assert explain_missing_encoder(OutputFormat.AVIF) is None


LOADED = """
import sys
from image_service.domain.recipe import OutputFormat
from image_service.imaging.encoders import explain_missing_encoder
for each in OutputFormat:
    explain_missing_encoder(each)
print(*(name for name in ("PIL.Image", "imagecodecs", "numpy") if name in sys.modules))
"""


def test_loads_no_codec() -> None:
    command = [sys.executable, "-c", LOADED]
    assert not subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603  (fixed)
