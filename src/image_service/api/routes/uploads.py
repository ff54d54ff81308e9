"""``POST /images``: uploads."""

from contextlib import aclosing
from typing import Any, Final

from fastapi import Request, Response

from image_service import errors
from image_service.api.accepted import set_accepted_headers
from image_service.api.dependencies import context_of
from image_service.api.form_file import FIELD, FormFile
from image_service.api.idempotency import KEY_HEADER, MAX_KEY, idempotency_key_of
from image_service.api.middleware import request_id_of
from image_service.api.problems import documented
from image_service.api.routing import Router
from image_service.api.schemas import QUEUED_MESSAGE, REPLAYED_MESSAGE, UNQUEUED_MESSAGE, UploadAccepted
from image_service.api.upload_options import FIELDS, PARAMETERS, options_of
from image_service.domain.status import Status
from image_service.services.upload_options import checked

router: Final = Router(prefix="/images", tags=["images"])

_UPLOAD: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": KEY_HEADER,
            "in": "header",
            "required": False,
            "description": "Makes it safe to repeat an upload whose response was lost: the same file sent again under "
            "the same key is the same image, until that is deleted. Another file or recipe under the same key is "
            "refused; `webhook` and `metadata` are those of the first.",
            "schema": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_KEY,
                "pattern": "^[!-~]([ -~]*[!-~])?$",
            },
        },
        *PARAMETERS,
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        **FIELDS,
                        FIELD: {
                            "type": "string",
                            "format": "binary",
                            "description": "The image: JPEG, PNG, GIF, WebP or AVIF; also HEIC, JPEG XL, TIFF or "
                            "BMP if the setting ENABLED_FORMATS adds them. The setting can also disable formats: "
                            "`GET /limits` names those that are accepted.",
                        },
                    },
                }
            }
        },
    },
}
"""Written by hand, because the body is streamed: FastAPI collects the body of a declared parameter first."""


@router.post(
    "",
    status_code=202,
    summary="Upload an image",
    description="The image is stored durably before the response is sent, and its thumbnails are made afterwards: "
    "`Location` is the URL of its status. The format is detected from the file's content; its name and Content-Type "
    "are ignored.",
    response_description="The image is stored, and will become DONE or ERROR.",
    responses=documented(
        errors.EmptyUpload,
        errors.InvalidIdempotencyKey,
        errors.IdempotencyKeyReused,
        errors.MalformedUpload,
        errors.MissingFile,
        errors.OriginNotAllowed,
        errors.OptionAfterFile,
        errors.OptionConflict,
        errors.RecipeAfterFile,
        errors.RecipeConflict,
        errors.UnknownRecipe,
        errors.UnknownWebhook,
        errors.MetadataTooLarge,
        errors.InvalidMetadata,
        errors.TooManyFiles,
        errors.UploadStalled,
        errors.UploadTooLarge,
        errors.NotMultipart,
        errors.UnsupportedEncoding,
        errors.UnsupportedFormat,
        errors.CorruptImage,
        errors.ImageTooLarge,
        errors.TooManyUploads,
        errors.UploadDisplaced,
        errors.BacklogFull,
        errors.DatabaseUnavailable,
        errors.StorageUnavailable,
        errors.StorageFull,
    ),
    openapi_extra=_UPLOAD,
)
async def upload_image(request: Request, response: Response) -> UploadAccepted:
    """Accepts one image: limits first, then the body, of which little is read before it has a slot."""
    context = context_of(request)
    services = context.services
    key = idempotency_key_of(request)
    checked(options_of(request), services.recipes)
    with context.upload_limit.upload(request.client.host if request.client else "") as upload:
        await services.backlog.admit()
        form = FormFile()
        async with aclosing(context.upload_reader.file(request, upload, form)) as content:
            accepted = await services.ingest.accept(
                content,
                options=lambda: options_of(request, form.options),
                request_id=request_id_of(request),
                idempotency_key=key,
            )
    set_accepted_headers(response, context.urls(request), accepted.id)
    if accepted.replayed:
        response.headers["Idempotent-Replayed"] = "true"
        message = REPLAYED_MESSAGE
    elif accepted.status is Status.NEW:
        message = UNQUEUED_MESSAGE
    else:
        message = QUEUED_MESSAGE
    return UploadAccepted(id=accepted.id, status=accepted.status, message=message)
