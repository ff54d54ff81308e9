"""Which outputs are not worth a file.

A preset's outputs show the same picture. A variant, which is one in another format than the default, is left out if it
is no smaller than the default of the same pixel density, or would have the same file format: clients gain nothing by
it. One of a higher pixel density is left out if it has the size of the next lower one: the original is too small.

Where only some outputs are made, they are compared with each other only. The worker that records them compares them
with those that the image has already.
"""

from image_service.domain.geometry import output_size
from image_service.domain.image import ImageFormat
from image_service.domain.recipe import Output, Recipe
from image_service.domain.wellformed import output_formats


def repeats_lower_density(output: Output, recipe: Recipe, width: int, height: int) -> bool:
    """Returns whether an output has the size in pixels of the next lower pixel density of its preset.

    Args:
        output: An output of the recipe.
        recipe: The outputs to make.
        width: Width of the upright image in pixels, at least 1.
        height: Height of the upright image in pixels, at least 1.
    """
    if output.dpr == 1:
        return False
    lower = [each for each in recipe.outputs if each.preset == output.preset and each.dpr < output.dpr]
    if not lower:
        return False
    below = max(lower, key=lambda each: each.dpr)
    return output_size(width, height, below) == output_size(width, height, output)


def is_worth_a_file(image_format: ImageFormat, size_bytes: int, default: ImageFormat, default_bytes: int) -> bool:
    """Returns whether a variant has another file format than the default, and fewer bytes."""
    return image_format is not default and size_bytes < default_bytes


def can_only_be(output: Output, image_format: ImageFormat) -> bool:
    """Returns whether an output has this file format, whatever the image."""
    return output_formats(output.format) == {image_format}
