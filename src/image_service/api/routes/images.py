"""``/images``: list images, show their status, delete and reprocess them."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import Path, Query, Request, Response

from image_service import errors
from image_service.api.accepted import (
    FINISHED,
    STILL_WAITING,
    finished_response,
    set_accepted_headers,
    set_waited_headers,
)
from image_service.api.caching import NO_STORE
from image_service.api.dependencies import context_of
from image_service.api.middleware import request_id_of
from image_service.api.prefer import HEADER
from image_service.api.prefer import PARAMETER as PREFER
from image_service.api.problems import VARY, documented
from image_service.api.routing import Router
from image_service.api.schemas import REPROCESS_MESSAGE, ImageList, UploadAccepted
from image_service.api.upload_options import RECIPE_PARAMETER, recipe_of
from image_service.documents.image import ImageStatus, image_status
from image_service.domain.status import Status
from image_service.services.recipes import recipe_named

router: Final = Router(prefix="/images", tags=["images"])

ImageId = Annotated[UUID, Path(description="The `id` from the answer to the upload.")]

_MAX_PAGE: Final = 200


@router.get(
    "",
    summary="List images",
    description="Lists images from the newest to the oldest, one page at a time: `next` is the URL of the next page.",
    responses=documented(errors.InvalidRequest, errors.DatabaseUnavailable),
)
async def list_images(
    request: Request,
    response: Response,
    *,
    status: Annotated[Status | None, Query(description="Only images in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE, description="Images per page.")] = 50,
    before: Annotated[UUID | None, Query(description="Only images older than this one.")] = None,
) -> ImageList:
    """Returns one page; one image more is read to know whether another page follows."""
    context = context_of(request)
    images = await context.services.lookup.newest(limit=limit + 1, before=before, status=status)
    page = images[:limit]
    urls = context.urls(request)
    response.headers["Cache-Control"] = NO_STORE
    query = {"limit": str(limit)} | ({} if status is None else {"status": status.value})
    return ImageList(
        images=[image_status(image, urls, context.services.recipes) for image in page],
        next=urls.after(page[-1].id, query) if len(images) > limit else None,
    )


@router.get(
    "/{image_id}",
    summary="Get an image's status",
    description="NEW and PROCESSING become DONE, with thumbnails, or ERROR, with the reason. DONE and ERROR are final "
    "unless the image is reprocessed. With `Prefer: wait=10` the answer comes when the image is DONE or in ERROR, or "
    "after ten seconds, then with 202.",
    responses=documented(errors.ImageNotFound, errors.InvalidRequest, errors.DatabaseUnavailable) | STILL_WAITING,
    openapi_extra={"parameters": [PREFER]},
)
async def get_image(request: Request, response: Response, image_id: ImageId) -> ImageStatus:
    """Returns an image's status, if the client wants so once it is DONE or in ERROR."""
    context = context_of(request)
    request.scope["state"][VARY] = response.headers["Vary"] = HEADER
    response.headers["Cache-Control"] = NO_STORE
    async with context.waiting.of(request, image_id) as wait:
        image = await context.services.lookup.image(image_id)
        if wait is not None:
            image = await wait.ended_after(image) or image
            set_waited_headers(response, context.urls(request), image, wait)
    return image_status(image, context.urls(request), context.services.recipes)


@router.delete(
    "/{image_id}",
    status_code=204,
    summary="Delete an image",
    description="Deletes the image in any state, permanently and with all its files. A repeated request is answered "
    "with 404.",
    responses=documented(
        errors.ImageNotFound, errors.InvalidRequest, errors.OriginNotAllowed, errors.DatabaseUnavailable
    ),
)
async def delete_image(request: Request, image_id: ImageId) -> None:
    """Deletes an image."""
    await context_of(request).services.deletion.delete(image_id)


@router.post(
    "/{image_id}/reprocess",
    status_code=202,
    response_model=UploadAccepted,
    summary="Reprocess an image",
    description="Makes the thumbnails of an image that is DONE or in ERROR again, from its original, with the recipe "
    "that it has or another. Existing thumbnails are served until the new ones are complete.",
    responses=documented(
        errors.ImageNotFound,
        errors.InvalidRequest,
        errors.RecipeConflict,
        errors.UnknownRecipe,
        errors.OriginNotAllowed,
        errors.StillProcessing,
        errors.OriginalRemoved,
        errors.DatabaseUnavailable,
    )
    | FINISHED,
    openapi_extra={"parameters": [RECIPE_PARAMETER, PREFER]},
)
async def reprocess_image(request: Request, response: Response, image_id: ImageId) -> UploadAccepted | Response:
    """Queues a finished image for reprocessing."""
    context = context_of(request)
    services = context.services
    recipe = recipe_of(request)
    recipe_named(services.recipes, recipe)
    async with context.waiting.of(request, image_id) as wait:
        status = await services.reprocessing.reprocess(image_id, recipe=recipe, request_id=request_id_of(request))
        if wait is not None and (image := await wait.ended()) is not None:
            return finished_response(image, context.urls(request), services.recipes, wait, response.headers)
    set_accepted_headers(response, context.urls(request), image_id, wait)
    return UploadAccepted(id=image_id, status=status, message=REPROCESS_MESSAGE)
