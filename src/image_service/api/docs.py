"""``/docs``: the API's documentation, from installed files, so that it works without internet access."""

from functools import cache
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from image_service.api.routing import Router
from image_service.api.security_headers import INERT, NOSNIFF, for_page

_SCRIPT: Final = "<script>", "</script>"


def servers(public_url: str | None) -> list[dict[str, str]] | None:
    """Returns where the operations are, for the OpenAPI description; None: where the description is."""
    return [{"url": public_url}] if public_url and urlsplit(public_url).path else None


def install_docs(app: FastAPI) -> None:
    """Adds the documentation, the OpenAPI description, and a redirect to the documentation from ``/``."""
    router = Router(include_in_schema=False)
    page = _page(app.title)
    inline_script = page.partition(_SCRIPT[0])[2].partition(_SCRIPT[1])[0]
    origins = [f"{parts.scheme}://{parts.netloc}" for parts in (urlsplit(each["url"]) for each in app.servers)]
    page_headers = for_page(inline_script, reachable=" ".join(origins))

    @cache
    def description() -> bytes:
        return bytes(JSONResponse(app.openapi()).body)

    # Every URL is relative, so that it works behind a proxy that adds a path.
    @router.get("/")
    async def home() -> Response:
        return RedirectResponse("docs")

    @router.get("/docs")
    async def docs() -> Response:
        return Response(page, headers=page_headers, media_type="text/html")

    @router.get("/openapi.json")
    async def openapi() -> Response:
        return Response(description(), headers=INERT, media_type="application/json")

    app.include_router(router)
    app.mount("/docs-assets", _Assets(packages=[("fastapi_swagger", "resources")]))


class _Assets(StaticFiles):
    """The files that the page loads."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Returns a file."""
        response = await super().get_response(path, scope)
        response.headers.update(NOSNIFF)
        return response


def _page(title: str) -> str:
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=title,
        swagger_js_url="docs-assets/swagger-ui-bundle.js",
        swagger_css_url="docs-assets/swagger-ui.css",
        swagger_favicon_url="docs-assets/favicon-32x32.png",
        swagger_ui_parameters={"tryItOutEnabled": True, "displayRequestDuration": True},
    )
    return bytes(page.body).decode()
