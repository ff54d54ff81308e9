"""Requests that wait for an image to end (``Prefer: wait``)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from harness.api import (
    JPEG,
    PNG,
    UNKNOWN,
    Api,
    accepted,
    api_on,
    claimed,
    complete,
    fail,
    finish,
    problem,
    status_of,
    upload,
)
from harness.waiting import eventually, wait_for
from image_service.api.dependencies import ApiContext

LONG = {"Prefer": "wait=300"}
"""Longer than any test takes: the answer comes because of an event."""


@pytest.fixture
async def api(database_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with api_on(database_url, tmp_path, max_wait=300, max_waiting=3) as api:
        yield api


def waiting(api: Api) -> int:
    context: ApiContext = api.app.state.context
    return context.waiting.number


async def waits(api: Api, number: int = 1) -> None:
    await eventually(lambda: waiting(api) == number)


def posted(api: Api, prefer: str = "wait=300", **headers: str) -> asyncio.Task[httpx.Response]:
    files = {"file": ("a.png", PNG, "image/png")}
    return asyncio.create_task(api.client.post("/images", files=files, headers={"Prefer": prefer, **headers}))


def got(api: Api, image_id: str, prefer: str = "wait=300") -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(api.client.get(f"/images/{image_id}", headers={"Prefer": prefer}))


async def newest(api: Api) -> str:
    """The id of the only image, once it is published: then it can be claimed."""

    async def find() -> str:
        images = (await api.client.get("/images", params={"status": "PROCESSING"})).json()["images"]
        return str(images[0]["id"]) if images else ""

    return await eventually(find)


async def test_upload_is_answered_with_the_finished_image(api: Api) -> None:
    request = posted(api)
    image_id = await newest(api)
    await waits(api)
    assert api.slots_in_use == 0
    await finish(api, image_id)
    answer = await wait_for(request)
    assert answer.status_code == 200
    assert answer.json() == await status_of(api, image_id)
    assert answer.headers["content-location"] == f"/images/{image_id}"
    assert answer.headers["preference-applied"] == "wait=300"
    assert answer.headers["cache-control"] == "no-store"
    assert waiting(api) == 0


async def test_status_is_answered_when_the_image_ends(api: Api) -> None:
    image_id = await accepted(api, JPEG)
    requests = [got(api, image_id), got(api, image_id)]
    await waits(api, 2)
    await fail(api, image_id)
    for request in requests:
        answer = await wait_for(request)
        assert answer.status_code == 200
        assert answer.json() == await status_of(api, image_id)
        assert answer.json()["status"] == "ERROR"
        assert answer.headers["content-location"] == f"/images/{image_id}"
        assert answer.headers["vary"] == "Prefer"
    assert "content-location" not in (await api.client.get(f"/images/{image_id}")).headers


async def test_image_that_is_finished_is_answered_at_once(api: Api) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    answer = await wait_for(got(api, image_id))
    assert (answer.status_code, answer.json()["status"]) == (200, "DONE")
    assert answer.headers["preference-applied"] == "wait=300"
    problem(await wait_for(got(api, UNKNOWN)), 404, "image-not-found")


async def test_image_that_does_not_end_in_time_is_answered_as_it_is(api: Api) -> None:
    answer = await wait_for(posted(api, "respond-async, wait=0"))
    assert (answer.status_code, answer.json()["status"]) == (202, "PROCESSING")
    assert answer.headers["preference-applied"] == "wait=0"
    assert answer.headers["retry-after"] == "1"
    image_id = answer.json()["id"]
    assert answer.headers["location"] == f"/images/{image_id}"
    answer = await wait_for(got(api, image_id, "wait=0"))
    assert answer.status_code == 202
    assert answer.json() == await status_of(api, image_id)
    assert answer.headers["preference-applied"] == "wait=0"


async def test_end_without_an_event_is_found_at_the_end_of_the_wait(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of a version before events records none."""
    async with api_on(sqlite_url, tmp_path, max_wait=1) as api:
        context: ApiContext = api.app.state.context
        image_id = await accepted(api)
        request = got(api, image_id)
        await waits(api)
        monkeypatch.setattr(context.services.feed, "_hand_out", lambda _events: None)
        await finish(api, image_id)
        answer = await wait_for(request)
        assert (answer.status_code, answer.json()["status"]) == (200, "DONE")
        assert answer.headers["preference-applied"] == "wait=1"


async def test_deletion_ends_the_wait(api: Api) -> None:
    image_id = await accepted(api)
    request = got(api, image_id)
    await waits(api)
    assert (await api.client.delete(f"/images/{image_id}")).status_code == 204
    problem(await wait_for(request), 404, "image-not-found")


async def test_reprocessing_is_awaited_and_not_the_result_before(api: Api) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    before = await status_of(api, image_id)
    request = asyncio.create_task(api.client.post(f"/images/{image_id}/reprocess", headers=LONG))
    await waits(api)
    await newest(api)  # it is published again
    claim = await claimed(api, image_id)
    assert not request.done()
    await complete(api, claim, quality=50)
    answer = await wait_for(request)
    assert answer.status_code == 200
    assert answer.json() == await status_of(api, image_id) != before
    assert answer.headers["content-location"] == f"/images/{image_id}"


async def test_repeated_upload_waits_for_the_image_that_there_is(api: Api) -> None:
    first = (await upload(api, key="1")).json()["id"]
    request = posted(api, **{"Idempotency-Key": "1"})
    await waits(api)
    await finish(api, first)
    for each in (request, posted(api, **{"Idempotency-Key": "1"})):
        answer = await wait_for(each)
        assert (answer.status_code, answer.json()["id"]) == (200, first)
        assert answer.headers["idempotent-replayed"] == "true"


async def test_requests_beyond_the_limit_are_answered_as_if_they_had_not_asked(api: Api) -> None:
    image_id = await accepted(api)
    requests = [got(api, image_id) for _ in range(3)]
    await waits(api, 3)
    for answer in (await wait_for(got(api, image_id)), await wait_for(posted(api))):
        assert "preference-applied" not in answer.headers
        assert answer.json()["status"] == "PROCESSING"
    await finish(api, image_id)
    assert [(await wait_for(each)).status_code for each in requests] == [200] * 3


@pytest.mark.parametrize("prefer", ["", "wait=soon", "return=minimal"])
async def test_other_preferences_change_nothing(sqlite_api: Api, prefer: str) -> None:
    answer = await wait_for(posted(sqlite_api, prefer))
    assert answer.status_code == 202
    answer = await wait_for(got(sqlite_api, answer.json()["id"], prefer))
    assert answer.status_code == 200
    assert "preference-applied" not in answer.headers


async def test_drain_ends_all_waits(api: Api) -> None:
    requests = [posted(api), posted(api)]
    await waits(api, 2)
    await eventually(lambda: api.slots_in_use == 0)
    api.stop.set()
    for request in requests:
        answer = await wait_for(request)
        assert answer.status_code == 202
        assert answer.headers["preference-applied"] == "wait=300"
    assert "preference-applied" not in (await wait_for(posted(api))).headers
    assert waiting(api) == 0
