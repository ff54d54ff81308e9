"""The browser, the comparison and the pictures themselves."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from playwright.sync_api import Error

from harness import chromium as harness
from harness.chromium import Chromium
from harness.images import encoded
from harness.processes import ServerError, wait_until
from image_service.domain.image import ImageFormat
from tests.browser.cases import jpeg, png
from tests.browser.cases.case import Case
from tests.browser.comparison import MEAN, P99, Comparison, compare
from tests.browser.pictures import HEIGHT, WIDTH, colours, opacity, to_image

_HOLDS_A_BROWSER = """
from harness.chromium import Chromium

with Chromium():
    print("ready", flush=True)
    input()
"""


def of(service: np.ndarray | None, browser: np.ndarray | None) -> Comparison:
    case = Case(format=ImageFormat.PNG, mode="rgb", depth=8, signal="none", make=bytes)
    return Comparison(case=case, service=service, browser=browser)


PICTURE = np.asarray(to_image(colours()))


def test_shows_pixels_as_they_are(chromium: Chromium) -> None:
    shown = chromium.show(png.rgb(b"", 8), "image/png")
    assert shown is not None
    assert (shown.canvas == PICTURE).all()


def test_shows_transparency_over_white(chromium: Chromium) -> None:
    shown = chromium.show(png.rgb(b"", 8, alpha=True), "image/png")
    assert shown is not None
    wanted = colours() * opacity()[..., None] + 1 - opacity()[..., None]
    assert np.abs(shown.canvas / 255 - wanted).max() <= 2 / 255


def test_the_canvas_has_what_the_page_shows(chromium: Chromium) -> None:
    for chunks in (b"", png.gama(1.0), png.CICP_P3, png.cicp(9, 16, 0, 1)):
        shown = chromium.show(png.rgb(chunks, 8), "image/png", screenshot=True)
        assert shown is not None
        assert shown.screenshot is not None
        with Image.open(io.BytesIO(shown.screenshot)) as page:
            assert np.abs(np.asarray(page.convert("RGB")).astype(int) - shown.canvas).max() <= 1


def test_shows_no_broken_file(chromium: Chromium) -> None:
    assert chromium.show(b"no picture", "image/png") is None
    assert chromium.show(png.rgb(b"", 8), "image/png") is not None


def test_says_how_to_install_the_browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("TEST_CHROMIUM", raising=False)
    with pytest.raises(ServerError, match="apt-get install chromium"):
        harness.find()
    with pytest.raises(ServerError, match="make test-servers"), Chromium():
        pass


def test_uses_the_browser_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "browser"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("TEST_CHROMIUM", str(program))
    assert harness.find() == str(program)
    with pytest.raises(ServerError, match="did not start"), Chromium():
        pass


def test_a_picture_that_never_appears_ends_the_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    with Chromium() as browser:
        monkeypatch.setattr(harness, "_SHOW", "() => new Promise(() => {})")
        monkeypatch.setattr(harness, "_SHOW_SECONDS", 0.5)
        with pytest.raises(TimeoutError):
            browser.show(png.rgb(b"", 8), "image/png")
        with pytest.raises(Error):
            browser.show(png.rgb(b"", 8), "image/png")
        monkeypatch.undo()


def test_ends_with_the_process_that_started_it() -> None:
    program = [sys.executable, "-c", _HOLDS_A_BROWSER]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as holder:  # noqa: S603  (this file's)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        family = psutil.Process(holder.pid).children(recursive=True)
        assert len(family) > 2
        holder.kill()
    assert wait_until(lambda: not any(each.is_running() for each in family), timeout=30)


def test_finds_equal_pictures_alike() -> None:
    found = of(PICTURE, PICTURE)
    assert (found.mean, found.p99, found.alike) == (0, 0, True)


def test_finds_a_slight_change_of_all_colours() -> None:
    darker = of((PICTURE * 0.9).astype(np.uint8), PICTURE)
    assert darker.mean > MEAN
    assert not darker.alike


def test_finds_a_strong_change_of_few_pixels() -> None:
    spotted = PICTURE.copy()
    spotted[:20, :20] = 255
    found = of(spotted, PICTURE)
    assert found.p99 > P99
    assert not found.alike


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_finds_turned_pictures(turns: int, *, mirrored: bool) -> None:
    turned = np.rot90(PICTURE[:, ::-1] if mirrored else PICTURE, turns)
    assert not of(turned, PICTURE).alike


def test_finds_refusals() -> None:
    assert not of(None, PICTURE).alike
    assert not of(PICTURE, None).alike
    assert of(None, None).alike
    assert "refused" in str(of(None, PICTURE))


def test_the_thumbnails_own_losses_stay_far_below_the_limits(chromium: Chromium, tmp_path: Path) -> None:
    for make in (lambda: png.rgb(b"", 8), lambda: jpeg.rgb(b"")):
        found = compare(Case(format=ImageFormat.PNG, mode="rgb", depth=8, signal="none", make=make), chromium, tmp_path)
        assert found.mean < MEAN * 0.7
        assert found.p99 < P99 * 0.7


def test_pictures_have_their_size() -> None:
    assert PICTURE.shape == (HEIGHT, WIDTH, 3)
    assert len(encoded(to_image(colours()), "PNG")) < 50_000
