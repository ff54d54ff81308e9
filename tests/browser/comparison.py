"""Compares a thumbnail with what the browser shows of the original."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.chromium import Chromium
from image_service.domain.image import ImageFormat
from image_service.domain.recipe import DEFAULT_RECIPE, Recipe
from image_service.errors import InvalidImage
from image_service.imaging.limits import RenderLimits
from image_service.imaging.render.pipeline import render
from tests.browser.cases.case import CONTENT_TYPES, Case
from tests.golden.reference import Pixels, delta_e, srgb_to_lab

LARGEST: Final = Recipe(presets=DEFAULT_RECIPE.presets[-1:])
"""The thumbnail of 1200 pixels, which has the size of the small original."""
MEAN, P99 = 1.5, 6.0
"""The largest CIEDE2000 difference of a picture, as the mean and the 99th percentile of all pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A picture as both show it, over white; None where it is refused."""

    case: Case
    service: NDArray[np.uint8] | None
    browser: NDArray[np.uint8] | None

    @property
    def same_size(self) -> bool:
        """Whether both show it, in the same size, or neither does."""
        if self.service is None or self.browser is None:
            return self.service is self.browser
        return self.service.shape == self.browser.shape

    @property
    def differences(self) -> Pixels:
        """CIEDE2000 of every pixel; infinite if the sizes differ, and nothing if neither shows the picture."""
        if self.service is None or self.browser is None or not self.same_size:
            return np.array([0.0 if self.same_size else np.inf])
        return delta_e(srgb_to_lab(self.service / 255), srgb_to_lab(self.browser / 255)).ravel()

    @property
    def mean(self) -> float:
        """The mean difference."""
        return float(self.differences.mean())

    @property
    def p99(self) -> float:
        """The difference that one pixel in a hundred exceeds."""
        return float(np.quantile(self.differences, 0.99, method="inverted_cdf"))

    @property
    def alike(self) -> bool:
        """Whether the picture is the same to the eye."""
        return self.mean <= MEAN and self.p99 <= P99

    def __str__(self) -> str:
        verdict = "alike" if self.alike else "DIFFERENT" if not self.case.difference else "on purpose"
        pictures = f"{_summary(self.service)}  {_summary(self.browser)}"
        return f"{self.case.name:{_NAME}} {pictures}  {self.mean:6.2f} {self.p99:6.2f}  {verdict}"


_NAME: Final = 54
HEADING: Final = f"{'case':{_NAME}} {'service':>19}  {'Chromium':>19}  {'mean':>6} {'p99':>6}  verdict"


def _summary(picture: NDArray[np.uint8] | None) -> str:
    """Return the size and the mean colour."""
    if picture is None:
        return f"{'refused':>19}"
    colour = " ".join(f"{round(value):3}" for value in picture.mean(axis=(0, 1)))
    return f"{f'{picture.shape[1]}x{picture.shape[0]}':>7} {colour}"


def compare(case: Case, browser: Chromium, folder: Path) -> Comparison:
    """Render the case with the real pipeline in an existing folder, and have the browser show it."""
    content = case.make()
    if case.stand_in is None:
        shown = browser.show(content, CONTENT_TYPES[case.format])
    else:
        shown = browser.show(case.stand_in(), CONTENT_TYPES[ImageFormat.PNG])
    return Comparison(case=case, service=_render(content, folder), browser=None if shown is None else shown.canvas)


def _render(content: bytes, folder: Path) -> NDArray[np.uint8] | None:
    source, out = folder / "original", folder / "thumbnails"
    source.write_bytes(content)
    out.mkdir(exist_ok=True)
    try:
        (thumbnail,) = render(source, LARGEST, out, RenderLimits(formats=tuple(ImageFormat))).thumbnails
    except InvalidImage:
        return None
    with Image.open(io.BytesIO(thumbnail.path.read_bytes())) as image:
        over = Image.new("RGBA", image.size, "white")
        over.alpha_composite(image.convert("RGBA"))
    return np.asarray(over.convert("RGB"))
