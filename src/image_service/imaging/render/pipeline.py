"""Renders an image's thumbnails: a list of small steps over one piece of work."""

import io
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageFile

from image_service.domain.geometry import Box, needed_size
from image_service.domain.image import ImageFormat, ImageTraits, Rendering
from image_service.domain.recipe import Animation, Output, OutputFormat, Recipe
from image_service.imaging.decoders.jxl import JpegXl
from image_service.imaging.formats import find_metadata, read_colour, read_orientation, strip
from image_service.imaging.formats.colour import Signal
from image_service.imaging.formats.completeness import check_length
from image_service.imaging.formats.jpeg_scans import check_scans
from image_service.imaging.inspect import HeaderInspector, check_size
from image_service.imaging.limits import DEFAULT_LIMITS, RenderLimits
from image_service.imaging.render import decode, high_depth, linear
from image_service.imaging.render.colour.conversion import to_srgb
from image_service.imaging.render.fitting import Pictures
from image_service.imaging.render.graphics import is_graphic
from image_service.imaging.render.outputs import Animated, Maker
from image_service.imaging.render.pixel_modes import normalise
from image_service.imaging.render.placeholder import describe
from image_service.imaging.render.steps import Step
from image_service.imaging.render.stopwatch import Stopwatch
from image_service.imaging.resizing import resize, whole

_TRANSPOSITIONS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes an image with an EXIF orientation upright."""
_SIDES_SWAPPED: Final = frozenset({5, 6, 7, 8})
_ANIMATED: Final = frozenset({ImageFormat.GIF, ImageFormat.WEBP, ImageFormat.PNG})
"""Formats that may be an animation."""
_LIGHT_MODES: Final = frozenset({"L", "RGB", "RGBA"})
"""Pixel modes that can be reduced in linear light; inks cannot."""


@dataclass(slots=True)
class _Work:
    """One image on its way through the steps."""

    file: io.BytesIO
    format: ImageFormat
    recipe: Recipe
    limits: RenderLimits
    signals: tuple[Signal, ...]
    """What the file says about its colours."""
    orientation: int
    """As in EXIF; zero until the decoder has said it."""
    opened: ImageFile.ImageFile
    image: Image.Image
    """The picture after the steps so far."""
    box: Box = (0, 0, 0, 0)
    """The part of ``image`` that the picture fills; a scaled decode may round its edges up."""
    size: tuple[int, int] = (0, 0)
    """Of the original in pixels; upright once the orientation is known."""
    light: Image.Image | None = None
    """The same picture, reduced in linear light, where an output is."""
    graphic: bool = False
    """Whether the picture is a graphic, where an output leaves the format open."""


def render(source: Path, recipe: Recipe, out: Path, limits: RenderLimits = DEFAULT_LIMITS) -> Rendering:
    """Make every output of the recipe from the file ``source``, as files in the folder ``out`` named like outputs.

    Thumbnails are upright, in sRGB, and carry no metadata. Outputs that are not worth a file are left out. Optional
    ones come last, and are left out where they fail or would take too long. No digest is computed.

    Runs codecs in the calling process: ``RenderPool`` is the safe way to call it for untrusted files.

    Args:
        source: The original.
        recipe: The outputs to make.
        out: An existing folder.
        limits: Which images are accepted. ``RenderPool`` enforces the limits on the process itself; the time limit
            only decides here when optional outputs are given up.

    Raises:
        InvalidImage: the content is in none of the formats, damaged, or exceeds a limit.
        MemoryError: the process may not have as much memory as the image takes.
        OSError: ``source`` cannot be read, or ``out`` not be written to.
    """
    watch = Stopwatch()
    inspector = HeaderInspector(max_pixels=limits.max_pixels, max_memory=limits.memory_bytes, allowed=limits.formats)
    header = inspector.inspect(source)
    content = source.read_bytes()
    if header.format is ImageFormat.JPEG:
        check_scans(content, header.width * header.height)
    watch.lap(Step.INSPECT)
    metadata = find_metadata(content, header.format)
    signals, orientation = read_colour(content, header.format), read_orientation(content, header.format)
    watch.lap(Step.FIND_METADATA)
    animated = Animated(content, header) if _keeps_animation(recipe, header.format) else None
    content = strip(content, header.format)
    if not limits.truncated:
        check_length(content, header)
    file = io.BytesIO(content)
    # Where the stripped file is a copy, the decoder may need the memory of the other.
    del content
    watch.lap(Step.STRIP)
    with warnings.catch_warnings(), decode.tolerance(header.format, truncated=limits.truncated), file:
        # Codecs warn of flaws that do not stop them; they do not stop the pipeline either.
        warnings.simplefilter("ignore")
        opened = decode.open_image(file, header)
        if isinstance(opened, JpegXl):
            signals = opened.signals
        work = _Work(file, header.format, recipe, limits, signals, orientation, opened, opened)
        watch.lap(Step.OPEN)
        for step, run in _STEPS:
            run(work)
            watch.lap(step)
    pictures, size, graphic = Pictures(work.image, work.size, work.light), work.size, work.graphic
    # The original's pixels are no longer needed: encoders may need the memory.
    del work, opened
    maker = Maker(
        recipe=recipe,
        pictures=pictures,
        graphic=graphic,
        animated=animated,
        out=out,
        limits=limits,
        watch=watch,
    )
    thumbnails = maker.make()
    placeholder, dominant_colour = describe(pictures.smallest)
    watch.lap(Step.PLACEHOLDER)
    names = {each.output for each in thumbnails}
    return Rendering(
        width=size[0],
        height=size[1],
        thumbnails=thumbnails,
        traits=ImageTraits(placeholder=placeholder, dominant_colour=dominant_colour, metadata_removed=metadata),
        timings=watch.laps,
        left_out=tuple(each.name for each in recipe.outputs if each.name not in names),
    )


def _keeps_animation(recipe: Recipe, image_format: ImageFormat) -> bool:
    return image_format in _ANIMATED and any(each.animation is Animation.KEEP for each in recipe.outputs)


def _check_size(work: _Work) -> None:
    """Check the size once more: a GIF frame may exceed its screen, and headers may disagree."""
    work.size = work.opened.size
    check_size(*work.size, work.limits.max_pixels)


def _scale_on_load(work: _Work) -> None:
    """Have the decoder scale the picture down while it decodes, where the format can and nothing is lost."""
    outputs = work.recipe.outputs
    # Decoders average encoded values, which are no light.
    needed = work.size if any(each.linear for each in outputs) else _needed_as_stored(work, outputs)
    work.box = decode.scale_on_load(work.opened, *needed)


def _decode(work: _Work) -> None:
    """Decode the first frame."""
    expected = work.opened.size
    needed = _needed_as_stored(work, work.recipe.outputs)
    precise = high_depth.render(work.file, work.format, work.opened, work.signals, needed)
    if precise:
        # Of decoders that know the orientation, it is already here.
        work.orientation = work.orientation or decode.orientation(work.opened)
        work.image, work.box, work.signals = precise, whole(precise), ()
        return
    work.image = decode.decode(work.opened, work.file, work.format)
    if work.image.size != expected:
        work.box = whole(work.image)


def _read_metadata(work: _Work) -> None:
    """Read the orientation that only the decoder knows."""
    if not work.orientation:
        work.orientation = decode.orientation(work.image)


def _normalise(work: _Work) -> None:
    """Convert to one of a few pixel modes; an invalid palette or transparent colour is first noticed here."""
    with decode.verdicts():
        work.image = normalise(work.image)


def _shrink(work: _Work) -> None:
    """Reduce to what the outputs need before the costly steps; the picture is still oriented as stored."""
    whole, box = work.image, work.box
    outputs = [each for each in work.recipe.outputs if not each.linear]
    in_light = [each for each in work.recipe.outputs if each.linear]
    if in_light and whole.mode in _LIGHT_MODES:
        work.light = linear.resize(whole, _needed_as_stored(work, in_light), box)
    else:
        outputs = list(work.recipe.outputs)
    work.image = resize(whole, _needed_as_stored(work, outputs), box) if outputs else work.light or whole


def _convert_colour(work: _Work) -> None:
    _replace(work, lambda picture: to_srgb(picture, work.signals))


def _orient(work: _Work) -> None:
    """Turn upright, which makes the size that of the upright original too."""
    if work.orientation in _SIDES_SWAPPED:
        work.size = work.size[1], work.size[0]
    transposition = _TRANSPOSITIONS.get(work.orientation)
    if transposition is not None:
        _replace(work, lambda picture: picture.transpose(transposition))


def _classify(work: _Work) -> None:
    """Tell graphics from photographs by the largest thumbnail: in smaller ones, edges are blurred by resizing."""
    if any(output.format is OutputFormat.AUTO for output in work.recipe.outputs):
        work.graphic = is_graphic(work.image)


_STEPS: Final[tuple[tuple[Step, Callable[[_Work], None]], ...]] = (
    (Step.CHECK_SIZE, _check_size),
    (Step.SCALE_ON_LOAD, _scale_on_load),
    (Step.DECODE, _decode),
    (Step.READ_METADATA, _read_metadata),
    (Step.NORMALISE, _normalise),
    (Step.SHRINK, _shrink),
    (Step.CONVERT_COLOUR, _convert_colour),
    (Step.ORIENT, _orient),
    (Step.CLASSIFY, _classify),
)
"""The steps from an opened file to the picture that all thumbnails are made from."""


def _needed_as_stored(work: _Work, outputs: Iterable[Output]) -> tuple[int, int]:
    """Return the size that the picture can be reduced to without a loss for the outputs, oriented as stored."""
    width, height = work.size
    sizes = []
    # As long as only the decoder knows the orientation, both ways are possible.
    if work.orientation not in _SIDES_SWAPPED:
        sizes = [needed_size(width, height, output) for output in outputs]
    if work.orientation in {0, *_SIDES_SWAPPED}:
        sizes += [needed_size(height, width, output)[::-1] for output in outputs]
    return max(wide for wide, _ in sizes), max(high for _, high in sizes)


def _replace(work: _Work, change: Callable[[Image.Image], Image.Image]) -> None:
    """Change the picture, in both ways that it was reduced."""
    same = work.light is work.image
    work.image = change(work.image)
    if work.light:
        work.light = work.image if same else change(work.light)
