"""Fits the picture of an image to its outputs: resizes, cuts, pads and sharpens."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from PIL import Image, ImageColor

from image_service.domain.geometry import Box, crop_box, fit_of, output_size, pad_offset, scaled_size
from image_service.domain.recipe import Fit, Gravity, Output
from image_service.imaging.render import attention, linear, sharpening
from image_service.imaging.render.pixel_modes import normalise
from image_service.imaging.resizing import resize

_Shape: TypeAlias = tuple[object, ...]


class Pictures:
    """Makes the pictures of outputs from one of the whole image, upright and in sRGB.

    Those that show the whole image are made from one another, from the largest down: that takes less time, and the
    difference is invisible.
    """

    def __init__(self, whole: Image.Image, size: tuple[int, int], light: Image.Image | None = None) -> None:
        """Take what pictures are made from.

        Args:
            whole: The whole image in mode L, RGB or RGBA, as large as the outputs need.
            size: Width and height of the upright original in pixels.
            light: The same picture, reduced in linear light; it may be larger.
        """
        self._size = size
        # Those in linear light are made from one another, too.
        self._whole = {False: whole, True: light or whole}
        self._smallest = dict(self._whole)
        self._corners: dict[tuple[int, int], tuple[float, float]] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright original in pixels."""
        return self._size

    @property
    def smallest(self) -> Image.Image:
        """The smallest picture of the whole image that was made for a required output."""
        return min(self._smallest.values(), key=lambda picture: picture.size)

    def groups(self, outputs: Sequence[Output]) -> Iterator[list[Output]]:
        """Yield the outputs that have a picture in common together, the largest first and optional ones last."""
        alike: dict[_Shape, list[Output]] = {}
        for output in sorted(outputs, key=lambda output: scaled_size(*self._size, output), reverse=True):
            alike.setdefault(_shape(output), []).append(output)
        yield from sorted(alike.values(), key=lambda group: group[0].optional)

    def make(self, output: Output) -> Image.Image:
        """Return the picture of an output, which others of its group share."""
        fit = fit_of(output)
        picture = self._cut(output) if fit is Fit.COVER else self._scaled(output)
        if output.sharpen:
            picture = sharpening.sharpen(picture)
        if fit is Fit.PAD:
            picture = _padded(picture, output_size(*self._size, output), pad_offset(*self._size, output), output)
        return picture

    def part(self, output: Output) -> tuple[int, int, int, int] | None:
        """Return what ``cover`` keeps, in pixels of the whole image as scaled for the output; None for other fits."""
        if fit_of(output) is not Fit.COVER:
            return None
        scaled = scaled_size(*self._size, output)
        left, upper, right, lower = crop_box(*self._size, output, scaled, self._corner(output, scaled))
        return int(left), int(upper), int(right), int(lower)

    def _scaled(self, output: Output) -> Image.Image:
        size, whole, smallest = (
            scaled_size(*self._size, output),
            self._whole[output.linear],
            self._smallest[output.linear],
        )
        # An optional output is the same whether it is made with the others or afterwards.
        chained = not output.optional and size[0] <= smallest.width and size[1] <= smallest.height
        picture = _resized(smallest if chained else whole, size, output)
        if chained:
            self._smallest[output.linear] = picture
        return picture

    def _cut(self, output: Output) -> Image.Image:
        source = self._whole[output.linear]
        box = crop_box(*self._size, output, source.size, self._corner(output, source.size))
        size = output_size(*self._size, output)
        if box[2] - box[0] == size[0] and box[3] - box[1] == size[1]:
            # Between two pixels: nothing has to be resampled.
            part = source.crop((int(box[0]), int(box[1]), int(box[2]), int(box[3])))
        else:
            part = _resized(source, size, output, box)
        # What is transparent may have been cut off.
        return normalise(part)

    def _corner(self, output: Output, size: tuple[int, int]) -> tuple[float, float] | None:
        """Return the left and upper edge of the part with the most detail, if that is what to keep.

        It is looked for once for each shape.

        Args:
            output: With a fit of ``cover``.
            size: The size of a picture of the whole image, in whose pixels the edges are returned.
        """
        if output.gravity is not Gravity.ATTENTION:
            return None
        left, upper, right, lower = crop_box(*self._size, output)
        shape = round(right - left), round(lower - upper)
        if shape not in self._corners:
            source = self._whole[False]
            across, down = source.width / self._size[0], source.height / self._size[1]
            part = min(source.width, (right - left) * across), min(source.height, (lower - upper) * down)
            found = attention.focus(source, *part)
            self._corners[shape] = found[0] / across, found[1] / down
        corner = self._corners[shape]
        return corner[0] * size[0] / self._size[0], corner[1] * size[1] / self._size[1]


def _shape(output: Output) -> _Shape:
    """Return what outputs of the same picture have in common."""
    padding = output.background if output.fit is Fit.PAD else ""
    box = output.width, output.height, output.fit, output.gravity, padding
    return *box, output.enlarge, output.sharpen, output.linear, output.animation, output.optional


def _resized(image: Image.Image, size: tuple[int, int], output: Output, box: Box | None = None) -> Image.Image:
    return (linear.resize if output.linear else resize)(image, size, box)


def _padded(picture: Image.Image, size: tuple[int, int], offset: tuple[int, int], output: Output) -> Image.Image:
    """Return the picture in the middle of its background, which shows through transparent pixels too."""
    colour = ImageColor.getrgb(output.background)
    mode = "L" if picture.mode == "L" and len(set(colour)) == 1 else "RGB"
    canvas = Image.new(mode, size, colour[0] if mode == "L" else colour)
    canvas.paste(picture, offset, picture if picture.mode == "RGBA" else None)
    return canvas
