"""The HTTP contract, on the real application with a real database and real files."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from uuid import UUID

import pytest
from fastapi.routing import APIRoute
from structlog.testing import capture_logs

from harness.api import (
    BASE,
    JPEG,
    PNG,
    SIZES,
    UNKNOWN,
    Api,
    QueueThatIsAway,
    accepted,
    api_on,
    fail,
    finish,
    problem,
    upload,
)
from harness.fakes import TRAITS
from harness.forms import CONTENT_TYPE, form, part
from harness.images import encoded, gradient, png_header
from harness.pace import Stopwatch
from harness.processes import free_port
from harness.proxy import Mode, Proxy
from image_service.api.admission import Admission
from image_service.api.problems import STATUS
from image_service.api.routes.health import health_router
from image_service.api.routes.images import images_router
from image_service.api.uploads import UploadReader
from image_service.bootstrap import api_services
from image_service.ports import Delivery
from image_service.queue.embedded import EmbeddedQueue


@pytest.fixture
async def api(database_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with api_on(database_url, tmp_path) as api:
        yield api


@pytest.fixture
async def small_api(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    """One that accepts little."""
    async with api_on(sqlite_url, tmp_path, max_file_size=20_000, max_pixels=10_000, upload_idle_timeout=0.2) as api:
        yield api


def is_now(text: str) -> bool:
    assert text.endswith("Z")
    return abs(datetime.now(UTC) - datetime.fromisoformat(text)) < timedelta(minutes=1)


async def test_an_upload_is_accepted(api: Api) -> None:
    answer = await upload(api)
    body = answer.json()
    assert answer.status_code == 202
    assert body == {
        "id": body["id"],
        "status": "PROCESSING",
        "message": "Image uploaded successfully and queued for processing",
    }
    assert str(UUID(body["id"])) == body["id"]
    assert UUID(body["id"]).version == 7
    assert answer.headers["location"] == f"/images/{body['id']}"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["retry-after"] == "1"
    assert await api.depth() == 1
    assert [path.read_bytes() for path in api.originals] == [PNG]
    assert not api.scratch


async def test_the_location_leads_to_the_image(api: Api) -> None:
    answer = await upload(api)
    assert (await api.client.get(answer.headers["location"])).json()["id"] == answer.json()["id"]


async def test_an_upload_while_the_queue_is_away_is_accepted_and_waits(database_url: str, tmp_path: Path) -> None:
    async with api_on(database_url, tmp_path, QueueThatIsAway()) as api:
        answer = await upload(api)
        body = answer.json()
        assert answer.status_code == 202
        assert body == {
            "id": body["id"],
            "status": "NEW",
            "message": "Image uploaded successfully; it is queued for processing as soon as the queue is back",
        }
        assert answer.headers["location"] == f"/images/{body['id']}"
        assert (await api.client.get(answer.headers["location"])).json()["status"] == "NEW"
        assert [path.read_bytes() for path in api.originals] == [PNG]
        assert not api.scratch


async def test_a_defect_after_the_image_was_recorded_does_not_lose_it(sqlite_url: str, tmp_path: Path) -> None:
    class Defective(EmbeddedQueue):
        async def publish(self, delivery: Delivery) -> None:
            raise ZeroDivisionError(delivery.image_id)

    async with api_on(sqlite_url, tmp_path, Defective()) as api:
        with capture_logs() as log:
            document = problem(await upload(api), 500, "internal-error")
        assert [line["event"] for line in log] == ["request failed", "request"]
        (kept,) = api.originals
        assert kept.name not in str(document)
        assert (await api.client.get(f"/images/{kept.name}")).json()["status"] == "NEW"
        assert not api.scratch


async def test_an_image_in_every_state(api: Api) -> None:
    image_id = await accepted(api, JPEG)

    async def told() -> dict[str, Any]:
        answer = await api.client.get(f"/images/{image_id}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        body: dict[str, Any] = answer.json()
        assert is_now(body.pop("created_at"))
        assert is_now(body.pop("updated_at"))
        return body

    processing = {
        "id": image_id,
        "status": "PROCESSING",
        "original_url": f"{BASE}/images/{image_id}/original",
        "thumbnails": {},
        "content_type": "image/jpeg",
        "size_bytes": len(JPEG),
        "sha256": hashlib.sha256(JPEG).hexdigest(),
        "width": 60,
        "height": 40,
        "placeholder": None,
        "dominant_colour": None,
        "metadata_removed": None,
        "finished_at": None,
        "original_removed_at": None,
        "error": None,
    }
    assert await told() == processing
    contents = await finish(api, image_id)
    done = await told()
    assert is_now(done.pop("finished_at"))
    del processing["finished_at"]
    assert done == processing | {
        "status": "DONE",
        "width": 40,
        "height": 60,
        "placeholder": TRAITS.placeholder,
        "dominant_colour": "#8b5a2b",
        "metadata_removed": ["exif", "gps"],
        "thumbnails": {
            name: f"{BASE}/images/{image_id}/thumbnails/{name}?v={hashlib.sha256(content).hexdigest()[:16]}"
            for name, content in contents.items()
        },
    }


async def test_an_image_in_error(api: Api) -> None:
    image_id = await accepted(api)
    await fail(api, image_id)
    body = (await api.client.get(f"/images/{image_id}")).json()
    assert body["status"] == "ERROR"
    assert body["error"] == {"code": "corrupt-image", "detail": "Export it again."}
    assert body["thumbnails"] == {}
    assert is_now(body["finished_at"])


async def test_the_original_is_served_byte_for_byte_in_every_state(api: Api) -> None:
    image_id = await accepted(api, JPEG)
    answers = [await api.client.get(f"/images/{image_id}/original")]
    await finish(api, image_id)
    answers.append(await api.client.get(f"/images/{image_id}/original"))
    for answer in answers:
        assert answer.status_code == 200
        assert answer.content == JPEG
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["content-length"] == str(len(JPEG))
        assert answer.headers["content-disposition"] == f'attachment; filename="{image_id}.jpg"'
        assert answer.headers["etag"] == f'"{hashlib.sha256(JPEG).hexdigest()}"'
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"


async def test_thumbnails_are_served_where_the_status_says(api: Api) -> None:
    image_id = await accepted(api)
    contents = await finish(api, image_id)
    urls = (await api.client.get(f"/images/{image_id}")).json()["thumbnails"]
    assert list(urls) == list(SIZES)
    for name, url in urls.items():
        answer = await api.client.get(url)
        assert answer.status_code == 200
        assert answer.content == contents[name]
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["content-disposition"] == f'inline; filename="{image_id}-{name}.jpg"'
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("query", ["", "?v=", "?v=0000000000000000", "?v=%ff", "?w=1"])
async def test_a_thumbnail_without_its_version_has_to_be_asked_for_again(small_api: Api, query: str) -> None:
    image_id = await accepted(small_api)
    await finish(small_api, image_id)
    answer = await small_api.client.get(f"/images/{image_id}/thumbnails/100x100{query}")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, no-cache"


@pytest.mark.parametrize("file", ["original", "thumbnails/300x300"])
async def test_files_can_be_asked_for_in_part_and_in_case_they_changed(api: Api, file: str) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    url = f"/images/{image_id}/{file}"
    whole = await api.client.get(url)
    same = await api.client.get(url, headers={"If-None-Match": whole.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    piece = await api.client.get(url, headers={"Range": "bytes=-10"})
    assert (piece.status_code, piece.content) == (206, whole.content[-10:])
    head = await api.client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))
    outside = await api.client.get(url, headers={"Range": f"bytes={len(whole.content)}-"})
    problem(outside, 416, "range-not-satisfiable")


async def test_a_file_that_is_missing_is_told_with_the_request_id(api: Api) -> None:
    image_id = await accepted(api)
    for path in api.originals:
        path.unlink()
    answer = await api.client.get(f"/images/{image_id}/original", headers={"X-Request-ID": "r-1"})
    problem(answer, 500, "object-missing")
    assert answer.headers["x-request-id"] == "r-1"


async def test_the_request_id_follows_the_image_into_the_queue(sqlite_url: str, tmp_path: Path) -> None:
    published: list[Delivery] = []

    class Listening(EmbeddedQueue):
        async def publish(self, delivery: Delivery) -> None:
            published.append(delivery)

    async with api_on(sqlite_url, tmp_path, Listening()) as api:
        answer = await api.client.post("/images", files={"file": PNG}, headers={"X-Request-ID": "r-1"})
    ((image_id, request_id),) = [(each.image_id, each.request_id) for each in published]
    assert (str(image_id), request_id) == (answer.json()["id"], "r-1")


@pytest.mark.parametrize(
    ("settings", "headers", "base", "path"),
    [
        ({}, {}, BASE, ""),
        ({}, {"Host": "img.example.org"}, "http://img.example.org", ""),
        ({}, {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "img.example.org"}, "https://img.example.org", ""),
        ({"trusted_proxies": "10.0.0.0/8"}, {"X-Forwarded-Host": "evil.example"}, BASE, ""),
        ({"public_url": "https://x.example/api/"}, {"X-Forwarded-Host": "b"}, "https://x.example/api", "/api"),
    ],
)
async def test_addresses_are_those_that_the_client_can_use(
    sqlite_url: str, tmp_path: Path, settings: dict[str, Any], headers: dict[str, str], base: str, path: str
) -> None:
    async with api_on(sqlite_url, tmp_path, **settings) as api:
        answer = await api.client.post("/images", files={"file": PNG}, headers=headers)
        assert answer.status_code == 202, answer.text
        image_id = answer.json()["id"]
        await finish(api, image_id)
        image = (await api.client.get(f"/images/{image_id}", headers=headers)).json()
    assert answer.headers["location"] == f"{path}/images/{image_id}"
    assert image["original_url"] == f"{base}/images/{image_id}/original"
    assert all(url.startswith(f"{base}/images/{image_id}/thumbnails/") for url in image["thumbnails"].values())


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
async def test_a_healthy_service(api: Api, path: str) -> None:
    answer = await api.client.get(path)
    body = answer.json()
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert is_now(body.pop("timestamp"))
    assert body == {
        "status": "healthy",
        "services": {"database": True, "rabbitmq": True, "storage": True},
        "waiting": {"normal": 0, "express": 0, "backfill": 0},
        "mode": "standalone",
    }


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
async def test_a_service_without_its_queue_is_degraded_but_ready(sqlite_url: str, tmp_path: Path, path: str) -> None:
    async with api_on(sqlite_url, tmp_path, QueueThatIsAway(), rabbitmq_url="amqp://nobody.invalid/") as api:
        answer = await api.client.get(path)
    body = answer.json()
    assert answer.status_code == 200
    assert is_now(body.pop("timestamp"))
    assert body == {
        "status": "degraded",
        "services": {"database": True, "rabbitmq": False, "storage": True},
        "waiting": None,
        "mode": "distributed",
    }


def away(kind: str, folder: Path) -> str:
    """A database that cannot be reached."""
    if kind == "sqlite":
        return f"sqlite+aiosqlite:///{folder / 'missing' / 'images.db'}"
    return f"postgresql+asyncpg://nobody@127.0.0.1:{free_port()}/nothing"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_service_without_its_database_is_unhealthy_but_lives(tmp_path: Path, kind: str) -> None:
    async with api_on(away(kind, tmp_path), tmp_path) as api:
        for path in ("/health", "/health/ready"):
            answer = await api.client.get(path)
            body = answer.json()
            assert answer.status_code == 503
            assert is_now(body.pop("timestamp"))
            assert body == {
                "status": "unhealthy",
                "services": {"database": False, "rabbitmq": True, "storage": True},
                "waiting": {"normal": 0, "express": 0, "backfill": 0},
                "mode": "standalone",
            }
        alive = await api.client.get("/health/live")
    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})


async def test_a_service_without_its_storage_is_unhealthy_and_accepts_nothing(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "storage").write_bytes(b"a file, no folder")
    async with api_on(sqlite_url, tmp_path) as api:
        report = await api.client.get("/health")
        answer = await upload(api)
    assert report.status_code == 503
    assert report.json()["status"] == "unhealthy"
    assert report.json()["services"] == {"database": True, "rabbitmq": True, "storage": False}
    problem(answer, 503, "storage-unavailable")
    assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_without_the_database_every_request_is_answered_in_time(tmp_path: Path, kind: str) -> None:
    async with api_on(away(kind, tmp_path), tmp_path) as api:
        watch = Stopwatch()
        answers = await asyncio.gather(
            upload(api), api.client.get(f"/images/{UNKNOWN}"), api.client.get(f"/images/{UNKNOWN}/original")
        )
        assert watch.seconds < 6
        for answer in answers:
            problem(answer, 503, "database-unavailable")
            assert answer.headers["retry-after"] == "5"
        assert not api.scratch


async def test_a_database_that_hangs_delays_no_answer_beyond_its_time(
    postgres_database_url: str, tmp_path: Path
) -> None:
    async with Proxy.before(postgres_database_url) as proxy, api_on(proxy.url(postgres_database_url), tmp_path) as api:
        image_id = await accepted(api)
        proxy.switch(Mode.BLACK_HOLE)
        watch = Stopwatch()
        health = asyncio.create_task(api.client.get("/health"))
        answers = asyncio.gather(upload(api), api.client.get(f"/images/{image_id}"))
        report = await health
        assert watch.seconds < 3
        assert report.status_code == 503
        assert report.json()["services"] == {"database": False, "rabbitmq": True, "storage": True}
        for answer in await answers:
            problem(answer, 503, "database-unavailable")
        assert watch.seconds < 6
        assert not api.scratch


@pytest.mark.parametrize("file", ["", "/original", "/thumbnails/100x100"])
async def test_an_image_that_is_not_there(api: Api, file: str) -> None:
    problem(await api.client.get(f"/images/{UNKNOWN}{file}"), 404, "image-not-found")


@pytest.mark.parametrize("size", ["100x100", "5x5", "%2e%2e", "100x100%00", "späť"])
async def test_a_thumbnail_that_is_not_there(small_api: Api, size: str) -> None:
    image_id = await accepted(small_api)
    problem(await small_api.client.get(f"/images/{image_id}/thumbnails/{size}"), 404, "thumbnail-not-found")


async def test_a_size_that_no_recipe_has_is_not_there_once_the_image_is_done(small_api: Api) -> None:
    image_id = await accepted(small_api)
    await finish(small_api, image_id)
    problem(await small_api.client.get(f"/images/{image_id}/thumbnails/5x5"), 404, "thumbnail-not-found")


@pytest.mark.parametrize("image_id", ["1", "x" * 1000, f"{UNKNOWN}0", "%00", "späť", "'; drop table images"])
@pytest.mark.parametrize("file", ["", "/original", "/thumbnails/100x100"])
async def test_an_id_that_is_none(small_api: Api, image_id: str, file: str) -> None:
    document = problem(await small_api.client.get(f"/images/{image_id}{file}"), 422, "invalid-request")
    assert document["detail"].startswith("The request is not valid: image_id: ")


@pytest.mark.parametrize("path", ["/image", "/images/x/y", "/admin", "/docs-assets/nothing.js", "/docs-assets/../x"])
async def test_an_unknown_path(small_api: Api, path: str) -> None:
    problem(await small_api.client.get(path), 404, "not-found")


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/images/", f"/images/{UNKNOWN}/", "/health/", "/docs/", "/images//"])
async def test_a_slash_at_the_end_leads_nowhere_and_is_pointed_out(small_api: Api, method: str, path: str) -> None:
    """No redirect: it would have to know the host behind all proxies, and an upload would silently not be sent on."""
    answer = await small_api.client.request(method, path)
    document = problem(answer, 404, "not-found")
    assert document["detail"] == f"There is nothing at {path}. Leave the slash at its end out. The API is at /docs."
    assert "location" not in answer.headers


async def test_an_upload_to_an_address_with_a_slash_too_many_is_refused_in_so_many_words(small_api: Api) -> None:
    answer = await small_api.client.post("/images/", files={"file": PNG})
    assert "Leave the slash at its end out." in problem(answer, 404, "not-found")["detail"]
    assert not small_api.originals


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/images", "GET, POST"),
        ("PATCH", f"/images/{UNKNOWN}", "GET, DELETE"),
        ("GET", f"/images/{UNKNOWN}/reprocess", "POST"),
        ("DELETE", f"/images/{UNKNOWN}/original", "GET, HEAD"),
        ("POST", "/health", "GET"),
        ("PUT", "/docs", "GET"),
    ],
)
async def test_a_method_that_is_not_allowed(small_api: Api, method: str, path: str, allowed: str) -> None:
    answer = await small_api.client.request(method, path)
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == allowed


REFUSED = {
    "empty file": (form(part(b"")), 400, "empty-upload"),
    "no field of that name": (form(part(PNG, b"photo")), 400, "missing-file"),
    "two files": (form(part(PNG), part(JPEG)), 400, "too-many-files"),
    "no form": (PNG, 400, "malformed-upload"),
    "no body": (b"", 400, "malformed-upload"),
    "cut off": (form(part(PNG))[:-20], 400, "malformed-upload"),
    "cut off in the header": (form(part(PNG))[:30], 400, "malformed-upload"),
    "junk behind the file": (form(part(PNG))[:-4] + b"xx\r\n", 400, "malformed-upload"),
    "body too large": (form(part(PNG + bytes(200_000))), 413, "upload-too-large"),
    "file too large, body not": (form(part(PNG + bytes(20_000))), 413, "upload-too-large"),
    "text": (form(part(b"not an image" * 1000)), 415, "unsupported-format"),
    "little text": (form(part(b"x")), 415, "unsupported-format"),
    "markup": (form(part(b"<svg xmlns='http://www.w3.org/2000/svg'/>")), 415, "unsupported-format"),
    "broken header": (form(part(PNG[:20])), 422, "corrupt-image"),
    "no pixels": (form(part(png_header(0, 10))), 422, "corrupt-image"),
    "too many pixels": (form(part(png_header(1000, 1000))), 422, "image-too-large"),
}


@pytest.mark.parametrize("refused", REFUSED)
async def test_what_is_refused_leaves_nothing_behind(small_api: Api, refused: str) -> None:
    body, status, code = REFUSED[refused]
    answer = await small_api.client.post("/images", content=body, headers={"Content-Type": CONTENT_TYPE})
    problem(answer, status, code)
    described = small_api.app.openapi()["paths"]["/images"]["post"]["responses"][str(status)]
    assert code in described["content"]["application/problem+json"]["examples"]
    assert not small_api.scratch
    assert not small_api.originals
    assert await small_api.depth() == 0
    assert (await upload(small_api)).status_code == 202


@pytest.mark.parametrize("length", [1, 60, 5000])
async def test_an_upload_that_stalls_leaves_nothing_behind(small_api: Api, length: int) -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield form(part(PNG + bytes(10_000)))[:length]
        await asyncio.Event().wait()

    answer = await small_api.client.post("/images", content=stalling(), headers={"Content-Type": CONTENT_TYPE})
    problem(answer, 408, "upload-stalled")
    assert not small_api.scratch
    assert not small_api.originals


@pytest.mark.parametrize("kind", ["application/json", "image/png", "application/x-www-form-urlencoded"])
async def test_a_request_that_is_no_form(small_api: Api, kind: str) -> None:
    answer = await small_api.client.post("/images", content=PNG, headers={"Content-Type": kind})
    problem(answer, 415, "not-multipart")


async def test_a_request_without_anything(small_api: Api) -> None:
    problem(await small_api.client.post("/images"), 400, "missing-file")


@pytest.mark.parametrize("kind", ["text/plain", "image/jpeg", "application/x-php", "image/svg+xml", "nonsense"])
@pytest.mark.parametrize("name", ["a.txt", "x.html", "../../etc/passwd", "a\0b.png", "späť.png", "a" * 1000])
async def test_the_content_alone_decides_what_an_image_is(small_api: Api, name: str, kind: str) -> None:
    answer = await upload(small_api, PNG, name, kind)
    assert answer.status_code == 202, answer.text
    image_id = answer.json()["id"]
    original = await small_api.client.get(f"/images/{image_id}/original")
    assert original.content == PNG
    assert original.headers["content-type"] == "image/png"
    assert original.headers["content-disposition"] == f'attachment; filename="{image_id}.png"'
    assert [path.name for path in small_api.originals] == [image_id]


@pytest.mark.parametrize("name", ["photo.jpg", "x.html"])
async def test_neither_name_nor_type_makes_an_image_of_anything_else(small_api: Api, name: str) -> None:
    answer = await upload(small_api, b"<html><script>alert(1)</script></html>" * 200, name, "image/jpeg")
    document = problem(answer, 415, "unsupported-format")
    assert "AVIF, GIF, JPEG, PNG, WEBP" in document["detail"]


async def test_twenty_uploads_at_once(api: Api) -> None:
    contents = [encoded(gradient(20 + number, 20), "PNG") for number in range(20)]
    answers = await asyncio.gather(*(upload(api, content) for content in contents))
    assert [answer.status_code for answer in answers] == [202] * 20
    ids = [answer.json()["id"] for answer in answers]
    assert len(set(ids)) == 20
    originals = await asyncio.gather(*(api.client.get(f"/images/{image_id}/original") for image_id in ids))
    assert [original.content for original in originals] == contents
    assert await api.depth() == 20
    assert not api.scratch


async def test_the_same_bytes_twice_are_two_images(api: Api) -> None:
    assert await accepted(api) != await accepted(api)


class References(HTMLParser):
    """Everything that a page loads or links to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        self.found += [value for name, value in attrs if name in {"src", "href"} and value]


async def test_the_documentation_opens_without_the_internet(small_api: Api) -> None:
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
        assert not reference.startswith("/"), "it would not hold behind a proxy that adds a path"
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
    services = api_services(small_api.settings, small_api.resources)
    routers = [
        images_router(
            services, uploads=UploadReader(max_file_size=1, idle_timeout=1), admission=Admission(1), public_url=None
        ),
        health_router(services.health, standalone=True),
    ]
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
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


async def test_every_documented_error_has_an_example_of_its_status(small_api: Api) -> None:
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
        if kind == "application/json":  # an unhealthy service reports as a healthy one does
            assert status == 503
            assert content["example"]["status"] == "unhealthy"
        else:
            assert kind == "application/problem+json"
            assert content["examples"]
            for code, example in content["examples"].items():
                assert example["value"]["code"] == code
                assert example["value"]["status"] == STATUS[code].value == status


async def test_the_form_with_its_file_is_documented_though_it_is_streamed(small_api: Api) -> None:
    schema = (await small_api.client.get("/openapi.json")).json()
    body = schema["paths"]["/images"]["post"]["requestBody"]
    assert body["required"] is True
    form_schema = body["content"]["multipart/form-data"]["schema"]
    assert form_schema["required"] == ["file"]
    assert form_schema["properties"]["file"]["format"] == "binary"


@pytest.mark.parametrize("model", ["UploadAccepted", "ImageStatus", "HealthReport"])
async def test_answers_are_documented_with_an_example(small_api: Api, model: str) -> None:
    described = (await small_api.client.get("/openapi.json")).json()["components"]["schemas"][model]
    (example,) = described["examples"]
    left_out = {"error", "original_removed_at"}  # by FastAPI, because they are null
    assert set(example) - left_out == set(described["properties"]) - left_out
