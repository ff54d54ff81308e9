"""An image as clients see it: in answers of the API and in events."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from image_service.documents.markup import markup_of
from image_service.documents.urls import Urls
from image_service.domain.image import Image, MetadataKind, Thumbnail
from image_service.domain.outputs import parse_output_name
from image_service.domain.recipe import DEFAULT_NAME, OutputFormat, Recipe, Recipes
from image_service.domain.status import Status

EXAMPLE_ID: Final = "01932b5c-8f2a-7c3e-9d41-5a6b7c8d9e0f"
_IMAGE_URL: Final = f"http://localhost:8000/images/{EXAMPLE_ID}"


class ImageProblem(BaseModel):
    """Why an image ended in ERROR."""

    code: str = Field(description="Stable, in kebab-case.", examples=["corrupt-image"])
    detail: str = Field(description="An explanation for people.")


class ImageOutput(BaseModel):
    """One file of an image: a preset in one format and for one pixel density."""

    preset: str
    dpr: int = Field(description="Pixel density: the preset's box is so many times as large.")
    format: str | None = Field(
        description="jpeg, png, webp, avif, jxl or gif; null while it is pending and its format depends on the image.",
        examples=["webp"],
    )
    content_type: str | None = Field(default=None, description="This and what follows is null while it is pending.")
    width: int | None = Field(default=None, description="In pixels.")
    height: int | None = None
    size: int | None = Field(default=None, serialization_alias="bytes", description="Of the file.")
    sha256: str | None = Field(default=None, description="Of the file, in hexadecimal; the ETag of its URL.")
    url: str | None = Field(default=None, description="Serves this file only, and may be cached for ever.")
    status: Literal["ready", "pending"] = Field(
        description="pending: an optional output, which follows; the image is DONE without it."
    )


class ImageStatus(BaseModel):
    """An image and its state."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": EXAMPLE_ID,
                    "status": "DONE",
                    "original_url": f"{_IMAGE_URL}/original",
                    "thumbnails": {
                        name: f"{_IMAGE_URL}/thumbnails/{name}?v=9f86d081884c7d65"
                        for name in ("100x100", "300x300", "1200x1200")
                    },
                    "content_type": "image/jpeg",
                    "size_bytes": 4213345,
                    "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
                    "width": 3024,
                    "height": 4032,
                    "placeholder": "k0oGLQaSVsN0BVhn2oq2Z5SQUQcZ",
                    "dominant_colour": "#8b5a2b",
                    "metadata_removed": ["exif", "gps", "icc", "thumbnail"],
                    "recipe": "default",
                    "outputs": [
                        {
                            "preset": "300x300",
                            "dpr": 1,
                            "format": "jpeg",
                            "content_type": "image/jpeg",
                            "width": 225,
                            "height": 300,
                            "bytes": 14233,
                            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                            "url": f"{_IMAGE_URL}/thumbnails/300x300.jpg?v=9f86d081884c7d65",
                            "status": "ready",
                        }
                    ],
                    "srcset": f"{_IMAGE_URL}/thumbnails/300x300.jpg?v=9f86d081884c7d65 225w",
                    "picture": f'<picture><img src="{_IMAGE_URL}/thumbnails/300x300.jpg?v=9f86d081884c7d65" '
                    f'srcset="{_IMAGE_URL}/thumbnails/300x300.jpg?v=9f86d081884c7d65 225w" '
                    'sizes="auto, (max-width: 225px) 100vw, 225px" width="225" height="300" '
                    'style="background-color:#7d5f41" loading="lazy" decoding="async" alt=""></picture>',
                    "created_at": "2026-11-25T07:30:00.120000Z",
                    "updated_at": "2026-11-25T07:30:00.215000Z",
                    "finished_at": "2026-11-25T07:30:00.215000Z",
                    "original_removed_at": None,
                    "error": None,
                }
            ]
        }
    )

    id: UUID
    status: Status
    original_url: str = Field(description="Serves the bytes that were uploaded.")
    thumbnails: dict[str, str] = Field(
        description="URLs of the default format by preset; empty until the image is DONE. While it is reprocessed, "
        "the existing ones."
    )
    content_type: str = Field(description="Of the original, detected from its content.")
    size_bytes: int = Field(description="Of the original.")
    sha256: str = Field(description="Of the original, in hexadecimal.")
    width: int = Field(description="Of the original in pixels; upright, once the image is DONE.")
    height: int
    placeholder: str | None = Field(
        description="A ThumbHash in base64: a blurred preview to show while the image loads. "
        "This and the next two are null until the image is DONE."
    )
    dominant_colour: str | None = Field(
        description="As #rrggbb; null also for a fully transparent image.", pattern="^#[0-9a-f]{6}$"
    )
    metadata_removed: list[MetadataKind] | None = Field(
        description="Kinds of metadata that the original has and the thumbnails do not."
    )
    recipe: str = Field(description="The recipe that the thumbnails are made with.")
    outputs: list[ImageOutput] = Field(
        description="All files of the image: each preset in each of its formats and pixel densities, without those "
        "that are no smaller than the default format. While it is reprocessed, the existing ones."
    )
    srcset: str | None = Field(
        description="For an `<img>`: the URLs and widths of the recipe's first preset, and of the presets that show "
        "the same part of the image. Null while there are none."
    )
    picture: str | None = Field(
        description="A ready `<picture>` element: every format that has all of these widths, lazily loaded, with the "
        "image's average colour as its background unless it has transparency. Add its `alt`. Null while there are none."
    )
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = Field(description="When the image became DONE or ERROR.")
    original_removed_at: datetime | None = Field(
        description="When the original was removed because its retention period ended; otherwise null."
    )
    error: ImageProblem | None = Field(description="Why the image is in ERROR; otherwise null.")


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
