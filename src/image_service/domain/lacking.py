"""Which outputs of its recipe an image lacks, and which of those that it has are of no use."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from image_service.domain.image import Image, ImageFormat
from image_service.domain.recipe import Output, Recipe, made_with
from image_service.domain.variants import is_worth_a_file


class File(Protocol):
    """What the rules need to know about the file of an output."""

    @property
    def content_type(self) -> str: ...  # noqa: D102 — see Thumbnail

    @property
    def width(self) -> int: ...  # noqa: D102

    @property
    def height(self) -> int: ...  # noqa: D102

    @property
    def size_bytes(self) -> int: ...  # noqa: D102


def lacking(recipe: Recipe, image: Image) -> tuple[Output, ...]:
    """Returns the outputs of the recipe that are to be made: those never made, and those that would differ now.

    What was left out stays so, unless the default output of its preset and pixel density is made again: whether the
    other formats are of use depends on that one.
    """
    made = {each.output: made_with(image.recipe, each.output, each.fingerprint) for each in image.thumbnails}
    wanted = {
        each.name
        for each in recipe.outputs
        if each.fingerprint not in (made.get(each.name), image.left_out.get(each.name))
    }
    renewed = {(each.preset, each.dpr) for each in recipe.outputs if each.default and each.name in wanted}
    wanted |= {
        each.name for each in recipe.outputs if (each.preset, each.dpr) in renewed and each.name in image.left_out
    }
    return tuple(each for each in recipe.outputs if each.name in wanted)


def superfluous(outputs: Sequence[Output], files: Mapping[str, File]) -> set[str]:
    """Returns the names of files that are of no use beside the others.

    These are files of a further format that are not smaller than that of the default format, or have the same format,
    and files for a higher pixel density that are as large as those for a lower one.

    Args:
        outputs: All outputs of a recipe.
        files: Files of some of them, by name.
    """
    defaults = {(each.preset, each.dpr): files.get(each.name) for each in outputs if each.default}
    return {
        each.name
        for each in outputs
        if (file := files.get(each.name)) is not None
        and (_is_no_smaller(each, file, defaults) or _is_no_larger(each, file, outputs, files))
    }


def _is_no_smaller(output: Output, file: File, defaults: Mapping[tuple[str, int], File | None]) -> bool:
    default = defaults.get((output.preset, output.dpr))
    if output.default or default is None:
        return False
    made, standard = ImageFormat.of(file.content_type), ImageFormat.of(default.content_type)
    return not is_worth_a_file(made, file.size_bytes, standard, default.size_bytes)


def _is_no_larger(output: Output, file: File, outputs: Sequence[Output], files: Mapping[str, File]) -> bool:
    lower = (files.get(each.name) for each in outputs if each.preset == output.preset and each.dpr < output.dpr)
    return any(each is not None and (each.width, each.height) == (file.width, file.height) for each in lower)
