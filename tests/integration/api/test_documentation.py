"""The documentation page and the OpenAPI description."""

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from fastapi.routing import APIRoute

from harness.api import BASE, Api, accepted, api_on, finish
from image_service.api.problems import STATUS
from image_service.api.routes import deliveries, events, files, health, images, recipes, uploads, webhooks


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
    modules = (uploads, images, files, events, webhooks, deliveries, recipes, health)
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
        ("GET", "/events"),
        ("GET", "/images/{image_id}/events"),
        ("POST", "/webhooks"),
        ("GET", "/webhooks"),
        ("GET", "/webhooks/{webhook_id}"),
        ("PATCH", "/webhooks/{webhook_id}"),
        ("DELETE", "/webhooks/{webhook_id}"),
        ("POST", "/webhooks/{webhook_id}/rotate"),
        ("POST", "/webhooks/{webhook_id}/test"),
        ("GET", "/webhooks/{webhook_id}/deliveries"),
        ("POST", "/webhooks/{webhook_id}/deliveries/{delivery_id}/replay"),
        ("POST", "/webhooks/{webhook_id}/replay"),
        ("GET", "/recipes"),
        ("GET", "/limits"),
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


@pytest.mark.parametrize("model", ["UploadAccepted", "ImageStatus", "HealthReport", "RecipeList", "Limits"])
async def test_responses_are_documented_with_examples(small_api: Api, model: str) -> None:
    described = (await small_api.client.get("/openapi.json")).json()["components"]["schemas"][model]
    (example,) = described["examples"]
    omitted = {"error", "original_removed_at"}  # by FastAPI, because they are null
    assert set(example) - omitted == set(described["properties"]) - omitted


@pytest.mark.parametrize(
    ("path", "policy"),
    [("/docs", "default-src 'none'; script-src 'self' 'sha256-"), ("/openapi.json", "default-src 'none'; sandbox")],
)
async def test_documentation_carries_security_headers(small_api: Api, path: str, policy: str) -> None:
    headers = (await small_api.client.get(path)).headers
    assert headers["content-security-policy"].startswith(policy)
    assert headers["x-content-type-options"] == "nosniff"


async def test_the_documentations_policy_allows_exactly_its_own_files_and_script(small_api: Api) -> None:
    page = await small_api.client.get("/docs")
    policy = dict(rule.strip().split(" ", 1) for rule in page.headers["content-security-policy"].split(";"))
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert policy["script-src"] == f"'self' 'sha256-{digest}'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert not re.search(r"<style|\son\w+=", page.text), "the policy allows neither"
    assets = [reference for reference in References(page.text).found if reference.startswith("docs-assets/")]
    assert len(assets) == 3
    for asset in assets:
        assert (await small_api.client.get(asset)).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("public_url", "servers"),
    [
        (None, None),
        ("https://img.example.org", None),
        ("https://example.org:8443/images-api", [{"url": "https://example.org:8443/images-api"}]),
    ],
)
async def test_description_names_the_server_below_a_prefix(
    sqlite_url: str, tmp_path: Path, public_url: str | None, servers: list[dict[str, str]] | None
) -> None:
    async with api_on(sqlite_url, tmp_path, public_url=public_url) as api:
        assert (await api.client.get("/openapi.json")).json().get("servers") == servers
        policy = (await api.client.get("/docs")).headers["content-security-policy"]
    assert ("connect-src 'self' https://example.org:8443;" in policy) == (servers is not None)


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/docs-assets/swagger-ui.css", "/images", "/health"])
async def test_head_is_get_without_a_body(small_api: Api, path: str) -> None:
    got, head = await small_api.client.get(path), await small_api.client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert {**head.headers, "x-request-id": ""} == {**got.headers, "x-request-id": ""}


async def test_head_is_answered_wherever_get_is(small_api: Api) -> None:
    image_id = await accepted(small_api)
    await finish(small_api, image_id)
    webhook = await small_api.client.post("/webhooks", json={"url": "https://hooks.example.org/"})
    paths = [path for path, methods in small_api.app.openapi()["paths"].items() if "get" in methods]
    assert len(paths) >= 7
    for path in paths:
        url = path.format(image_id=image_id, size="100x100", webhook_id=webhook.json()["id"])
        got, head = await small_api.client.get(url), await small_api.client.head(url)
        assert (got.status_code, head.status_code, head.content) == (200, 200, b""), path
        assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.content)), path
