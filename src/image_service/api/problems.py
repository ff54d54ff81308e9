"""Errors as problem details (RFC 9457). Only this module knows the HTTP status of an error code."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from image_service import errors
from image_service.api.caching import NO_STORE
from image_service.api.schemas import Problem
from image_service.api.security_headers import NOSNIFF
from image_service.domain.wellformed import one_line
from image_service.errors import Busy, Outage, ServiceError

MEDIA_TYPE: Final = "application/problem+json"

_SHOWN: Final = 5
"""Problems that the detail of an invalid request names."""
_NAME_SHOWN: Final = 64
"""Characters of the name of a field there."""

VARY: Final = "vary"
"""Where a route notes, in the scope's state, the request headers that every response at this URL depends on."""

STATUS: Final[dict[str, HTTPStatus]] = {
    errors.EmptyUpload.code: HTTPStatus.BAD_REQUEST,
    errors.InvalidIdempotencyKey.code: HTTPStatus.BAD_REQUEST,
    errors.MalformedRequest.code: HTTPStatus.BAD_REQUEST,
    errors.MalformedUpload.code: HTTPStatus.BAD_REQUEST,
    errors.MissingFile.code: HTTPStatus.BAD_REQUEST,
    errors.TooManyFiles.code: HTTPStatus.BAD_REQUEST,
    errors.OriginNotAllowed.code: HTTPStatus.FORBIDDEN,
    errors.NotFound.code: HTTPStatus.NOT_FOUND,
    errors.ImageNotFound.code: HTTPStatus.NOT_FOUND,
    errors.ThumbnailNotFound.code: HTTPStatus.NOT_FOUND,
    errors.WebhookNotFound.code: HTTPStatus.NOT_FOUND,
    errors.DeliveryNotFound.code: HTTPStatus.NOT_FOUND,
    errors.MethodNotAllowed.code: HTTPStatus.METHOD_NOT_ALLOWED,
    errors.HeadTimeout.code: HTTPStatus.REQUEST_TIMEOUT,
    errors.UploadStalled.code: HTTPStatus.REQUEST_TIMEOUT,
    errors.BodyTimeout.code: HTTPStatus.REQUEST_TIMEOUT,
    errors.TooManyWebhooks.code: HTTPStatus.CONFLICT,
    errors.WebhookDisabled.code: HTTPStatus.CONFLICT,
    errors.StillProcessing.code: HTTPStatus.CONFLICT,
    errors.OriginalRemoved.code: HTTPStatus.GONE,
    errors.EventsExpired.code: HTTPStatus.GONE,
    errors.PreconditionFailed.code: HTTPStatus.PRECONDITION_FAILED,
    errors.UploadTooLarge.code: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.BodyTooLarge.code: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UrlTooLong.code: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.NotJson.code: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.NotMultipart.code: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.UnsupportedEncoding.code: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.UnsupportedFormat.code: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.RangeNotSatisfiable.code: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    errors.HostNotAllowed.code: HTTPStatus.MISDIRECTED_REQUEST,
    errors.IdempotencyKeyReused.code: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidRequest.code: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidMetadata.code: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.MetadataTooLarge.code: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.OptionAfterFile.code: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.OptionConflict.code: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RecipeAfterFile.code: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RecipeConflict.code: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.UnknownRecipe.code: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.UnknownWebhook.code: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.UrlNotAllowed.code: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.CorruptImage.code: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ImageTooLarge.code: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.TooManyUploads.code: HTTPStatus.TOO_MANY_REQUESTS,
    errors.UploadDisplaced.code: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooManyEventStreams.code: HTTPStatus.TOO_MANY_REQUESTS,
    errors.HeadTooLarge.code: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.ServiceError.code: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ObjectMissing.code: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ObjectChanged.code: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.BacklogFull.code: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DatabaseUnavailable.code: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageUnavailable.code: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.TooManyConnections.code: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageFull.code: HTTPStatus.INSUFFICIENT_STORAGE,
}
"""The status of every error that can be a response. Other errors appear in an image's ``error`` or in the log."""

_CLOSE: Final = {"Connection": "close"}
_HEADERS: Final[Mapping[str, Mapping[str, str]]] = {
    # The rest of the request would take as long again (RFC 9110, 15.5.9).
    errors.UploadStalled.code: _CLOSE,
    errors.UploadDisplaced.code: _CLOSE,
    # Says that it was the encoding, and which one is accepted (RFC 9110, 15.5.16).
    errors.UnsupportedEncoding.code: {"Accept-Encoding": "identity"},
}
"""Headers that belong to the response to an error."""

_METHODS: Final = ("GET", "HEAD", "POST", "DELETE")
"""The methods that any operation has."""

_log = structlog.get_logger(__name__)


def problem_response(error: ServiceError, headers: Mapping[str, str] | None = None) -> Response:
    """Returns the response to a request that failed.

    Of a server error (5xx) the client gets the general sentence of its class: an exact detail may be for operators,
    and is in the log.

    Args:
        error: An error whose code has a status.
        headers: Additional headers.
    """
    status = STATUS[error.code]
    detail = type(error)().detail if _is_server_error(status) else error.detail
    retry = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return JSONResponse(
        _document(type(error), detail),
        status.value,
        {"Cache-Control": NO_STORE, **NOSNIFF, **retry, **_HEADERS.get(error.code, {}), **(headers or {})},
        MEDIA_TYPE,
    )


def refusal(scope: Scope, error: ServiceError) -> Response:
    """Returns the response to a request that failed, and notes it for ``RequestMetrics``."""
    state = scope.setdefault("state", {})
    state["problem"] = error.code
    headers = {"Vary": state[VARY]} if VARY in state else None
    return problem_response(error if error.code in STATUS else ServiceError(), headers)


def documented(*kinds: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """Returns the OpenAPI description of the errors that an operation can respond with."""
    by_status: dict[HTTPStatus, list[type[ServiceError]]] = {}
    for kind in kinds:
        by_status.setdefault(STATUS[kind.code], []).append(kind)
    return {status.value: _description(status, group) for status, group in by_status.items()}


def install_handlers(app: FastAPI) -> None:
    """Makes the application answer every error with a problem document."""

    @app.exception_handler(ServiceError)
    async def on_service_error(request: Request, error: ServiceError) -> Response:
        _log_error(error)
        return refusal(request.scope, error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid_request(_request: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        wrong = "; ".join(map(_wrong, found[:_SHOWN]))
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        return problem_response(errors.InvalidRequest(f"The request is not valid: {wrong}{more}."))

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        """Answers what the framework refuses: unknown paths and methods."""
        path = request.scope["path"]  # request.url fails where the query is not UTF-8
        if error.status_code == HTTPStatus.NOT_FOUND:
            hint = " Leave the slash at its end out." if path.rstrip("/") not in {"", path} else ""
            return problem_response(errors.NotFound(f"There is nothing at {path}.{hint} The API is at /docs."))
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            wrong = f"{request.method} is not allowed at {path}. The API is at /docs."
            return problem_response(errors.MethodNotAllowed(wrong), error.headers and {"Allow": _allowed(request)})
        return problem_response(errors.InvalidRequest(f"The request is not valid: {error.detail}."))


def _wrong(problem: Mapping[str, Any]) -> str:
    """Returns what is wrong with one parameter or field; nothing that the client sent but its name, which is cut."""
    if problem["type"] == "json_invalid":
        return f"the body is not JSON: {problem['ctx']['error']}"
    where = problem["loc"]
    name = one_line(".".join(map(str, where[1:] or where)), _NAME_SHOWN)
    what = problem["msg"].removeprefix("Value error, ")
    return f"{name}: {'there is no such field' if problem['type'] == 'extra_forbidden' else what}"


def _log_error(error: ServiceError) -> None:
    if error.code not in STATUS:
        _log.error("unmapped error reached the API", code=error.code, exc_info=error)
    elif isinstance(error, Outage):
        _log.warning("request failed: dependency unavailable", code=error.code, detail=error.detail)
    elif isinstance(error, Busy) or not _is_server_error(STATUS[error.code]):
        _log.info("request refused", code=error.code, detail=error.detail)
    else:
        _log.error("request failed", code=error.code, detail=error.detail)


def _is_server_error(status: HTTPStatus) -> bool:
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _allowed(request: Request) -> str:
    """Returns all methods of a path: the framework's own ``Allow`` header names those of one operation only."""
    routes = request.app.routes
    methods = (method for method in _METHODS for route in routes if _matches(route, request.scope, method))
    return ", ".join(dict.fromkeys(methods))


def _matches(route: BaseRoute, scope: Scope, method: str) -> bool:
    match, _ = route.matches({**scope, "method": method})
    return match is Match.FULL


def _document(kind: type[ServiceError], detail: str) -> dict[str, str | int]:
    return {
        "type": f"urn:image-service:problem:{kind.code}",
        "title": kind.code.replace("-", " ").capitalize(),
        "status": STATUS[kind.code].value,
        "detail": detail,
        "code": kind.code,
    }


def _description(status: HTTPStatus, kinds: Iterable[type[ServiceError]]) -> dict[str, Any]:
    examples = {kind.code: {"value": _document(kind, kind().detail)} for kind in kinds}
    return {
        "description": f"{status.phrase}: {', '.join(f'`{code}`' for code in examples)}",
        "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema(), "examples": examples}},
    }
