"""The documentation page and the OpenAPI description."""

import re
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest
from fastapi.routing import APIRoute

from harness.api import BASE, Api
from image_service.api.problems import STATUS
from image_service.api.routes import files, health, images, uploads


class References(HTMLParser):
    """Collects the URLs that a page loads or links to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        self.found += [value for name, value in attrs if name in {"src", "href"} and value]


async def test_documentation_needs_no_internet_access(small_api: Api) -> None:
    home = await small_api.client.get("/")
    assert home.is_redirect
    page = await small_api.client.get(urljoin(f"{BASE}/", home.headers["location"]))
    assert (page.status_code, page.url.path) == (200, "/docs")
    assert page.headers["content-type"].startswith("text/html")
    references = References(page.text).found
    (schema,) = re.findall(r"url: '([^']+)'", page.text)
    assert len(references) == 3
    for reference in [*references, schema]:
        parts = urlsplit(reference)
        assert not parts.scheme
        assert not parts.netloc
        assert not reference.startswith("/"), "an absolute path fails behind a proxy that adds a prefix"
        answer = await small_api.client.get(urljoin(str(page.url), reference))
        assert answer.status_code == 200, reference
        assert answer.content


async def test_every_operation_is_documented(small_api: Api) -> None:
    schema = (await small_api.client.get("/openapi.json")).json()
    operations = {
        (method.upper(), path): operation
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    }
    modules = (uploads, images, files, health)
    routes = [route for module in modules for route in module.router.routes if isinstance(route, APIRoute)]
    assert set(operations) == {(method, route.path) for route in routes for method in route.methods or ()} - {
        ("HEAD", route.path) for route in routes
    }
    assert set(operations) == {
        ("POST", "/images"),
        ("GET", "/images"),
        ("GET", "/images/{image_id}"),
        ("DELETE", "/images/{image_id}"),
        ("POST", "/images/{image_id}/reprocess"),
        ("GET", "/images/{image_id}/original"),
        ("GET", "/images/{image_id}/thumbnails/{size}"),
        ("GET", "/health"),
        ("GET", "/health/ready"),
        ("GET", "/health/live"),
    }
    for operation in operations.values():
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"]
        assert all(parameter["schema"] for parameter in operation.get("parameters", []))


async def test_every_documented_error_has_an_example(small_api: Api) -> None:
    schema = (await small_api.client.get("/openapi.json")).json()
    operations = [operation for methods in schema["paths"].values() for operation in methods.values()]
    documented = [
        (int(status), content)
        for operation in operations
        for status, response in operation["responses"].items()
        if int(status) >= 400
        for content in response["content"].items()
    ]
    assert len(documented) > 15
    for status, (kind, content) in documented:
        if kind == "application/json":  # health reports have one shape, healthy or not
            assert status == 503
            assert content["example"]["status"] == "unhealthy"
        else:
            assert kind == "application/problem+json"
            assert content["examples"]
            for code, example in content["examples"].items():
                assert example["value"]["code"] == code
                assert example["value"]["status"] == STATUS[code].value == status


async def test_upload_form_is_documented(small_api: Api) -> None:
    schema = (await small_api.client.get("/openapi.json")).json()
    body = schema["paths"]["/images"]["post"]["requestBody"]
    assert body["required"] is True
    form_schema = body["content"]["multipart/form-data"]["schema"]
    assert form_schema["required"] == ["file"]
    assert form_schema["properties"]["file"]["format"] == "binary"


@pytest.mark.parametrize("model", ["UploadAccepted", "ImageStatus", "HealthReport"])
async def test_responses_are_documented_with_examples(small_api: Api, model: str) -> None:
    described = (await small_api.client.get("/openapi.json")).json()["components"]["schemas"][model]
    (example,) = described["examples"]
    omitted = {"error", "original_removed_at"}  # by FastAPI, because they are null
    assert set(example) - omitted == set(described["properties"]) - omitted
