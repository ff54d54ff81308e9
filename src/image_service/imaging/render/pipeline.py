"""Renders an image's thumbnails: a list of small steps over one piece of work."""

import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from PIL import Image, ImageFile

from image_service.domain.geometry import fit_inside, output_size
from image_service.domain.image import ImageFormat, ImageTraits, RenderedThumbnail, Rendering
from image_service.domain.recipe import Output, OutputFormat, Recipe
from image_service.imaging.decoders.jxl import JpegXl
from image_service.imaging.formats import find_metadata, read_colour, read_orientation, strip
from image_service.imaging.formats.colour import Signal
from image_service.imaging.formats.completeness import check_length
from image_service.imaging.formats.jpeg_scans import check_scans
from image_service.imaging.inspect import HeaderInspector, check_size
from image_service.imaging.limits import DEFAULT_LIMITS, RenderLimits
from image_service.imaging.render import decode, high_depth
from image_service.imaging.render.colour.conversion import to_srgb
from image_service.imaging.render.encoding import encode
from image_service.imaging.render.graphics import is_graphic
from image_service.imaging.render.pixel_modes import normalise
from image_service.imaging.render.placeholder import describe
from image_service.imaging.render.steps import Step
from image_service.imaging.render.stopwatch import Stopwatch
from image_service.imaging.render.timebox import run_within
from image_service.imaging.resizing import Box, resize, whole

_OPTIONAL_SECONDS: Final = 2.0
"""The most that one optional output may delay the others; half of what is left of the job, if that is less."""

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
    wanted: tuple[int, int] = (0, 0)
    """The size of the largest thumbnail; not upright."""
    targets: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The upright size of each output."""
    graphic: bool = False
    """Whether the picture is a graphic, where an output leaves the format open."""


def render(source: Path, recipe: Recipe, out: Path, limits: RenderLimits = DEFAULT_LIMITS) -> Rendering:
    """Make every output of the recipe from the file ``source``, as files in the folder ``out`` named like outputs.

    Thumbnails are upright, in sRGB, never enlarged, and carry no metadata; of an animation the first frame is taken.
    Optional outputs come last, and are left out where they fail or would take too long. No digest is computed.

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
    made = {}
    for output, picture in _pictures(work):
        watch.lap(Step.RESIZE, output.name)
        allowed = min(_OPTIONAL_SECONDS, (limits.wall_seconds - watch.elapsed) / 2)
        made[output.name] = _encode(picture, output, out, allowed, graphic=work.graphic)
        watch.lap(Step.ENCODE, output.name)
    placeholder, dominant_colour = describe(work.image)
    watch.lap(Step.PLACEHOLDER)
    return Rendering(
        width=work.size[0],
        height=work.size[1],
        thumbnails=tuple(each for output in recipe.outputs if (each := made[output.name])),
        traits=ImageTraits(placeholder=placeholder, dominant_colour=dominant_colour, metadata_removed=metadata),
        timings=watch.laps,
    )


def _check_size(work: _Work) -> None:
    """Check the size once more: a GIF frame may exceed its screen, and headers may disagree."""
    work.size = work.opened.size
    check_size(*work.size, work.limits.max_pixels)


def _scale_on_load(work: _Work) -> None:
    """Have the decoder scale the picture down while it decodes, where the format can and nothing is lost."""
    longest = max(max(output.width or 0, output.height or 0) for output in work.recipe.outputs)
    work.wanted = fit_inside(*work.size, longest, longest)
    work.box = decode.scale_on_load(work.opened, *work.wanted)


def _decode(work: _Work) -> None:
    """Decode the first frame."""
    expected = work.opened.size
    precise = high_depth.render(work.file, work.format, work.opened, work.signals, work.wanted)
    if precise:
        # Of decoders that know the orientation, it is already here.
        work.orientation = work.orientation or decode.orientation(work.opened)
        work.image, work.box, work.signals = precise, whole(precise), ()
        return
    work.image = decode.decode(work.opened, work.file, work.format)
    if work.image.size != expected:
        work.box = whole(work.image)


def _read_metadata(work: _Work) -> None:
    """Read the orientation that only the decoder knows, and compute the thumbnails' sizes."""
    if not work.orientation:
        work.orientation = decode.orientation(work.image)
    if work.orientation in _SIDES_SWAPPED:
        work.size = work.size[1], work.size[0]
    work.targets = {output.name: output_size(*work.size, output) for output in work.recipe.outputs}


def _normalise(work: _Work) -> None:
    """Convert to one of a few pixel modes; an invalid palette or transparent colour is first noticed here."""
    with decode.verdicts():
        work.image = normalise(work.image)


def _shrink(work: _Work) -> None:
    """Resize to the largest thumbnail before the costly steps; the picture is still oriented as stored."""
    width, height = max(work.targets.values())
    if work.orientation in _SIDES_SWAPPED:
        width, height = height, width
    work.image = resize(work.image, (width, height), work.box)


def _convert_colour(work: _Work) -> None:
    work.image = to_srgb(work.image, work.signals)


def _orient(work: _Work) -> None:
    transposition = _TRANSPOSITIONS.get(work.orientation)
    if transposition is not None:
        work.image = work.image.transpose(transposition)


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


def _pictures(work: _Work) -> Iterator[tuple[Output, Image.Image]]:
    """Yield each output with its picture, from the largest down, each made from the one before; optional ones last."""
    optional = []
    for output in sorted(work.recipe.outputs, key=lambda output: work.targets[output.name], reverse=True):
        picture = resize(work.image, work.targets[output.name])
        if output.optional:
            optional.append((output, picture))
        else:
            work.image = picture
            yield output, picture
    yield from optional


def _encode(
    image: Image.Image, output: Output, out: Path, seconds: float, *, graphic: bool
) -> RenderedThumbnail | None:
    """Write the thumbnail; None for an optional one that fails or takes more than so many seconds."""
    run = partial(encode, image, output, graphic=graphic)
    encoded = run_within(run, seconds) if output.optional else run()
    if encoded is None:
        return None
    path = out / output.name
    path.write_bytes(encoded.content)
    return RenderedThumbnail(
        output=output.name,
        path=path,
        content_type=encoded.format.content_type,
        width=image.width,
        height=image.height,
        size_bytes=len(encoded.content),
    )
