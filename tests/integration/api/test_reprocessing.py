"""Reprocessing keeps an image's thumbnails until the new ones are complete."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from harness.api import (
    BASE,
    JPEG,
    UNKNOWN,
    Api,
    UnavailableQueue,
    accepted,
    api_on,
    claimed,
    complete,
    fail,
    finish,
    problem,
    remove_original,
    status_of,
)
from harness.fakes import TRAITS
from harness.processes import free_port


async def reprocess(api: Api, image_id: str, status: str = "PROCESSING") -> None:
    """Requests reprocessing of an image, which must be accepted."""
    answer = await api.client.post(f"/images/{image_id}/reprocess")
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/images/{image_id}"
    assert answer.headers["retry-after"] == "1"
    assert answer.json() == {"id": image_id, "status": status, "message": "Image is queued to be processed again"}


async def served(api: Api, image_id: str) -> dict[str, bytes]:
    """Returns the thumbnails at the URLs of the status."""
    answers = {name: await api.client.get(url) for name, url in (await status_of(api, image_id))["thumbnails"].items()}
    for answer in answers.values():
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    return {name: answer.content for name, answer in answers.items()}


async def test_existing_thumbnails_are_served_until_the_new_ones_are_complete(api: Api) -> None:
    image_id = await accepted(api, JPEG)
    old = await finish(api, image_id, quality=50)
    before = await status_of(api, image_id)
    await reprocess(api, image_id)
    assert await api.depth() == 2
    pending = await status_of(api, image_id)
    assert pending["status"] == "PROCESSING"
    assert pending["finished_at"] is None
    assert pending["updated_at"] > before["updated_at"]
    changing = {"status", "finished_at", "updated_at"}
    assert {name: pending[name] for name in pending.keys() - changing} == {
        name: before[name] for name in before.keys() - changing
    }
    assert await served(api, image_id) == old

    claim = await claimed(api, image_id)
    assert await served(api, image_id) == old
    new = await complete(api, claim, quality=90)
    after = await status_of(api, image_id)
    assert after["status"] == "DONE"
    assert after["finished_at"] > before["finished_at"]
    assert after["created_at"] == before["created_at"]
    assert set(after["thumbnails"].values()).isdisjoint(before["thumbnails"].values())
    assert after["thumbnails"] == {
        name: f"{BASE}/images/{image_id}/thumbnails/{name}?v={hashlib.sha256(content).hexdigest()[:16]}"
        for name, content in new.items()
    }
    assert await served(api, image_id) == new
    for name, url in before["thumbnails"].items():  # URLs of the previous version still return a thumbnail
        answer = await api.client.get(url)
        assert (answer.status_code, answer.content) == (200, new[name])
        assert answer.headers["cache-control"] == "public, no-cache"
    assert (await api.client.get(f"/images/{image_id}/original")).content == JPEG


async def test_failed_image_is_reprocessed(api: Api) -> None:
    image_id = await accepted(api)
    await fail(api, image_id)
    assert (await status_of(api, image_id))["error"]["code"] == "corrupt-image"
    await reprocess(api, image_id)
    pending = await status_of(api, image_id)
    assert (pending["status"], pending["error"], pending["finished_at"]) == ("PROCESSING", None, None)
    assert pending["thumbnails"] == {}
    new = await finish(api, image_id)
    after = await status_of(api, image_id)
    assert (after["status"], after["error"]) == ("DONE", None)
    assert after["placeholder"] == TRAITS.placeholder
    assert await served(api, image_id) == new


async def test_failed_reprocessing_keeps_the_thumbnails(api: Api) -> None:
    image_id = await accepted(api)
    old = await finish(api, image_id)
    await reprocess(api, image_id)
    await fail(api, image_id)
    after = await status_of(api, image_id)
    assert (after["status"], after["error"]["code"]) == ("ERROR", "corrupt-image")
    assert after["finished_at"]
    assert await served(api, image_id) == old
    await reprocess(api, image_id)


async def test_image_can_be_reprocessed_repeatedly(api: Api) -> None:
    image_id = await accepted(api)
    for quality in (50, 60, 70, 80):
        contents = await finish(api, image_id, quality=quality)
        assert await served(api, image_id) == contents
        await reprocess(api, image_id)


async def test_unfinished_image_is_not_reprocessed(api: Api) -> None:
    image_id = await accepted(api)
    problem(await api.client.post(f"/images/{image_id}/reprocess"), 409, "still-processing")
    claim = await claimed(api, image_id)
    problem(await api.client.post(f"/images/{image_id}/reprocess"), 409, "still-processing")
    await complete(api, claim)
    await reprocess(api, image_id)
    problem(await api.client.post(f"/images/{image_id}/reprocess"), 409, "still-processing")
    assert await api.depth() == 2


async def test_concurrent_reprocess_requests_accept_one(api: Api) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    answers = await asyncio.gather(*(api.client.post(f"/images/{image_id}/reprocess") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [202, *[409] * 7]
    assert await api.depth() == 2


async def test_reprocessing_during_queue_outage_keeps_the_thumbnails(database_url: str, tmp_path: Path) -> None:
    async with api_on(database_url, tmp_path, UnavailableQueue()) as api:
        image_id = await accepted(api)
        old = await finish(api, image_id)
        await reprocess(api, image_id, "NEW")
        pending = await status_of(api, image_id)
        assert (pending["status"], pending["finished_at"]) == ("NEW", None)
        assert await served(api, image_id) == old
        problem(await api.client.post(f"/images/{image_id}/reprocess"), 409, "still-processing")


async def test_image_without_original_is_not_reprocessed(api: Api) -> None:
    image_id = await accepted(api)
    contents = await finish(api, image_id)
    await remove_original(api, image_id)
    problem(await api.client.post(f"/images/{image_id}/reprocess"), 410, "original-removed")
    problem(await api.client.get(f"/images/{image_id}/original"), 410, "original-removed")
    image = await status_of(api, image_id)
    assert image["status"] == "DONE"
    assert image["original_removed_at"]
    assert await served(api, image_id) == contents


async def test_reprocessing_an_unknown_image_returns_404(api: Api) -> None:
    problem(await api.client.post(f"/images/{UNKNOWN}/reprocess"), 404, "image-not-found")


@pytest.mark.parametrize("image_id", ["1", "späť", f"{UNKNOWN}0"])
async def test_reprocessing_an_invalid_id_returns_422(sqlite_api: Api, image_id: str) -> None:
    problem(await sqlite_api.client.post(f"/images/{image_id}/reprocess"), 422, "invalid-request")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 10_000])
async def test_request_body_is_ignored(sqlite_api: Api, content: bytes) -> None:
    image_id = await accepted(sqlite_api)
    await finish(sqlite_api, image_id)
    answer = await sqlite_api.client.post(f"/images/{image_id}/reprocess", content=content)
    assert answer.status_code == 202


async def test_reprocessing_during_database_outage_returns_503(tmp_path: Path) -> None:
    async with api_on(f"postgresql+asyncpg://unknown@127.0.0.1:{free_port()}/nothing", tmp_path) as api:
        answer = await api.client.post(f"/images/{UNKNOWN}/reprocess")
        problem(answer, 503, "database-unavailable")
        assert answer.headers["retry-after"] == "5"


async def test_reprocess_response_has_the_request_id(sqlite_api: Api) -> None:
    image_id = await accepted(sqlite_api)
    await finish(sqlite_api, image_id)
    headers = {"X-Request-ID": "r-1"}
    answer = await sqlite_api.client.post(f"/images/{image_id}/reprocess", headers=headers)
    assert answer.headers["x-request-id"] == "r-1"
