"""Builds the HTTP application."""

import asyncio
from typing import Final

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from image_service import __version__
from image_service.api.cors import share_with
from image_service.api.cross_site import CrossSiteProtection
from image_service.api.dependencies import ApiContext, set_context
from image_service.api.docs import install_docs, servers
from image_service.api.event_stream import EventDocuments
from image_service.api.fixed_document import FixedDocument
from image_service.api.middleware import ForwardedHeaders, RequestContext, RequestMetrics, is_quiet
from image_service.api.multipart import UploadReader
from image_service.api.problems import install_handlers
from image_service.api.recipe_documents import limits_of, recipe_list
from image_service.api.routes import deliveries, events, files, health, images, recipes, uploads, webhooks
from image_service.api.stream_places import StreamPlaces
from image_service.api.upload_limit import UploadLimit
from image_service.api.waiting import Waiting
from image_service.bootstrap import ApiServices
from image_service.config import Settings
from image_service.observability.metrics import Metrics

_DESCRIPTION: Final = """
Upload an image, and get thumbnails of it: 100x100, 300x300 and 1200x1200, or those of a recipe that `GET /recipes`
lists; upright, in sRGB, without metadata. `GET /limits` says what may be sent.

`POST /images` answers **202** once the image is stored. `GET /images/{id}` returns its status: **NEW** (stored, not
yet queued), **PROCESSING**, **DONE** (all thumbnails exist) or **ERROR** (`error` gives the reason). Instead of asking
again and again, follow `GET /images/{id}/events` or `GET /events`: what happens to images, as a stream of Server-Sent
Events or in JSON pages. Every error is a problem document (RFC 9457) with a stable `code`.
"""

_TELEMETRY: Final[TelemetryConfig] = {
    # FastAPI traces requests, where an exporter is installed; all other telemetry is the service's own.
    "tracing": True,
    "exclude": is_quiet,
    "operation_spans": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}


def create_app(
    services: ApiServices, settings: Settings, metrics: Metrics | None = None, stop: asyncio.Event | None = None
) -> FastAPI:
    """Returns the application, ready to be served; with metrics, requests are measured.

    Once ``stop`` is set, requests do not wait for events any more, and event streams end.
    """
    app = FastAPI(
        title="Image Processing Service",
        version=__version__,
        description=_DESCRIPTION,
        servers=servers(settings.public_url),
        openapi_url=None,  # install_docs adds it, with its headers
        docs_url=None,
        redoc_url=None,
        # A redirect would need the public host name, and lose the body of an upload whose client does not follow it.
        redirect_slashes=False,
        telemetry=_TELEMETRY,
    )
    stopping = stop or asyncio.Event()
    stream_places = StreamPlaces(settings.max_event_streams, stopping)
    waiting = Waiting(
        feed=services.feed,
        lookup=services.lookup,
        max_wait=settings.max_wait,
        max_waiting=settings.max_waiting,
        stopping=stopping,
    )
    if metrics is not None:
        metrics.track_waiting_requests(lambda: waiting.number)
        metrics.track_event_streams(lambda: stream_places.in_use)
    set_context(
        app,
        ApiContext(
            services=services,
            upload_reader=UploadReader(max_file_size=settings.max_file_size),
            upload_limit=UploadLimit(
                settings.max_concurrent_uploads,
                idle_timeout=settings.upload_idle_timeout,
                min_rate=settings.upload_min_rate,
            ),
            recipe_list=FixedDocument.of(recipe_list(services.recipes)),
            limits=FixedDocument.of(limits_of(settings, services.recipes)),
            public_url=settings.public_url,
            standalone=settings.embedded_queue,
            stopping=stopping,
            stream_places=stream_places,
            event_documents=EventDocuments(services.recipes),
            waiting=waiting,
        ),
    )
    install_handlers(app)
    for module in (uploads, images, files, events, webhooks, deliveries, recipes, health):
        app.include_router(module.router)
    install_docs(app)
    # The middleware that is added last runs first.
    app.add_middleware(
        CrossSiteProtection,
        hosts=settings.allowed_hosts,
        origins=settings.allowed_origins or (),
        public_url=settings.public_url,
    )
    app.add_middleware(RequestContext)
    if settings.allowed_origins:
        share_with(app, settings.allowed_origins)
    app.add_middleware(ForwardedHeaders, trusted=settings.trusted_proxies)
    if metrics is not None:
        app.add_middleware(RequestMetrics, metrics=metrics)
    return app
