"""Makes the files of an image's outputs, and decides which are left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from PIL import Image

from image_service.domain.geometry import output_size
from image_service.domain.image import ImageFormat, ImageHeader, RenderedThumbnail
from image_service.domain.recipe import Animation, Output, Recipe
from image_service.domain.variants import can_only_be, is_worth_a_file, repeats_lower_density
from image_service.imaging.address_space import is_available
from image_service.imaging.formats import read_dimensions
from image_service.imaging.limits import RenderLimits
from image_service.imaging.render.animation import animate
from image_service.imaging.render.encoding import Encoded, encode
from image_service.imaging.render.fitting import Pictures
from image_service.imaging.render.steps import Step
from image_service.imaging.render.stopwatch import Stopwatch
from image_service.imaging.render.timebox import run_within

_OPTIONAL_SECONDS: Final = 2.0
"""The most that one optional output may delay required ones; half of what is left of the job, if that is less."""

_ENCODER_BYTES: Final = 40
"""What an encoder takes for a pixel at the most."""
_STILL: Final[tuple[Encoded, ...]] = ()

_Result = TypeVar("_Result")


class Animated(NamedTuple):
    """A file that may be an animation."""

    content: bytes
    """As it was uploaded, with all frames."""
    header: ImageHeader


@dataclass(slots=True, kw_only=True)
class Maker:
    """Makes the files of one image's outputs, in a folder."""

    recipe: Recipe
    pictures: Pictures
    graphic: bool
    """Whether the picture is a graphic, where an output leaves the format open."""
    animated: Animated | None
    """Where an output keeps animations."""
    out: Path
    limits: RenderLimits
    watch: Stopwatch
    _made: dict[str, RenderedThumbnail] = field(default_factory=dict)
    _defaults: dict[tuple[str, int], tuple[ImageFormat, int]] = field(default_factory=dict)
    """Format and bytes of what variants are compared with, by preset and pixel density."""

    def make(self) -> tuple[RenderedThumbnail, ...]:
        """Make every output that is worth a file; returns them in the order of the recipe.

        Required ones come first. Optional ones are left out where they fail or would take too long. Variants are
        compared with their default where that is an output of the recipe.
        """
        recipe, size = self.recipe, self.pictures.size
        wanted = [each for each in recipe.outputs if not repeats_lower_density(each, recipe, *size)]
        # An output in the default format comes before its variants.
        for group in self.pictures.groups(wanted):
            self._make_group(group)
        return tuple(self._made[each.name] for each in recipe.outputs if each.name in self._made)

    def _make_group(self, group: Sequence[Output]) -> None:
        """Make outputs that have the picture in common."""
        picture = None
        for output in group:
            if not self._is_possible(output):
                continue
            animation = self._run(output, partial(self._animation, output))
            if animation == _STILL:
                picture = picture or self._run(output, partial(self.pictures.make, output))
                self.watch.lap(Step.RESIZE, output.name)
                if picture and (encoded := self._run(output, partial(self._still, picture, output))):
                    self._keep(output, encoded, picture.size)
            elif animation:
                self._keep(output, animation[0], output_size(*self.pictures.size, output))
            self.watch.lap(Step.ENCODE, output.name)

    def _is_possible(self, output: Output) -> bool:
        """Return whether a variant can have another format than its default."""
        default = None if output.default else self._defaults.get((output.preset, output.dpr))
        return default is None or not can_only_be(output, default[0])

    def _run(self, output: Output, work: Callable[[], _Result]) -> _Result | None:
        """Return the result of work on an output; None for an optional one where it fails or takes too long."""
        if not output.optional:
            return work()
        seconds = (min(self.limits.wall_seconds, self.limits.cpu_seconds) - self.watch.elapsed) / 2
        # Alone, optional outputs delay no others.
        return run_within(work, min(_OPTIONAL_SECONDS, seconds) if self.recipe.required else seconds)

    def _animation(self, output: Output) -> tuple[Encoded, ...]:
        """Return the output as an animation, or nothing if it is a still picture."""
        if self.animated is None or output.animation is not Animation.KEEP:
            return _STILL
        part = self.pictures.part(output)
        encoded = animate(self.animated.content, self.animated.header, output, self.limits, crop=part)
        if encoded is None:
            return _STILL
        size = read_dimensions(bytes(encoded.content), encoded.format)
        return (encoded,) if size == output_size(*self.pictures.size, output) else _STILL

    def _still(self, picture: Image.Image, output: Output) -> Encoded:
        try:
            return encode(picture, output, graphic=self.graphic)
        except (OSError, RuntimeError, ValueError) as error:
            # Most encoders do not say so.
            if not is_available(picture.width * picture.height * _ENCODER_BYTES):
                raise MemoryError from error
            raise

    def _keep(self, output: Output, encoded: Encoded, size: tuple[int, int]) -> None:
        """Write the file, unless it is a variant that is not worth it."""
        place, made = (output.preset, output.dpr), (encoded.format, len(encoded.content))
        if output.default:
            self._defaults[place] = made
        elif place in self._defaults and not is_worth_a_file(*made, *self._defaults[place]):
            return
        path = self.out / output.name
        path.write_bytes(encoded.content)
        self._made[output.name] = RenderedThumbnail(
            output=output.name,
            path=path,
            content_type=encoded.format.content_type,
            width=size[0],
            height=size[1],
            size_bytes=len(encoded.content),
        )
