"""The input pictures: mosaics of real photographs at their own resolution."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from PIL import Image

PACKAGES = ("lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04")
"""Debian packages with photographs under free licences, as their cameras took them."""
PHOTOGRAPHS = (
    "life_by_Aitzol_Berasategi.jpg",
    "picosdeeuropa_by_Aitzol_Berasategi.jpg",
    "Kleiber_by_Lukas_Baubkus.jpg",
    "Dragonfly_by_Bolly.jpg",
    "aitzgorri_by_Aitzol_Berasategi.jpg",
    "sunset_by_Aitzol_Berasategi.jpg",
    "greentock_by_Peter_Nerlich.jpg",
    "seeding_by_Clements_Engelhardt.jpg",
)
TILE = (2000, 1500)
QUALITY = 90


@dataclass(frozen=True, slots=True)
class Input:
    """A picture to measure with."""

    name: str
    size: tuple[int, int]
    extension: str
    save: Callable[[Image.Image, Path], None]


def _save(image: Image.Image, path: Path, **options: object) -> None:
    image.save(path, **options)  # type: ignore[arg-type]  # the encoders' options


def _save_heic(image: Image.Image, path: Path) -> None:
    import_module("pillow_heif").register_heif_opener()
    image.save(path, quality=60)


_SMALL, _MEDIUM, _LARGE, _HUGE = (1280, 800), (4000, 3000), (6000, 4000), (8000, 6000)

INPUTS = (
    Input("1 MP JPEG", _SMALL, "jpg", partial(_save, quality=QUALITY)),
    Input("12 MP JPEG", _MEDIUM, "jpg", partial(_save, quality=QUALITY)),
    Input("12 MP progressive", _MEDIUM, "jpg", partial(_save, quality=QUALITY, progressive=True)),
    Input("24 MP JPEG", _LARGE, "jpg", partial(_save, quality=QUALITY)),
    Input("48 MP JPEG", _HUGE, "jpg", partial(_save, quality=QUALITY)),
    Input("12 MP PNG", _MEDIUM, "png", _save),
    Input("12 MP WebP", _MEDIUM, "webp", partial(_save, quality=80)),
    Input("12 MP AVIF", _MEDIUM, "avif", partial(_save, quality=70, speed=8)),
    Input("12 MP HEIC", _MEDIUM, "heic", _save_heic),
)


def make(wanted: Input, folder: Path, photographs: Path | None) -> Path:
    """Return the file of one input, made unless it exists.

    Args:
        wanted: The input.
        folder: The folder for it.
        photographs: JPEG photographs to use instead of the packages'.
    """
    key = json.dumps([wanted.name, wanted.size, str(photographs or PACKAGES)])
    path = folder / f"{wanted.name.replace(' ', '-').lower()}.{wanted.extension}"
    note = path.with_suffix(".made-from")
    if not note.exists() or note.read_text(encoding="utf-8") != key:
        folder.mkdir(parents=True, exist_ok=True)
        wanted.save(_mosaic(wanted.size, _photographs(folder, photographs)), path)
        note.write_text(key, encoding="utf-8")
    return path


def _mosaic(size: tuple[int, int], files: list[Path]) -> Image.Image:
    """Fill the size with tiles of the photographs, none of them resized."""
    mosaic, tiles = Image.new("RGB", size), _tiles(files)
    for top in range(0, size[1], TILE[1]):
        for left in range(0, size[0], TILE[0]):
            mosaic.paste(next(tiles), (left, top))
    return mosaic


def _tiles(files: list[Path]) -> Iterator[Image.Image]:
    """Yield tiles that do not overlap: one of every photograph, then another of those large enough, and so on."""
    images = [Image.open(file).convert("RGB") for file in files]
    for turn in range(max(_across(image) * _down(image) for image in images)):
        for image in images:
            if turn < _across(image) * _down(image):
                left, top = turn % _across(image) * TILE[0], turn // _across(image) * TILE[1]
                yield image.crop((left, top, left + TILE[0], top + TILE[1]))
    sys.exit("The photographs are too small or too few for the largest picture.")


def _across(image: Image.Image) -> int:
    return image.width // TILE[0]


def _down(image: Image.Image) -> int:
    return image.height // TILE[1]


def _photographs(folder: Path, own: Path | None) -> list[Path]:
    if own is not None:
        return sorted(path for path in own.iterdir() if path.suffix.lower() in {".jpg", ".jpeg"})
    unpacked = folder / "photographs"
    if not unpacked.exists():
        _unpack(unpacked)
    found = {path.name: path for path in unpacked.rglob("*.jpg")}
    return [found[name] for name in PHOTOGRAPHS]


def _unpack(target: Path) -> None:
    """Download the packages and unpack them; nothing is installed."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        sys.exit(f"The photographs come from the Debian packages {', '.join(PACKAGES)}: pass your own folder.")
    with tempfile.TemporaryDirectory() as scratch:
        if subprocess.run(["apt-get", "download", "-qq", *PACKAGES], cwd=scratch, check=False).returncode:
            if os.geteuid():
                sys.exit("apt-get does not find the packages with the photographs: run apt-get update as root.")
            subprocess.run(["apt-get", "update", "-qq"], check=True)
            subprocess.run(["apt-get", "download", "-qq", *PACKAGES], cwd=scratch, check=True)
        for package in Path(scratch).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(target)], check=True)
