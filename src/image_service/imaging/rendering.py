"""Makes an image's thumbnails: small steps, one after another, over one piece of work."""

import hashlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from PIL import Image, ImageFile

from image_service.domain.geometry import fit_inside
from image_service.domain.image import ImageFormat, ImageTraits, RenderedThumbnail, Rendering
from image_service.domain.recipe import Preset, Recipe
from image_service.imaging import decoding
from image_service.imaging.bounded import in_time
from image_service.imaging.colour import to_srgb
from image_service.imaging.encoding import encode, output_format
from image_service.imaging.essentials import essentials
from image_service.imaging.inspect import HeaderInspector, check_size
from image_service.imaging.limits import DEFAULT_LIMITS, RenderLimits
from image_service.imaging.metadata import find_metadata
from image_service.imaging.modes import normalise
from image_service.imaging.placeholder import describe
from image_service.imaging.resizing import Box, resize, whole
from image_service.imaging.scans import check_scans
from image_service.imaging.stopwatch import Stopwatch

_OPTIONAL_SECONDS: Final = 2.0
"""The most that one optional output may hold the others up; half of what is left of the job, if that is less."""

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


@dataclass(slots=True)
class _Work:
    """One image on its way through the steps."""

    file: BinaryIO
    recipe: Recipe
    limits: RenderLimits
    opened: ImageFile.ImageFile
    image: Image.Image
    """The picture as far as it has come."""
    box: Box = (0, 0, 0, 0)
    """The part of ``image`` that the picture fills; a scaled decode may round its edges up."""
    size: tuple[int, int] = (0, 0)
    """Of the original in pixels; upright once the orientation is known."""
    profile: bytes | None = None
    orientation: int = 1
    targets: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The upright size of each preset's thumbnail."""


def render(source: Path, recipe: Recipe, out: Path, limits: RenderLimits = DEFAULT_LIMITS) -> Rendering:
    """Make every preset of the recipe from the file ``source``, as files in the folder ``out`` named like presets.

    Thumbnails are upright, in sRGB, never enlarged, and carry no metadata; of an animation the first frame is taken.
    Optional presets come last, and are left out where they fail or would take too long.

    Runs codecs in the calling process: ``RenderPool`` is the safe way to call it for files from strangers.

    Args:
        source: The original.
        recipe: What to make of it.
        out: An existing folder.
        limits: Which images are accepted. Those on the process itself are ``RenderPool``'s business; its time is only
            looked at to give up optional presets.

    Raises:
        UnsupportedFormat: the content is in none of the formats.
        CorruptImage: the content is damaged.
        ImageTooLarge: more pixels or memory than is allowed, or more scans than anyone needs.
        MemoryError: the process may not have as much memory as the image takes.
        OSError: ``source`` cannot be read, or ``out`` not be written to.
    """
    watch = Stopwatch()
    inspector = HeaderInspector(max_pixels=limits.max_pixels, max_memory=limits.memory_bytes, allowed=limits.formats)
    header = inspector.inspect(source)
    content = source.read_bytes()
    if header.format is ImageFormat.JPEG:
        check_scans(content)
    watch.lap("inspect")
    metadata = find_metadata(content, header.format)
    watch.lap("metadata")
    file = io.BytesIO(essentials(content, header.format))
    # Where that is a copy, the decoder may need the memory.
    del content
    with warnings.catch_warnings(), decoding.tolerance(header.format, truncated=limits.truncated), file:
        # Codecs warn of flaws that they can live with; so can we.
        warnings.simplefilter("ignore")
        opened = decoding.open_image(file, header)
        work = _Work(file, recipe, limits, opened, opened)
        watch.lap("open")
        for step in (_check, _decode, _note, _normalise, _shrink, _convert_colour, _turn):
            step(work)
            watch.lap(step.__name__.strip("_"))
    made = {}
    for preset, picture in _pictures(work):
        watch.lap(f"resize {preset.name}")
        allowed = min(_OPTIONAL_SECONDS, (limits.wall_seconds - watch.elapsed) / 2)
        made[preset.name] = _encode(picture, preset, out, allowed)
        watch.lap(f"encode {preset.name}")
    placeholder, dominant_colour = describe(work.image)
    watch.lap("placeholder")
    return Rendering(
        width=work.size[0],
        height=work.size[1],
        thumbnails=tuple(each for preset in recipe.presets if (each := made[preset.name])),
        traits=ImageTraits(placeholder=placeholder, dominant_colour=dominant_colour, metadata_removed=metadata),
        timings=watch.laps,
    )


def _check(work: _Work) -> None:
    """Hold the size against the limit once more: a GIF frame may exceed its screen, and headers may disagree."""
    work.size = work.opened.size
    check_size(*work.size, work.limits.max_pixels)


def _decode(work: _Work) -> None:
    """Decode the first frame, at a fraction of its size where the format can and nothing is lost."""
    longest = max(max(preset.width, preset.height) for preset in work.recipe.presets)
    width, height = fit_inside(*work.size, longest, longest)
    work.box = decoding.shrink_on_load(work.opened, width, height)
    expected = work.opened.size
    work.image = decoding.decode(work.opened, work.file)
    if work.image.size != expected:
        work.box = whole(work.image)


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
    work.image = resize(work.image, (width, height), work.box)


def _convert_colour(work: _Work) -> None:
    work.image = to_srgb(work.image, work.profile)


def _turn(work: _Work) -> None:
    turn = _TURNS.get(work.orientation)
    if turn is not None:
        work.image = work.image.transpose(turn)


def _pictures(work: _Work) -> Iterator[tuple[Preset, Image.Image]]:
    """What each preset shows, from the largest down, each made from the one before; optional ones aside, and last."""
    optional = []
    for preset in sorted(work.recipe.presets, key=lambda preset: work.targets[preset.name], reverse=True):
        picture = resize(work.image, work.targets[preset.name])
        if preset.optional:
            optional.append((preset, picture))
        else:
            work.image = picture
            yield preset, picture
    yield from optional


def _encode(image: Image.Image, preset: Preset, out: Path, seconds: float) -> RenderedThumbnail | None:
    """The thumbnail, written; None for an optional one that fails or takes more than so many seconds."""
    content = in_time(lambda: encode(image, preset), seconds) if preset.optional else encode(image, preset)
    if content is None:
        return None
    path = out / preset.name
    path.write_bytes(content)
    return RenderedThumbnail(
        preset=preset.name,
        path=path,
        content_type=output_format(image, preset).content_type,
        width=image.width,
        height=image.height,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
