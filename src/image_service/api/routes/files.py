"""``/images/{image_id}/original`` and ``/thumbnails``: the files of an image."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Annotated, Any, Final, NamedTuple, TypeVar

from fastapi import Path, Query, Request, Response

from image_service import errors
from image_service.api.caching import NEGOTIATED, PRIVATE_IMMUTABLE, PUBLIC_IMMUTABLE, REVALIDATE
from image_service.api.dependencies import context_of
from image_service.api.files import file_response
from image_service.api.negotiation import named_types
from image_service.api.problems import VARY, documented
from image_service.api.routes.images import ImageId
from image_service.api.routing import Router
from image_service.documents.urls import version
from image_service.errors import ObjectMissing
from image_service.services.lookup import StoredFile, StoredThumbnail

T = TypeVar("T")

router: Final = Router(prefix="/images", tags=["images"])

_BINARY: Final = {"image/*": {"schema": {"type": "string", "format": "binary"}}}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The file.",
        "content": _BINARY,
        "headers": {"ETag": {"schema": {"type": "string"}, "description": "The SHA-256 of the file, quoted."}},
    },
    206: {"description": "The requested range of the file.", "content": _BINARY},
    304: {"description": "The client's copy is up to date."},
    307: {
        "description": "With FILES_DELIVERY=redirect: a presigned URL of the file in the object storage.",
        "headers": {
            "Location": {"schema": {"type": "string", "format": "uri"}, "description": "The URL; it expires soon."}
        },
    },
    **documented(
        errors.ImageNotFound,
        errors.PreconditionFailed,
        errors.RangeNotSatisfiable,
        errors.InvalidRequest,
        errors.ObjectMissing,
        errors.DatabaseUnavailable,
        errors.StorageUnavailable,
    ),
}

_NEGOTIATED: Final = {
    "Vary": {"schema": {"type": "string"}, "description": "Accept, where the image's recipe negotiates."},
    "Content-Location": {
        "schema": {"type": "string", "format": "uri-reference"},
        "description": "The URL of this very file, where the image's recipe negotiates.",
    },
}
_THUMBNAIL: Final[dict[int | str, dict[str, Any]]] = {
    **_RESPONSES,
    200: {**_RESPONSES[200], "headers": {**_RESPONSES[200]["headers"], **_NEGOTIATED}},
    206: {**_RESPONSES[206], "headers": _NEGOTIATED},
}


@router.get(
    "/{image_id}/original",
    summary="Get the original",
    description="Returns the uploaded bytes unchanged, including their metadata. ETag, If-Match, If-None-Match and "
    "Range are supported.",
    response_class=Response,
    responses=_RESPONSES | documented(errors.OriginalRemoved),
)
async def get_original(request: Request, image_id: ImageId) -> Response:
    """Serves an original, which browsers save rather than show."""
    lookup = context_of(request).services.lookup

    def serve(file: StoredFile) -> Awaitable[Response]:
        return file_response(request, file, lookup, cache=PRIVATE_IMMUTABLE, attachment=True)

    return await _with_current(lambda: lookup.original(image_id), serve)


@router.get(
    "/{image_id}/thumbnails/{size}",
    summary="Get a thumbnail",
    description="Returns a thumbnail: upright, in sRGB, without metadata. `hero`, `hero@2x` and `hero@2x.webp` are the "
    "default format of a preset, its double pixel density, and that in another format; `outputs` of the image's status "
    "lists all. A name without an extension serves the default format; if the image's recipe negotiates, the smallest "
    "file of that and of the types that `Accept` names in full, with `Vary: Accept`. ETag, If-Match, If-None-Match and "
    "Range are supported.",
    response_class=Response,
    responses=_THUMBNAIL | documented(errors.ImageNotFound, errors.ThumbnailNotFound),
)
async def get_thumbnail(
    request: Request,
    image_id: ImageId,
    size: Annotated[
        str, Path(description="The name of an output, with or without an extension.", examples=["300x300"])
    ],
    v: Annotated[
        str | None, Query(description="The version from the image's status: makes the response cacheable.")
    ] = None,
) -> Response:
    """Serves a thumbnail, cacheable forever under the URL of its version only."""
    context = context_of(request)
    lookup = context.services.lookup

    async def find() -> _Choice:
        found = await lookup.thumbnails(image_id, size)
        if found.negotiable:
            request.scope["state"][VARY] = NEGOTIATED.vary
        if not found.files:
            raise errors.ThumbnailNotFound(found.missing)
        accepted = named_types(request) if len(found.files) > 1 else frozenset[str]()
        return _Choice(_best(found.files, accepted), negotiated=found.negotiable)

    def serve(choice: _Choice) -> Awaitable[Response]:
        file = choice.file
        if choice.negotiated:
            location = context.urls(request).content_location(image_id, file.explicit_name, file.sha256)
            return file_response(request, file, lookup, cache=NEGOTIATED, attachment=False, location=location)
        cache = PUBLIC_IMMUTABLE if v == version(file.sha256) else REVALIDATE
        return file_response(request, file, lookup, cache=cache, attachment=False)

    return await _with_current(find, serve)


class _Choice(NamedTuple):
    """A thumbnail to serve."""

    file: StoredThumbnail
    negotiated: bool


def _best(files: Sequence[StoredThumbnail], accepted: Collection[str]) -> StoredThumbnail:
    """Returns the smallest of the default, which is the first, and of those that the client accepts."""
    usable = [files[0], *(file for file in files[1:] if file.content_type in accepted)]
    return min(usable, key=lambda file: file.size_bytes)


async def _with_current(find: Callable[[], Awaitable[T]], serve: Callable[[T], Awaitable[Response]]) -> Response:
    """Serves a file. If it is missing, its image may have been deleted, or rendered again, since it was looked up.

    Raises:
        ObjectMissing: the file is missing, but it is still recorded.
    """
    found = await find()
    try:
        return await serve(found)
    except ObjectMissing:
        current = await find()
        if current == found:
            raise
        return await serve(current)
