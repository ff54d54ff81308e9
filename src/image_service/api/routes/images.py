"""``/images``: uploads, their status, and their files."""

from contextlib import aclosing
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response

from image_service import errors
from image_service.api.admission import KEY_HEADER, Admission, idempotency_key_of
from image_service.api.files import PRIVATE_FOR_EVER, PUBLIC_FOR_EVER, REVALIDATE, file_response
from image_service.api.middleware import request_id_of
from image_service.api.problems import documented
from image_service.api.schemas import (
    AGAIN_MESSAGE,
    KEPT_MESSAGE,
    QUEUED_MESSAGE,
    REPEATED_MESSAGE,
    ImageList,
    ImageProblem,
    ImageStatus,
    UploadAccepted,
)
from image_service.api.uploads import FIELD, UploadReader
from image_service.api.urls import Urls, urls_of, version
from image_service.bootstrap import ApiServices
from image_service.domain.image import Image
from image_service.domain.status import Status

_UPLOAD: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": KEY_HEADER,
            "in": "header",
            "required": False,
            "description": "However often the same file is sent under a key, it is one image, until that is deleted: "
            "safe to repeat when an answer got lost. Another file under the same key is refused.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {
                            "type": "string",
                            "format": "binary",
                            "description": "The image: JPEG, PNG, GIF, WebP or AVIF; also HEIC, TIFF or BMP where the "
                            "setting ENABLED_FORMATS adds them. It can take others away.",
                        }
                    },
                }
            }
        },
    },
}
"""Written by hand, because the body is streamed: a declared parameter would collect it first."""

_FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The file.",
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {"ETag": {"schema": {"type": "string"}, "description": "The SHA-256 of the file, quoted."}},
    },
    206: {
        "description": "The requested range of the file.",
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
    },
    304: {"description": "The client's copy is up to date."},
    307: {
        "description": "With FILES_DELIVERY=redirect: a link to the file in the object storage, which soon expires.",
        "headers": {"Location": {"schema": {"type": "string", "format": "uri"}, "description": "The link."}},
    },
}

_LONGEST_PAGE: Final = 200

ImageId = Annotated[UUID, Path(description="From the answer to the upload.")]


def images_router(
    services: ApiServices, *, uploads: UploadReader, admission: Admission, public_url: str | None
) -> APIRouter:
    """The operations on images."""
    lookup = services.lookup
    router = APIRouter(prefix="/images", tags=["images"])

    @router.post(
        "",
        status_code=202,
        summary="Upload an image",
        description="The image is stored safely before the answer, and turned into thumbnails afterwards: ask for its "
        "status at `Location`. The file's content decides what it is; its name and Content-Type are ignored.",
        response_description="The image is safe, and will end DONE or ERROR.",
        responses=documented(
            errors.EmptyUpload,
            errors.InvalidIdempotencyKey,
            errors.IdempotencyKeyReused,
            errors.MalformedUpload,
            errors.MissingFile,
            errors.TooManyFiles,
            errors.UploadStalled,
            errors.UploadTooLarge,
            errors.NotMultipart,
            errors.UnsupportedFormat,
            errors.CorruptImage,
            errors.ImageTooLarge,
            errors.TooManyUploads,
            errors.BacklogFull,
            errors.DatabaseUnavailable,
            errors.StorageUnavailable,
            errors.StorageFull,
        ),
        openapi_extra=_UPLOAD,
    )
    async def upload_image(request: Request, response: Response) -> UploadAccepted:
        key = idempotency_key_of(request)
        with admission.one():
            await services.backlog.admit()
            async with aclosing(uploads.file(request)) as content:
                accepted = await services.ingest.accept(content, request_id=request_id_of(request), idempotency_key=key)
        if accepted.replayed:
            response.headers["Idempotent-Replayed"] = "true"
            message = REPEATED_MESSAGE
        else:
            message = KEPT_MESSAGE if accepted.status is Status.NEW else QUEUED_MESSAGE
        return _accepted(request, response, UploadAccepted(id=accepted.id, status=accepted.status, message=message))

    def _accepted(request: Request, response: Response, answer: UploadAccepted) -> UploadAccepted:
        response.headers["Location"] = urls_of(request, public_url).location(answer.id)
        response.headers["Retry-After"] = "1"  # when to ask for the status: most images are DONE by then
        return answer

    @router.get(
        "",
        summary="List images",
        description="From the newest to the oldest, a page at a time: `next` leads on.",
        responses=documented(errors.InvalidRequest, errors.DatabaseUnavailable),
    )
    async def list_images(
        request: Request,
        response: Response,
        *,
        status: Annotated[Status | None, Query(description="Only those in this state.")] = None,
        limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE, description="Images on a page.")] = 50,
        before: Annotated[UUID | None, Query(description="Only images older than this one.")] = None,
    ) -> ImageList:
        images = await lookup.newest(limit=limit + 1, before=before, status=status)
        page = images[:limit]
        urls = urls_of(request, public_url)
        response.headers["Cache-Control"] = "no-store"
        query = {"limit": str(limit)} | ({} if status is None else {"status": status.value})
        return ImageList(
            images=[_status(image, urls) for image in page],
            next=urls.after(page[-1].id, query) if len(images) > limit else None,
        )

    @router.get(
        "/{image_id}",
        summary="Ask for an image's status",
        description="NEW and PROCESSING become DONE, with thumbnails, or ERROR, with the reason; those two stay until "
        "somebody asks for another rendering.",
        responses=documented(errors.ImageNotFound, errors.InvalidRequest, errors.DatabaseUnavailable),
    )
    async def get_image(request: Request, response: Response, image_id: ImageId) -> ImageStatus:
        image = await lookup.image(image_id)
        response.headers["Cache-Control"] = "no-store"
        return _status(image, urls_of(request, public_url))

    @router.delete(
        "/{image_id}",
        status_code=204,
        summary="Delete an image",
        description="For good, in whatever state it is, and with all its files. Asked a second time the answer is 404.",
        responses=documented(errors.ImageNotFound, errors.InvalidRequest, errors.DatabaseUnavailable),
    )
    async def delete_image(image_id: ImageId) -> None:
        await services.deletion.delete(image_id)

    @router.post(
        "/{image_id}/reprocess",
        status_code=202,
        summary="Process an image again",
        description="One that is DONE or in ERROR, from its original. Its thumbnails stay until the new ones are made.",
        responses=documented(
            errors.ImageNotFound,
            errors.InvalidRequest,
            errors.StillProcessing,
            errors.OriginalRemoved,
            errors.DatabaseUnavailable,
        ),
    )
    async def reprocess_image(request: Request, response: Response, image_id: ImageId) -> UploadAccepted:
        status = await services.reprocessing.reprocess(image_id, request_id=request_id_of(request))
        return _accepted(request, response, UploadAccepted(id=image_id, status=status, message=AGAIN_MESSAGE))

    file_errors = documented(
        errors.ImageNotFound,
        errors.RangeNotSatisfiable,
        errors.InvalidRequest,
        errors.ObjectMissing,
        errors.DatabaseUnavailable,
        errors.StorageUnavailable,
    )

    @router.head("/{image_id}/original", include_in_schema=False)
    @router.get(
        "/{image_id}/original",
        summary="Get the original",
        description="Byte for byte what was uploaded, its metadata included. ETag, If-None-Match and Range work.",
        response_class=Response,
        responses=_FILE | file_errors | documented(errors.OriginalRemoved),
    )
    async def get_original(request: Request, image_id: ImageId) -> Response:
        file = await lookup.original(image_id)
        return await file_response(
            request, file, read=lookup.read, presign=lookup.presign, cache=PRIVATE_FOR_EVER, attachment=True
        )

    @router.head("/{image_id}/thumbnails/{size}", include_in_schema=False)
    @router.get(
        "/{image_id}/thumbnails/{size}",
        summary="Get a thumbnail",
        description="Upright, in sRGB, without metadata. ETag, If-None-Match and Range work.",
        response_class=Response,
        responses=_FILE | file_errors | documented(errors.ImageNotFound, errors.ThumbnailNotFound),
    )
    async def get_thumbnail(
        request: Request,
        image_id: ImageId,
        size: Annotated[str, Path(examples=["300x300"])],
        v: Annotated[
            str | None, Query(description="The version, as in the image's status: makes it cacheable.")
        ] = None,
    ) -> Response:
        file = await lookup.thumbnail(image_id, size)
        cache = PUBLIC_FOR_EVER if v == version(file.sha256) else REVALIDATE
        return await file_response(
            request, file, read=lookup.read, presign=lookup.presign, cache=cache, attachment=False
        )

    return router


def _status(image: Image, urls: Urls) -> ImageStatus:
    traits = image.traits
    return ImageStatus(
        id=image.id,
        status=image.status,
        original_url=urls.original(image.id),
        thumbnails={thumbnail.preset: urls.thumbnail(image.id, thumbnail) for thumbnail in image.thumbnails},
        content_type=image.header.format.content_type,
        size_bytes=image.size_bytes,
        sha256=image.sha256,
        width=image.header.width,
        height=image.header.height,
        placeholder=traits.placeholder if traits else None,
        dominant_colour=traits.dominant_colour if traits else None,
        metadata_removed=list(traits.metadata_removed) if traits else None,
        created_at=image.created_at,
        updated_at=image.updated_at,
        finished_at=image.finished_at if image.status.terminal else None,
        original_removed_at=image.original_removed_at,
        error=ImageProblem(code=image.error.code, detail=image.error.detail) if image.error else None,
    )
