"""An image as the API describes it."""

from collections.abc import Iterator, Mapping

from image_service.api.markup import markup_of
from image_service.api.schemas import ImageOutput, ImageProblem, ImageStatus
from image_service.api.urls import Urls
from image_service.domain.image import Image, Thumbnail
from image_service.domain.outputs import parse_output_name
from image_service.domain.recipe import DEFAULT_NAME, OutputFormat, Recipe, Recipes


def image_status(image: Image, urls: Urls, recipes: Recipes) -> ImageStatus:
    """Returns the document of an image.

    Args:
        image: The image.
        urls: The URLs to use.
        recipes: The recipes that this process knows; what it does not know is found out from the image's files.
    """
    traits = image.traits
    recipe = recipes.find(image.recipe_name)
    files = urls.thumbnails(image.id)
    explicit = {thumbnail.output: files.explicit(thumbnail) for thumbnail in image.thumbnails}
    markup = markup_of(image, recipe, lambda thumbnail: explicit[thumbnail.output])
    return ImageStatus(
        id=image.id,
        status=image.status,
        original_url=urls.original(image.id),
        thumbnails={thumbnail.output: files.plain(thumbnail) for thumbnail in image.thumbnails if _is_plain(thumbnail)},
        content_type=image.header.format.content_type,
        size_bytes=image.size_bytes,
        sha256=image.sha256,
        width=image.header.width,
        height=image.header.height,
        placeholder=traits.placeholder if traits else None,
        dominant_colour=traits.dominant_colour if traits else None,
        metadata_removed=list(traits.metadata_removed) if traits else None,
        recipe=image.recipe_name or DEFAULT_NAME,
        outputs=[*(_output(thumbnail, explicit) for thumbnail in image.thumbnails), *_pending(image, recipe)],
        srcset=markup.srcset if markup else None,
        picture=markup.picture if markup else None,
        created_at=image.created_at,
        updated_at=image.updated_at,
        finished_at=image.finished_at if image.status.terminal else None,
        original_removed_at=image.original_removed_at,
        error=ImageProblem(code=image.error.code, detail=image.error.detail) if image.error else None,
    )


def _is_plain(thumbnail: Thumbnail) -> bool:
    """Whether it is the default output of its preset, for one device pixel per pixel."""
    name = parse_output_name(thumbnail.output)
    return name.extension is None and name.dpr == 1


def _output(thumbnail: Thumbnail, urls: Mapping[str, str]) -> ImageOutput:
    name = parse_output_name(thumbnail.output)
    return ImageOutput(
        preset=name.preset,
        dpr=name.dpr,
        format=thumbnail.content_type.removeprefix("image/"),
        content_type=thumbnail.content_type,
        width=thumbnail.width,
        height=thumbnail.height,
        size=thumbnail.size_bytes,
        sha256=thumbnail.sha256,
        url=urls[thumbnail.output],
        status="ready",
    )


def _pending(image: Image, recipe: Recipe | None) -> Iterator[ImageOutput]:
    """Yields the outputs that follow, without those whose earlier files are served until then."""
    if not image.pending:
        return
    existing = {thumbnail.output for thumbnail in image.thumbnails}
    known = {output.name: output.format for output in recipe.outputs} if recipe else {}
    for each in image.pending:
        if each in existing:
            continue
        name = parse_output_name(each)
        kind = known.get(each, OutputFormat.AUTO)
        if name.extension is not None:
            kind = next(kind for kind in OutputFormat if kind.extension == name.extension)
        yield ImageOutput(
            preset=name.preset,
            dpr=name.dpr,
            format=None if kind is OutputFormat.AUTO else kind.value,
            status="pending",
        )
