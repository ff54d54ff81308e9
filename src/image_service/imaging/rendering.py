"""Makes an image's thumbnails: small steps, one after another, over one piece of work."""

import hashlib
import io
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from PIL import Image, ImageFile

from image_service.domain.geometry import fit_inside
from image_service.domain.image import ImageFormat, RenderedThumbnail, Rendering
from image_service.domain.recipe import Preset, Recipe
from image_service.imaging import decoding
from image_service.imaging.colour import to_srgb
from image_service.imaging.essentials import read_essentials
from image_service.imaging.inspect import DEFAULT_MAX_PIXELS, HeaderInspector, check_size
from image_service.imaging.modes import normalise
from image_service.imaging.scans import check_scans

_DRAFT_MARGIN: Final = 1.5
"""A scaled JPEG decode keeps this many times the wanted size: less would show after resizing, more is wasted."""
_REDUCING_GAP: Final = 2.0
"""Large reductions may box-filter down to this many times the target first (``Image.resize``)."""
_WEBP_METHOD: Final = 2
"""Twice as fast as the default of 4, for files 2 % larger."""

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image with an EXIF orientation upright."""
_SIDES_SWAPPED: Final = frozenset({5, 6, 7, 8})

_Box: TypeAlias = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels."""


@dataclass(slots=True)
class _Work:
    """One image on its way through the steps."""

    file: BinaryIO
    recipe: Recipe
    max_pixels: int
    opened: ImageFile.ImageFile
    image: Image.Image
    """The picture as far as it has come."""
    box: _Box = (0, 0, 0, 0)
    """The part of ``image`` that the picture fills; a scaled decode may round its edges up."""
    size: tuple[int, int] = (0, 0)
    """Of the original in pixels; upright once the orientation is known."""
    profile: bytes | None = None
    orientation: int = 1
    targets: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The upright size of each preset's thumbnail."""


def render(source: Path, recipe: Recipe, out: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Rendering:
    """Make every preset of the recipe from the file ``source``, as files in the folder ``out`` named like presets.

    Thumbnails are upright, in sRGB, never enlarged, and carry no metadata. Opaque images become JPEG, images with any
    transparency WebP; of an animation the first frame is taken.

    Runs codecs in the calling process: ``RenderPool`` is the safe way to call it for files from strangers.

    Raises:
        UnsupportedFormat: the content is no known format.
        CorruptImage: the content is damaged.
        ImageTooLarge: more than ``max_pixels`` pixels, or more scans than anyone needs.
        MemoryError: the process may not have as much memory as the image takes.
        OSError: ``source`` cannot be read, or ``out`` not be written to.
    """
    header = HeaderInspector(max_pixels=max_pixels).inspect(source)
    if header.format is ImageFormat.JPEG:
        check_scans(source)
    with warnings.catch_warnings(), read_essentials(source, header.format) as file:
        # Codecs warn of flaws that they can live with; so can we.
        warnings.simplefilter("ignore")
        opened = decoding.open_image(file, header)
        work = _Work(file, recipe, max_pixels, opened, opened)
        for step in (_check, _decode, _note, _normalise, _shrink, _convert_colour, _turn):
            step(work)
        return _encode_all(work, out)


def _check(work: _Work) -> None:
    """Hold the size against the limit once more: a GIF frame may exceed its screen, and headers may disagree."""
    work.size = work.opened.size
    check_size(*work.size, work.max_pixels)


def _decode(work: _Work) -> None:
    """Decode the first frame, at a fraction of its size where the format can and nothing is lost."""
    longest = max(max(preset.width, preset.height) for preset in work.recipe.presets)
    width, height = fit_inside(*work.size, longest, longest)
    work.box = decoding.shrink_on_load(work.opened, int(width * _DRAFT_MARGIN), int(height * _DRAFT_MARGIN))
    expected = work.opened.size
    work.image = decoding.decode(work.opened, work.file)
    if work.image.size != expected:
        work.box = _whole(work.image)


def _note(work: _Work) -> None:
    """Take what matters from the metadata, which may stand after the pixels, and forget the rest."""
    work.profile = work.image.info.get("icc_profile")
    work.orientation = decoding.orientation(work.image)
    if work.orientation in _SIDES_SWAPPED:
        work.size = work.size[1], work.size[0]
    work.targets = {preset.name: fit_inside(*work.size, preset.width, preset.height) for preset in work.recipe.presets}


def _normalise(work: _Work) -> None:
    # Palettes and transparent colours were taken over as they are: here it shows whether they make sense.
    with decoding.verdicts(work.image.width * work.image.height):
        work.image = normalise(work.image)


def _shrink(work: _Work) -> None:
    """Come down to the largest thumbnail before the costly steps; the picture still lies as stored."""
    width, height = max(work.targets.values())
    if work.orientation in _SIDES_SWAPPED:
        width, height = height, width
    work.image = _resize(work.image, (width, height), work.box)


def _convert_colour(work: _Work) -> None:
    work.image = to_srgb(work.image, work.profile)


def _turn(work: _Work) -> None:
    turn = _TURNS.get(work.orientation)
    if turn is not None:
        work.image = work.image.transpose(turn)


def _encode_all(work: _Work, out: Path) -> Rendering:
    """Write every thumbnail, from the largest down, each made from the one before."""
    made: dict[str, RenderedThumbnail] = {}
    for preset in sorted(work.recipe.presets, key=lambda preset: work.targets[preset.name], reverse=True):
        work.image = _resize(work.image, work.targets[preset.name], _whole(work.image))
        made[preset.name] = _encode(work.image, preset, out)
    return Rendering(
        width=work.size[0],
        height=work.size[1],
        thumbnails=tuple(made[preset.name] for preset in work.recipe.presets),
    )


def _resize(image: Image.Image, size: tuple[int, int], box: _Box) -> Image.Image:
    if image.size == size and box == _whole(image):
        return image
    if image.mode == "RGBA":
        # Premultiplied, so that no colour of invisible pixels bleeds in; Pillow would do it too, but forget the gap.
        return _resize(image.convert("RGBa"), size, box).convert("RGBA")
    return image.resize(size, Image.Resampling.BICUBIC, box, _REDUCING_GAP)


def _whole(image: Image.Image) -> _Box:
    return 0, 0, image.width, image.height


def _encode(image: Image.Image, preset: Preset, out: Path) -> RenderedThumbnail:
    # Encoders take comments, profiles and densities from here.
    image.info.clear()
    data = io.BytesIO()
    if image.mode == "RGBA":
        image.save(data, "WEBP", quality=preset.quality, method=_WEBP_METHOD)
        image_format = ImageFormat.WEBP
    else:
        image.save(data, "JPEG", quality=preset.quality)
        image_format = ImageFormat.JPEG
    path = out / preset.name
    path.write_bytes(data.getbuffer())
    return RenderedThumbnail(
        preset=preset.name,
        path=path,
        content_type=image_format.content_type,
        width=image.width,
        height=image.height,
        size_bytes=data.tell(),
        sha256=hashlib.sha256(data.getbuffer()).hexdigest(),
    )
