"""Uploads beyond the limits are refused; all other requests are served."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from harness.api import PNG, UNKNOWN, Api, accepted, api_on, fail, finish, problem, status_of, upload
from harness.asgi import Body, call, scope
from harness.forms import BEFORE_SLOT, CONTENT_TYPE, form, part
from harness.waiting import eventually

FORM = form(part(PNG))
LONG_FORM = form(part(bytes(BEFORE_SLOT), b"note", None), part(PNG))
MAX_BACKLOG = 3


@pytest.fixture
async def single_upload_api(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    """The API with one upload slot."""
    async with api_on(
        sqlite_url, tmp_path, max_concurrent_uploads=1, max_file_size=20_000, upload_idle_timeout=5
    ) as api:
        yield api


@pytest.fixture
async def small_backlog_api(database_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    """The API with a backlog of three unfinished images, counted for every upload."""
    async with api_on(database_url, tmp_path, max_backlog=MAX_BACKLOG, backlog_refresh=0) as api:
        yield api


class SlowUpload:
    """An upload that pauses in the middle of its file until it is completed."""

    def __init__(self, api: Api, body: bytes = LONG_FORM, pause_at: int = BEFORE_SLOT + 200) -> None:
        self._api = api
        self._pieces = (body[:pause_at], body[pause_at:])
        self._continue = asyncio.Event()
        headers = {"Content-Type": CONTENT_TYPE}
        self._task = asyncio.create_task(api.client.post("/images", content=self._body(), headers=headers))

    async def _body(self) -> AsyncIterator[bytes]:
        yield self._pieces[0]
        await self._continue.wait()
        yield self._pieces[1]

    async def started(self) -> None:
        """Returns once the service has started to receive it."""
        await eventually(lambda: self._api.slots_in_use)

    async def complete(self) -> httpx.Response:
        """Sends the rest; returns the response."""
        self._continue.set()
        return await self._task


def assert_too_many_uploads(answer: httpx.Response) -> None:
    problem(answer, 429, "too-many-uploads")
    assert answer.headers["retry-after"] == "2"


async def test_upload_beyond_the_limit_returns_429_and_the_first_completes(single_upload_api: Api) -> None:
    first = SlowUpload(single_upload_api)
    await first.started()
    for _ in range(3):
        assert_too_many_uploads(await upload(single_upload_api))
    assert len(single_upload_api.scratch) == 1
    accepted_first = await first.complete()
    assert accepted_first.status_code == 202
    assert (await single_upload_api.client.get(f"/images/{accepted_first.json()['id']}/original")).content == PNG
    assert (await upload(single_upload_api)).status_code == 202


async def test_other_requests_are_served_while_all_slots_are_in_use(single_upload_api: Api) -> None:
    one, other = [await accepted(single_upload_api) for _ in range(2)]
    await finish(single_upload_api, one)
    first = SlowUpload(single_upload_api)
    await first.started()
    for path in (
        "/health",
        "/images",
        f"/images/{one}",
        f"/images/{one}/original",
        f"/images/{one}/thumbnails/100x100",
    ):
        assert (await single_upload_api.client.get(path)).status_code == 200
    assert (await single_upload_api.client.post(f"/images/{one}/reprocess")).status_code == 202
    assert (await single_upload_api.client.delete(f"/images/{other}")).status_code == 204
    assert (await first.complete()).status_code == 202


async def test_limit_of_concurrent_uploads_is_configurable(sqlite_url: str, tmp_path: Path) -> None:
    async with api_on(sqlite_url, tmp_path, max_concurrent_uploads=3) as api:
        uploads = [SlowUpload(api) for _ in range(3)]
        await eventually(lambda: api.slots_in_use == 3)
        assert_too_many_uploads(await upload(api))
        assert [(await each.complete()).status_code for each in uploads] == [202] * 3
        assert (await upload(api)).status_code == 202


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (form(part(b"")), 400),
        (form(part(PNG))[:-20], 400),
        (form(part(PNG + bytes(200_000))), 413),
        (form(part(b"no image")), 415),
        (form(part(PNG[:20])), 422),
    ],
)
async def test_refused_upload_releases_its_slot(single_upload_api: Api, body: bytes, status: int) -> None:
    for _ in range(2):
        answer = await single_upload_api.client.post("/images", content=body, headers={"Content-Type": CONTENT_TYPE})
        assert answer.status_code == status
    assert (await upload(single_upload_api)).status_code == 202


async def test_invalid_key_is_refused_before_a_slot_is_taken(single_upload_api: Api) -> None:
    first = SlowUpload(single_upload_api)
    await first.started()
    problem(await upload(single_upload_api, key=""), 400, "invalid-idempotency-key")
    assert (await first.complete()).status_code == 202


async def test_repeated_upload_releases_its_slot(single_upload_api: Api) -> None:
    for _ in range(3):
        assert (await upload(single_upload_api, key="k")).status_code == 202


@pytest.mark.parametrize("sent", [0, 80, len(FORM)])
async def test_disconnect_releases_the_slot(single_upload_api: Api, sent: int) -> None:
    asked = scope("POST", "/images", {"content-type": CONTENT_TYPE, "host": "api.example"})
    for _ in range(2):
        answer = await call(single_upload_api.app, asked, Body([FORM[:sent]], then="disconnect"))
        assert answer.status == 400
    assert not single_upload_api.scratch
    assert (await upload(single_upload_api)).status_code == 202


async def test_cancelled_upload_releases_its_slot(single_upload_api: Api) -> None:
    asked = scope("POST", "/images", {"content-type": CONTENT_TYPE, "host": "api.example"})
    for _ in range(2):
        running = asyncio.create_task(call(single_upload_api.app, asked, Body([LONG_FORM[:-80]], then="silence")))
        await eventually(lambda: single_upload_api.slots_in_use)
        assert_too_many_uploads(await upload(single_upload_api))
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()
    assert (await upload(single_upload_api)).status_code == 202


def assert_backlog_full(answer: httpx.Response) -> None:
    problem(answer, 503, "backlog-full")
    assert answer.headers["retry-after"] == "5"


async def fill_backlog(api: Api) -> list[str]:
    """Uploads as many images as the backlog may hold; returns their ids."""
    return [await accepted(api) for _ in range(MAX_BACKLOG)]


async def test_full_backlog_refuses_uploads_only(small_backlog_api: Api) -> None:
    images = await fill_backlog(small_backlog_api)
    for _ in range(3):
        assert_backlog_full(await upload(small_backlog_api))
    assert len(small_backlog_api.originals) == MAX_BACKLOG
    assert not small_backlog_api.scratch
    health = await small_backlog_api.client.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "healthy")
    assert (await small_backlog_api.client.get("/health/ready")).status_code == 200
    assert len((await small_backlog_api.client.get("/images")).json()["images"]) == MAX_BACKLOG
    for image_id in images:
        assert (await status_of(small_backlog_api, image_id))["status"] == "PROCESSING"
        assert (await small_backlog_api.client.get(f"/images/{image_id}/original")).content == PNG
    problem(await small_backlog_api.client.get(f"/images/{UNKNOWN}"), 404, "image-not-found")


async def test_finished_or_deleted_image_makes_room_in_the_backlog(small_backlog_api: Api) -> None:
    done, failed, deleted = await fill_backlog(small_backlog_api)
    assert_backlog_full(await upload(small_backlog_api))
    await finish(small_backlog_api, done)
    assert (await upload(small_backlog_api)).status_code == 202
    assert_backlog_full(await upload(small_backlog_api))
    await fail(small_backlog_api, failed)
    assert (await upload(small_backlog_api)).status_code == 202
    assert_backlog_full(await upload(small_backlog_api))
    assert (await small_backlog_api.client.delete(f"/images/{deleted}")).status_code == 204
    assert (await upload(small_backlog_api)).status_code == 202
    assert_backlog_full(await upload(small_backlog_api))


async def test_finished_images_do_not_count_as_backlog(small_backlog_api: Api) -> None:
    for _ in range(2 * MAX_BACKLOG):
        image_id = await accepted(small_backlog_api)
        await finish(small_backlog_api, image_id)
    await fill_backlog(small_backlog_api)
    assert_backlog_full(await upload(small_backlog_api))
    assert (await small_backlog_api.client.post(f"/images/{image_id}/reprocess")).status_code == 202


async def test_upload_refused_for_the_backlog_releases_its_slot(sqlite_url: str, tmp_path: Path) -> None:
    async with api_on(sqlite_url, tmp_path, max_backlog=1, max_concurrent_uploads=1, backlog_refresh=0) as api:
        image_id = await accepted(api)
        for _ in range(3):
            assert_backlog_full(await upload(api))
        await finish(api, image_id)
        assert (await upload(api)).status_code == 202


async def test_backlog_count_is_refreshed(sqlite_url: str, tmp_path: Path) -> None:
    """The count is up to a second old, so that some uploads beyond the limit are accepted."""
    async with api_on(sqlite_url, tmp_path, max_backlog=1) as api:
        first = await accepted(api)

        async def answered_with(status: int) -> bool:
            answer = await upload(api)
            assert answer.status_code in {202, 503}
            return answer.status_code == status

        await eventually(lambda: answered_with(503), timeout=3)
        for image in (await api.client.get("/images", params={"status": "PROCESSING", "limit": 200})).json()["images"]:
            await api.client.delete(f"/images/{image['id']}")
        problem(await api.client.get(f"/images/{first}"), 404, "image-not-found")
        await eventually(lambda: answered_with(202), timeout=3)


async def test_uncountable_backlog_refuses_no_upload(tmp_path: Path) -> None:
    async with api_on(f"sqlite+aiosqlite:///{tmp_path / 'missing' / 'images.db'}", tmp_path, max_backlog=1) as api:
        problem(await upload(api), 503, "database-unavailable")
