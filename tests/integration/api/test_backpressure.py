"""Uploads beyond what the service can take in are refused in time; everything else goes on."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from harness.api import PNG, UNKNOWN, Api, accepted, api_on, fail, finish, problem, told, upload
from harness.asgi import Body, call, scope
from harness.fakes import LONG_TIMEOUT
from harness.forms import CONTENT_TYPE, form, part
from harness.waiting import eventually
from image_service import bootstrap
from image_service.services.backlog import Backlog

FORM = form(part(PNG))
MAX_BACKLOG = 3


@pytest.fixture
async def narrow_api(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    """One that takes in an upload at a time."""
    async with api_on(
        sqlite_url, tmp_path, max_concurrent_uploads=1, max_file_size=20_000, upload_idle_timeout=5
    ) as api:
        yield api


@pytest.fixture
async def shallow_api(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """One for which three unfinished images are enough, and which counts them for every upload."""
    monkeypatch.setattr(bootstrap, "Backlog", partial(Backlog, refresh_interval=0.0, count_timeout=LONG_TIMEOUT))
    async with api_on(database_url, tmp_path, max_backlog=MAX_BACKLOG) as api:
        yield api


class SlowUpload:
    """An upload that stands still in the middle of its file until it may go on."""

    def __init__(self, api: Api, body: bytes = FORM, pause_at: int = 80) -> None:
        self._api = api
        self._pieces = (body[:pause_at], body[pause_at:])
        self._go_on = asyncio.Event()
        headers = {"Content-Type": CONTENT_TYPE}
        self._task = asyncio.create_task(api.client.post("/images", content=self._body(), headers=headers))

    async def _body(self) -> AsyncIterator[bytes]:
        yield self._pieces[0]
        await self._go_on.wait()
        yield self._pieces[1]

    async def begun(self) -> None:
        """Return once the service has begun to take it in."""
        await eventually(lambda: self._api.scratch)

    async def rest(self) -> httpx.Response:
        """Send what is missing."""
        self._go_on.set()
        return await self._task


def too_many(answer: httpx.Response) -> None:
    problem(answer, 429, "too-many-uploads")
    assert answer.headers["retry-after"] == "2"


async def test_a_second_upload_at_once_is_refused_and_the_first_goes_on(narrow_api: Api) -> None:
    first = SlowUpload(narrow_api)
    await first.begun()
    for _ in range(3):
        too_many(await upload(narrow_api))
    assert len(narrow_api.scratch) == 1
    accepted_first = await first.rest()
    assert accepted_first.status_code == 202
    assert (await narrow_api.client.get(f"/images/{accepted_first.json()['id']}/original")).content == PNG
    assert (await upload(narrow_api)).status_code == 202


async def test_meanwhile_everything_else_is_answered(narrow_api: Api) -> None:
    one, other = [await accepted(narrow_api) for _ in range(2)]
    await finish(narrow_api, one)
    first = SlowUpload(narrow_api)
    await first.begun()
    for path in (
        "/health",
        "/images",
        f"/images/{one}",
        f"/images/{one}/original",
        f"/images/{one}/thumbnails/100x100",
    ):
        assert (await narrow_api.client.get(path)).status_code == 200
    assert (await narrow_api.client.post(f"/images/{one}/reprocess")).status_code == 202
    assert (await narrow_api.client.delete(f"/images/{other}")).status_code == 204
    assert (await first.rest()).status_code == 202


async def test_as_many_as_the_setting_says_are_taken_in_at_once(sqlite_url: str, tmp_path: Path) -> None:
    async with api_on(sqlite_url, tmp_path, max_concurrent_uploads=3) as api:
        uploads = [SlowUpload(api) for _ in range(3)]
        await eventually(lambda: len(api.scratch) == 3)
        too_many(await upload(api))
        assert [(await each.rest()).status_code for each in uploads] == [202] * 3
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
async def test_a_refused_upload_gives_its_place_back(narrow_api: Api, body: bytes, status: int) -> None:
    for _ in range(2):
        answer = await narrow_api.client.post("/images", content=body, headers={"Content-Type": CONTENT_TYPE})
        assert answer.status_code == status
    assert (await upload(narrow_api)).status_code == 202


async def test_a_key_that_is_none_takes_no_place(narrow_api: Api) -> None:
    first = SlowUpload(narrow_api)
    await first.begun()
    problem(await upload(narrow_api, key=""), 400, "invalid-idempotency-key")
    assert (await first.rest()).status_code == 202


async def test_a_repeated_upload_gives_its_place_back(narrow_api: Api) -> None:
    for _ in range(3):
        assert (await upload(narrow_api, key="k")).status_code == 202


@pytest.mark.parametrize("sent", [0, 80, len(FORM)])
async def test_an_upload_whose_client_goes_away_gives_its_place_back(narrow_api: Api, sent: int) -> None:
    asked = scope("POST", "/images", {"content-type": CONTENT_TYPE, "host": "api.example"})
    for _ in range(2):
        answer = await call(narrow_api.app, asked, Body([FORM[:sent]], then="disconnect"))
        assert answer.status == 400  # which nobody hears
    assert not narrow_api.scratch
    assert (await upload(narrow_api)).status_code == 202


async def test_an_upload_that_is_broken_off_inside_the_service_gives_its_place_back(narrow_api: Api) -> None:
    asked = scope("POST", "/images", {"content-type": CONTENT_TYPE, "host": "api.example"})
    for _ in range(2):
        running = asyncio.create_task(call(narrow_api.app, asked, Body([FORM[:80]], then="silence")))
        await eventually(lambda: narrow_api.scratch)
        too_many(await upload(narrow_api))
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()
    assert (await upload(narrow_api)).status_code == 202


def full(answer: httpx.Response) -> None:
    problem(answer, 503, "backlog-full")
    assert answer.headers["retry-after"] == "5"


async def filled(api: Api) -> list[str]:
    """As many unfinished images as there may be."""
    return [await accepted(api) for _ in range(MAX_BACKLOG)]


async def test_beyond_the_backlog_uploads_are_refused_and_everything_else_goes_on(shallow_api: Api) -> None:
    there = await filled(shallow_api)
    for _ in range(3):
        full(await upload(shallow_api))
    assert len(shallow_api.originals) == MAX_BACKLOG
    assert not shallow_api.scratch
    health = await shallow_api.client.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "healthy")
    assert (await shallow_api.client.get("/health/ready")).status_code == 200
    assert len((await shallow_api.client.get("/images")).json()["images"]) == MAX_BACKLOG
    for image_id in there:
        assert (await told(shallow_api, image_id))["status"] == "PROCESSING"
        assert (await shallow_api.client.get(f"/images/{image_id}/original")).content == PNG
    problem(await shallow_api.client.get(f"/images/{UNKNOWN}"), 404, "image-not-found")


async def test_once_an_image_is_done_or_failed_or_deleted_the_next_is_accepted(shallow_api: Api) -> None:
    done, failed, deleted = await filled(shallow_api)
    full(await upload(shallow_api))
    await finish(shallow_api, done)
    assert (await upload(shallow_api)).status_code == 202
    full(await upload(shallow_api))
    await fail(shallow_api, failed)
    assert (await upload(shallow_api)).status_code == 202
    full(await upload(shallow_api))
    assert (await shallow_api.client.delete(f"/images/{deleted}")).status_code == 204
    assert (await upload(shallow_api)).status_code == 202
    full(await upload(shallow_api))


async def test_finished_images_are_no_backlog_until_they_are_processed_again(shallow_api: Api) -> None:
    for _ in range(2 * MAX_BACKLOG):
        image_id = await accepted(shallow_api)
        await finish(shallow_api, image_id)
    await filled(shallow_api)
    full(await upload(shallow_api))
    assert (await shallow_api.client.post(f"/images/{image_id}/reprocess")).status_code == 202


async def test_an_upload_that_is_refused_for_the_backlog_gives_its_place_back(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "Backlog", partial(Backlog, refresh_interval=0.0, count_timeout=LONG_TIMEOUT))
    async with api_on(sqlite_url, tmp_path, max_backlog=1, max_concurrent_uploads=1) as api:
        image_id = await accepted(api)
        for _ in range(3):
            full(await upload(api))
        await finish(api, image_id)
        assert (await upload(api)).status_code == 202


async def test_a_backlog_is_noticed_before_long(sqlite_url: str, tmp_path: Path) -> None:
    """It is not counted for every upload, so that some more may slip in."""
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


async def test_a_backlog_that_cannot_be_counted_refuses_nobody_by_itself(tmp_path: Path) -> None:
    async with api_on(f"sqlite+aiosqlite:///{tmp_path / 'missing' / 'images.db'}", tmp_path, max_backlog=1) as api:
        problem(await upload(api), 503, "database-unavailable")
