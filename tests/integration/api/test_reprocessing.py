"""An image that is processed again keeps what it has until there is something newer."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from harness.api import (
    BASE,
    JPEG,
    UNKNOWN,
    Api,
    QueueThatIsAway,
    accepted,
    api_on,
    claimed,
    complete,
    fail,
    finish,
    problem,
    remove_original,
    told,
)
from harness.fakes import TRAITS
from harness.processes import free_port


async def again(api: Api, image_id: str, status: str = "PROCESSING") -> None:
    """Ask for an image to be processed again, which must be granted."""
    answer = await api.client.post(f"/images/{image_id}/reprocess")
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/images/{image_id}"
    assert answer.headers["retry-after"] == "1"
    assert answer.json() == {"id": image_id, "status": status, "message": "Image is queued to be processed again"}


async def served(api: Api, image_id: str) -> dict[str, bytes]:
    """The thumbnails that the status leads to."""
    answers = {name: await api.client.get(url) for name, url in (await told(api, image_id))["thumbnails"].items()}
    for answer in answers.values():
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    return {name: answer.content for name, answer in answers.items()}


async def test_the_old_thumbnails_are_served_until_there_are_new_ones_at_new_addresses(api: Api) -> None:
    image_id = await accepted(api, JPEG)
    old = await finish(api, image_id, quality=50)
    before = await told(api, image_id)
    await again(api, image_id)
    assert await api.depth() == 2
    meanwhile = await told(api, image_id)
    assert meanwhile["status"] == "PROCESSING"
    assert meanwhile["finished_at"] is None
    assert meanwhile["updated_at"] > before["updated_at"]
    changing = {"status", "finished_at", "updated_at"}
    assert {name: meanwhile[name] for name in meanwhile.keys() - changing} == {
        name: before[name] for name in before.keys() - changing
    }
    assert await served(api, image_id) == old

    claim = await claimed(api, image_id)
    assert await served(api, image_id) == old
    new = await complete(api, claim, quality=90)
    after = await told(api, image_id)
    assert after["status"] == "DONE"
    assert after["finished_at"] > before["finished_at"]
    assert after["created_at"] == before["created_at"]
    assert set(after["thumbnails"].values()).isdisjoint(before["thumbnails"].values())
    assert after["thumbnails"] == {
        name: f"{BASE}/images/{image_id}/thumbnails/{name}?v={hashlib.sha256(content).hexdigest()[:16]}"
        for name, content in new.items()
    }
    assert await served(api, image_id) == new
    for name, url in before["thumbnails"].items():  # a page that was loaded before still shows a picture
        answer = await api.client.get(url)
        assert (answer.status_code, answer.content) == (200, new[name])
        assert answer.headers["cache-control"] == "public, no-cache"
    assert (await api.client.get(f"/images/{image_id}/original")).content == JPEG


async def test_an_image_in_error_gets_another_chance(api: Api) -> None:
    image_id = await accepted(api)
    await fail(api, image_id)
    assert (await told(api, image_id))["error"]["code"] == "corrupt-image"
    await again(api, image_id)
    meanwhile = await told(api, image_id)
    assert (meanwhile["status"], meanwhile["error"], meanwhile["finished_at"]) == ("PROCESSING", None, None)
    assert meanwhile["thumbnails"] == {}
    new = await finish(api, image_id)
    after = await told(api, image_id)
    assert (after["status"], after["error"]) == ("DONE", None)
    assert after["placeholder"] == TRAITS.placeholder
    assert await served(api, image_id) == new


async def test_an_image_that_ends_in_error_the_second_time_keeps_the_thumbnails_of_the_first(api: Api) -> None:
    image_id = await accepted(api)
    old = await finish(api, image_id)
    await again(api, image_id)
    await fail(api, image_id)
    after = await told(api, image_id)
    assert (after["status"], after["error"]["code"]) == ("ERROR", "corrupt-image")
    assert after["finished_at"]
    assert await served(api, image_id) == old
    await again(api, image_id)


async def test_it_can_be_asked_for_as_often_as_it_was_granted(api: Api) -> None:
    image_id = await accepted(api)
    for quality in (50, 60, 70, 80):
        contents = await finish(api, image_id, quality=quality)
        assert await served(api, image_id) == contents
        await again(api, image_id)


async def test_an_image_that_waits_or_is_being_processed_is_not_begun_anew(api: Api) -> None:
    image_id = await accepted(api)
    problem(await api.client.post(f"/images/{image_id}/reprocess"), 409, "still-processing")
    claim = await claimed(api, image_id)
    problem(await api.client.post(f"/images/{image_id}/reprocess"), 409, "still-processing")
    await complete(api, claim)
    await again(api, image_id)
    problem(await api.client.post(f"/images/{image_id}/reprocess"), 409, "still-processing")
    assert await api.depth() == 2


async def test_of_many_who_ask_at_once_one_is_granted_it(api: Api) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    answers = await asyncio.gather(*(api.client.post(f"/images/{image_id}/reprocess") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [202, *[409] * 7]
    assert await api.depth() == 2


async def test_while_the_queue_is_away_the_image_waits_with_its_thumbnails(database_url: str, tmp_path: Path) -> None:
    async with api_on(database_url, tmp_path, QueueThatIsAway()) as api:
        image_id = await accepted(api)
        old = await finish(api, image_id)
        await again(api, image_id, "NEW")
        meanwhile = await told(api, image_id)
        assert (meanwhile["status"], meanwhile["finished_at"]) == ("NEW", None)
        assert await served(api, image_id) == old
        problem(await api.client.post(f"/images/{image_id}/reprocess"), 409, "still-processing")


async def test_an_image_whose_original_was_removed_stays_as_it_is(api: Api) -> None:
    image_id = await accepted(api)
    contents = await finish(api, image_id)
    await remove_original(api, image_id)
    problem(await api.client.post(f"/images/{image_id}/reprocess"), 410, "original-removed")
    problem(await api.client.get(f"/images/{image_id}/original"), 410, "original-removed")
    image = await told(api, image_id)
    assert image["status"] == "DONE"
    assert image["original_removed_at"]
    assert await served(api, image_id) == contents


async def test_an_image_that_is_not_there(api: Api) -> None:
    problem(await api.client.post(f"/images/{UNKNOWN}/reprocess"), 404, "image-not-found")


@pytest.mark.parametrize("image_id", ["1", "späť", f"{UNKNOWN}0"])
async def test_an_id_that_is_none(sqlite_api: Api, image_id: str) -> None:
    problem(await sqlite_api.client.post(f"/images/{image_id}/reprocess"), 422, "invalid-request")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 10_000])
async def test_a_body_makes_no_difference(sqlite_api: Api, content: bytes) -> None:
    image_id = await accepted(sqlite_api)
    await finish(sqlite_api, image_id)
    answer = await sqlite_api.client.post(f"/images/{image_id}/reprocess", content=content)
    assert answer.status_code == 202


async def test_while_the_database_is_away(tmp_path: Path) -> None:
    async with api_on(f"postgresql+asyncpg://nobody@127.0.0.1:{free_port()}/nothing", tmp_path) as api:
        answer = await api.client.post(f"/images/{UNKNOWN}/reprocess")
        problem(answer, 503, "database-unavailable")
        assert answer.headers["retry-after"] == "5"


async def test_the_request_id_follows_the_image_into_the_queue(sqlite_api: Api) -> None:
    image_id = await accepted(sqlite_api)
    await finish(sqlite_api, image_id)
    headers = {"X-Request-ID": "r-1"}
    answer = await sqlite_api.client.post(f"/images/{image_id}/reprocess", headers=headers)
    assert answer.headers["x-request-id"] == "r-1"
