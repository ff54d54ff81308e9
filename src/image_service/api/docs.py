"""``/docs``: the API's documentation, from installed files, so that it works without internet access."""

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles


def install_docs(app: FastAPI) -> None:
    """Adds the documentation, and a redirect to it from ``/``."""
    router = APIRouter(include_in_schema=False)

    # Every URL is relative, so that it works behind a proxy that adds a path.
    @router.get("/")
    async def home() -> Response:
        return RedirectResponse("docs")

    @router.get("/docs")
    async def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="docs-assets/swagger-ui-bundle.js",
            swagger_css_url="docs-assets/swagger-ui.css",
            swagger_favicon_url="docs-assets/favicon-32x32.png",
            swagger_ui_parameters={"tryItOutEnabled": True, "displayRequestDuration": True},
        )

    app.include_router(router)
    app.mount("/docs-assets", StaticFiles(packages=[("fastapi_swagger", "resources")]))
