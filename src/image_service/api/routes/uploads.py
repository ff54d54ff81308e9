"""``POST /images``: uploads."""

from contextlib import AsyncExitStack, aclosing
from typing import Any, Final

from fastapi import Request, Response

from image_service import errors
from image_service.api.accepted import FINISHED, finished_response, set_accepted_headers
from image_service.api.dependencies import context_of
from image_service.api.form_file import FIELD, FormFile
from image_service.api.idempotency import KEY_HEADER, MAX_KEY, idempotency_key_of
from image_service.api.middleware import request_id_of
from image_service.api.prefer import PARAMETER as PREFER
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
        PREFER,
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
    response_model=UploadAccepted,
    summary="Upload an image",
    description="The image is stored durably before the response is sent, and its thumbnails are made afterwards: "
    "`Location` is the URL of its status. With `Prefer: wait=10` the answer comes when they exist, or after ten "
    "seconds as usual. The format is detected from the file's content; its name and Content-Type are ignored.",
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
    )
    | FINISHED,
    openapi_extra=_UPLOAD,
)
async def upload_image(request: Request, response: Response) -> UploadAccepted | Response:
    """Accepts one image: limits first, then the body, of which little is read before it has a slot."""
    context = context_of(request)
    services = context.services
    key = idempotency_key_of(request)
    checked(options_of(request), services.recipes)
    async with AsyncExitStack() as waiting:
        with context.upload_limit.upload(request.client.host if request.client else "") as upload:
            await services.backlog.admit()
            form = FormFile()
            async with aclosing(context.upload_reader.file(request, upload, form)) as content:
                staged = await services.ingest.receive(content, options=lambda: options_of(request, form.options))
            async with staged.scratch:
                # Before the commit, so that it misses no event.
                wait = await waiting.enter_async_context(context.waiting.of(request, staged.original.id))
                accepted = await services.ingest.commit(staged, request_id=request_id_of(request), idempotency_key=key)
        image = None
        if accepted.replayed:
            await waiting.aclose()
            wait = await waiting.enter_async_context(context.waiting.of(request, accepted.id))
            response.headers["Idempotent-Replayed"] = "true"
        if wait is not None:
            image = await (wait.ended() if accepted.replayed else wait.ended_after(None))
    urls = context.urls(request)
    if wait is not None and image is not None:
        return finished_response(image, urls, services.recipes, wait, response.headers)
    set_accepted_headers(response, urls, accepted.id, wait)
    if accepted.replayed:
        message = REPLAYED_MESSAGE
    elif accepted.status is Status.NEW:
        message = UNQUEUED_MESSAGE
    else:
        message = QUEUED_MESSAGE
    return UploadAccepted(id=accepted.id, status=accepted.status, message=message)
