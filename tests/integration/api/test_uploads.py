"""Uploads: what is accepted, what is refused, and what a refused upload leaves behind."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from harness.api import JPEG, PNG, Api, UnavailableQueue, accepted, api_on, problem, upload
from harness.counted import counted
from harness.forms import CONTENT_TYPE, form, part
from harness.images import encoded, gradient, png_header
from image_service.ports import Delivery
from image_service.queue.embedded import EmbeddedQueue


async def test_upload_is_accepted(api: Api) -> None:
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


async def test_location_is_the_image_status(api: Api) -> None:
    answer = await upload(api)
    assert (await api.client.get(answer.headers["location"])).json()["id"] == answer.json()["id"]


async def test_upload_during_queue_outage_is_accepted_as_new(database_url: str, tmp_path: Path) -> None:
    async with api_on(database_url, tmp_path, UnavailableQueue()) as api:
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


async def test_exception_after_recording_does_not_lose_the_image(sqlite_url: str, tmp_path: Path) -> None:
    class Defective(EmbeddedQueue):
        async def publish(self, delivery: Delivery) -> None:
            raise ZeroDivisionError(delivery.image_id)

    async with api_on(sqlite_url, tmp_path, Defective()) as api:
        with capture_logs() as log:
            document = problem(await upload(api), 500, "internal-error")
        assert [line["event"] for line in log if line["log_level"] == "error"] == ["request failed"]
        assert api.resources.metrics is not None
        assert counted(api.resources.metrics, "http_problems_total", route="/images", code="internal-error") == 1
        (kept,) = api.originals
        assert kept.name not in str(document)
        assert (await api.client.get(f"/images/{kept.name}")).json()["status"] == "NEW"
        assert not api.scratch


async def test_request_id_is_published_with_the_image(sqlite_url: str, tmp_path: Path) -> None:
    published: list[Delivery] = []

    class Listening(EmbeddedQueue):
        async def publish(self, delivery: Delivery) -> None:
            published.append(delivery)

    async with api_on(sqlite_url, tmp_path, Listening()) as api:
        answer = await api.client.post("/images", files={"file": PNG}, headers={"X-Request-ID": "r-1"})
    ((image_id, request_id),) = [(each.image_id, each.request_id) for each in published]
    assert (str(image_id), request_id) == (answer.json()["id"], "r-1")


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
async def test_refused_upload_leaves_nothing_behind(small_api: Api, refused: str) -> None:
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
async def test_stalled_upload_leaves_nothing_behind(small_api: Api, length: int) -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield form(part(PNG + bytes(10_000)))[:length]
        await asyncio.Event().wait()

    answer = await small_api.client.post("/images", content=stalling(), headers={"Content-Type": CONTENT_TYPE})
    problem(answer, 408, "upload-stalled")
    assert not small_api.scratch
    assert not small_api.originals


@pytest.mark.parametrize("kind", ["application/json", "image/png", "application/x-www-form-urlencoded"])
async def test_other_content_type_is_refused(small_api: Api, kind: str) -> None:
    answer = await small_api.client.post("/images", content=PNG, headers={"Content-Type": kind})
    problem(answer, 415, "not-multipart")


async def test_empty_request_is_refused(small_api: Api) -> None:
    problem(await small_api.client.post("/images"), 400, "missing-file")


@pytest.mark.parametrize("kind", ["text/plain", "image/jpeg", "application/x-php", "image/svg+xml", "nonsense"])
@pytest.mark.parametrize("name", ["a.txt", "x.html", "../../etc/passwd", "a\0b.png", "späť.png", "a" * 1000])
async def test_format_is_detected_from_the_content(small_api: Api, name: str, kind: str) -> None:
    answer = await upload(small_api, PNG, name, kind)
    assert answer.status_code == 202, answer.text
    image_id = answer.json()["id"]
    original = await small_api.client.get(f"/images/{image_id}/original")
    assert original.content == PNG
    assert original.headers["content-type"] == "image/png"
    assert original.headers["content-disposition"] == f'attachment; filename="{image_id}.png"'
    assert [path.name for path in small_api.originals] == [image_id]


@pytest.mark.parametrize("name", ["photo.jpg", "x.html"])
async def test_name_and_type_do_not_make_a_file_an_image(small_api: Api, name: str) -> None:
    answer = await upload(small_api, b"<html><script>alert(1)</script></html>" * 200, name, "image/jpeg")
    document = problem(answer, 415, "unsupported-format")
    assert "AVIF, GIF, JPEG, PNG, WEBP" in document["detail"]


async def test_twenty_concurrent_uploads_are_accepted(api: Api) -> None:
    contents = [encoded(gradient(20 + number, 20), "PNG") for number in range(20)]
    answers = await asyncio.gather(*(upload(api, content) for content in contents))
    assert [answer.status_code for answer in answers] == [202] * 20
    ids = [answer.json()["id"] for answer in answers]
    assert len(set(ids)) == 20
    originals = await asyncio.gather(*(api.client.get(f"/images/{image_id}/original") for image_id in ids))
    assert [original.content for original in originals] == contents
    assert await api.depth() == 20
    assert not api.scratch


async def test_same_file_twice_creates_two_images(api: Api) -> None:
    assert await accepted(api) != await accepted(api)
