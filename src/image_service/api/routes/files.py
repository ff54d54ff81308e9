"""``/images/{image_id}/original`` and ``/thumbnails``: the files of an image."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import Path, Query, Request, Response

from image_service import errors
from image_service.api.caching import PRIVATE_IMMUTABLE, PUBLIC_IMMUTABLE, REVALIDATE
from image_service.api.dependencies import context_of
from image_service.api.files import file_response
from image_service.api.problems import documented
from image_service.api.routes.images import ImageId
from image_service.api.routing import Router
from image_service.api.urls import version
from image_service.errors import ObjectMissing
from image_service.services.lookup import StoredFile

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
    description="Returns a thumbnail: upright, in sRGB, without metadata. ETag, If-None-Match and Range are supported.",
    response_class=Response,
    responses=_RESPONSES | documented(errors.ImageNotFound, errors.ThumbnailNotFound),
)
async def get_thumbnail(
    request: Request,
    image_id: ImageId,
    size: Annotated[str, Path(examples=["300x300"])],
    v: Annotated[
        str | None, Query(description="The version from the image's status: makes the response cacheable.")
    ] = None,
) -> Response:
    """Serves a thumbnail, cacheable forever under the URL of its version only."""
    lookup = context_of(request).services.lookup

    def serve(file: StoredFile) -> Awaitable[Response]:
        cache = PUBLIC_IMMUTABLE if v == version(file.sha256) else REVALIDATE
        return file_response(request, file, lookup, cache=cache, attachment=False)

    return await _with_current(lambda: lookup.thumbnail(image_id, size), serve)


async def _with_current(
    find: Callable[[], Awaitable[StoredFile]], serve: Callable[[StoredFile], Awaitable[Response]]
) -> Response:
    """Serves a file. If it is missing, its image may have been deleted, or rendered again, since it was looked up.

    Raises:
        ObjectMissing: the file is missing, but it is still recorded.
    """
    file = await find()
    try:
        return await serve(file)
    except ObjectMissing:
        current = await find()
        if current.key == file.key:
            raise
        return await serve(current)
