"""Debian's Chromium, driven by Playwright: the pixels that a browser shows of a picture file.

    with Chromium() as browser:
        shown = browser.show(content, "image/png")

Pictures need no web server and no network: the address of one contains it. Playwright's own browsers are never
downloaded. The browser runs in a thread of its own, because Playwright's blocking interface leaves an event loop
running in the thread that uses it, where no other could run.
"""

import os
import shutil
from base64 import b64decode, b64encode
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import numpy as np
import psutil
from numpy.typing import NDArray
from playwright.sync_api import Browser, Error, Page, Playwright, sync_playwright

from harness.processes import ServerError

ADVICE: Final = (
    "`make test-servers` installs it (Debian: apt-get install chromium), or set TEST_CHROMIUM to the program of yours"
)
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
"""Programs in the order in which they are looked for; the tests are written for Debian's."""
_OPTIONS: Final = (
    "--force-color-profile=srgb",  # the colours of no monitor
    "--disable-gpu",  # the same pixels on every machine
    "--disable-dev-shm-usage",  # containers have 64 MB there
)
_START_SECONDS: Final = 120
_SHOW_SECONDS: Final = 60
"""The most that one picture may take: far more than it does on a busy machine."""
_CLOSE_SECONDS: Final = 60
_PAGE: Final = "<!doctype html><style>body { margin: 0 } img { display: block }</style><img>"

_SHOW: Final = """async (address) => {
  const picture = document.querySelector("img");
  picture.src = address;
  try {
    await picture.decode();
  } catch {
    return null;
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
  const context = canvas.getContext("2d", {colorSpace: "srgb", willReadFrequently: true});
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, 0, 0);
  const {data} = context.getImageData(0, 0, canvas.width, canvas.height, {colorSpace: "srgb"});
  let text = "";
  for (let at = 0; at < data.length; at += 0x8000) text += String.fromCharCode(...data.subarray(at, at + 0x8000));
  return {width: canvas.width, height: canvas.height, pixels: btoa(text)};
}"""
"""Shows the picture in the page, and returns what a canvas of 8 bits in sRGB has after it was drawn over white."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A picture as the browser shows it, over white."""

    canvas: NDArray[np.uint8]
    """Rows, columns and the three colours in sRGB, of the size that the browser gives the picture."""
    screenshot: bytes | None
    """The same as a PNG of the page, if it was asked for."""


class Chromium:
    """A running browser; ends with its ``with`` block, and with the process that started it."""

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chromium")
        self._drivers: set[psutil.Process] = set()
        try:
            self._run(self._start, _START_SECONDS)
        except BaseException:
            self._thread.shutdown(cancel_futures=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self._stop, _CLOSE_SECONDS)
        finally:
            self._thread.shutdown(cancel_futures=True)

    @property
    def version(self) -> str:
        """The browser's version."""
        return self._run(lambda: self._browser.version, _SHOW_SECONDS)

    def show(self, content: bytes, content_type: str, *, screenshot: bool = False) -> Shown | None:
        """Return the pixels of a picture file; None if the browser shows it as broken."""
        return self._run(lambda: self._show(content, content_type, screenshot=screenshot), _SHOW_SECONDS)

    def call(self, address: str, function: str, argument: object) -> Any:  # noqa: ANN401 — whatever JSON can say
        """Return what a JavaScript function returns in a page of this address, which may reach the network."""
        return self._run(lambda: self._call(address, function, argument), _SHOW_SECONDS)

    def _run(self, work: Callable[[], _T], seconds: float) -> _T:
        result: Future[_T] = self._thread.submit(work)
        try:
            return result.result(seconds)
        except TimeoutError:
            self._kill()  # which ends, with an error, whatever the thread waits for
            raise

    def _start(self) -> None:
        program = find()
        others = _drivers()
        self._playwright: Playwright = sync_playwright().start()
        self._drivers = _drivers() - others
        try:
            self._browser: Browser = self._playwright.chromium.launch(
                executable_path=program,
                args=list(_OPTIONS),
                # It refuses to run as root, and needs namespaces that containers forbid. All files are the tests' own.
                chromium_sandbox=False,
                timeout=_START_SECONDS * 1000,
            )
        except Error as error:
            self._playwright.stop()
            raise ServerError(f"Chromium did not start: {error}. {ADVICE}") from error
        self._page: Page = self._browser.new_page(
            viewport={"width": 640, "height": 480}, device_scale_factor=1, offline=True
        )
        self._page.set_default_timeout(_SHOW_SECONDS * 1000)
        self._page.set_content(_PAGE)

    def _stop(self) -> None:
        self._browser.close()
        self._playwright.stop()

    def _call(self, address: str, function: str, argument: object) -> Any:  # noqa: ANN401 — as above
        page = self._browser.new_page()
        try:
            page.goto(address)
            return page.evaluate(function, argument)
        finally:
            page.close()

    def _kill(self) -> None:
        for driver in self._drivers:
            with suppress(psutil.Error):
                for browser in driver.children():
                    browser.kill()

    def _show(self, content: bytes, content_type: str, *, screenshot: bool) -> Shown | None:
        address = f"data:{content_type};base64,{b64encode(content).decode()}"
        result: dict[str, Any] | None = self._page.evaluate(_SHOW, address)
        if result is None:
            return None
        pixels = np.frombuffer(b64decode(result["pixels"]), np.uint8).reshape(result["height"], result["width"], 4)
        taken = self._page.locator("img").screenshot(type="png") if screenshot else None
        return Shown(canvas=pixels[..., :3], screenshot=taken)


def _drivers() -> set[psutil.Process]:
    """Return the programs of Playwright's that this process has started, each the parent of a browser."""
    found = set()
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "run-driver" in child.cmdline():
                found.add(child)
    return found


def find() -> str:
    """Return the path of the program.

    Raises:
        ServerError: it is not installed.
    """
    named = os.environ.get("TEST_CHROMIUM")
    for name in (named,) if named else _NAMES:
        if path := shutil.which(name):
            return path
    raise ServerError(f"Chromium is not installed: {ADVICE}.")
