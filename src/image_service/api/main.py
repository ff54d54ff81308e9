"""The HTTP application, put together."""

from typing import Final

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from image_service import __version__
from image_service.api.admission import Admission
from image_service.api.docs import install_docs
from image_service.api.middleware import ForwardedHeaders, Measured, RequestContext, is_quiet
from image_service.api.problems import install_handlers
from image_service.api.routes.health import health_router
from image_service.api.routes.images import images_router
from image_service.api.uploads import UploadReader
from image_service.bootstrap import ApiServices
from image_service.config import Settings
from image_service.observability.metrics import Metrics

_DESCRIPTION = """
Upload an image, and get thumbnails of it: 100x100, 300x300 and 1200x1200, upright, in sRGB, without metadata.

`POST /images` answers **202** once the image is safe. `GET /images/{id}` tells its status: **NEW** (safe, not yet
queued), **PROCESSING**, **DONE** (all thumbnails exist) or **ERROR** (`error` says why). Every error is a problem
document (RFC 9457) with a stable `code`.
"""


_TELEMETRY: Final[TelemetryConfig] = {
    # Spans of requests are FastAPI's own, wherever spans are sent at all; everything else is ours.
    "tracing": True,
    "exclude": is_quiet,
    "operation_spans": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}


def create_app(services: ApiServices, settings: Settings, metrics: Metrics | None = None) -> FastAPI:
    """The application, ready to be served; measured where there are metrics to tell of it."""
    app = FastAPI(
        title="Image Processing Service",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        # A redirect would name a host of its own guess, and lose the upload of a client that does not follow it.
        redirect_slashes=False,
        telemetry=_TELEMETRY,
    )
    install_handlers(app)
    uploads = UploadReader(max_file_size=settings.max_file_size, idle_timeout=settings.upload_idle_timeout)
    admission = Admission(settings.max_concurrent_uploads)
    app.include_router(images_router(services, uploads=uploads, admission=admission, public_url=settings.public_url))
    app.include_router(health_router(services.health, standalone=settings.embedded_queue))
    install_docs(app)
    # The last one added is the outermost.
    app.add_middleware(RequestContext)
    app.add_middleware(ForwardedHeaders, trusted=settings.trusted_proxies)
    if metrics is not None:
        app.add_middleware(Measured, metrics=metrics)
    return app
