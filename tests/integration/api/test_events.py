"""The events of images: in pages, and as streams that are resumed."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from harness.api import BASE, UNKNOWN, Api, accepted, api_on, fail, finish, problem, status_of
from harness.rows import execute
from harness.sse import Stream, stream
from harness.waiting import eventually
from image_service.database.clock import in_seconds
from image_service.domain.event import START
from image_service.models import EventRow
from tests.integration.test_http_server import Server, serving

ALL_OF_ONE = ["image.accepted", "image.done"]
TOO_OLD = "evt_00000000_1_1"
"""Of another database."""


@pytest.fixture
async def server(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(sqlite_url, tmp_path) as server:
        yield server


async def page(api: Api, url: str, **query: str | int) -> dict[str, Any]:
    answer = await api.client.get(url, params=query or None)
    assert answer.status_code == 200, answer.text
    assert (answer.headers["cache-control"], answer.headers["vary"]) == ("no-store", "Accept")
    listed: dict[str, Any] = answer.json()
    return listed


async def settled(api: Api) -> None:
    """Wait until all events can be read: on PostgreSQL, transactions of other databases can delay them."""

    async def all_settled() -> bool:
        async with api.database.statement() as repositories:
            return not (await repositories.events.after(START, limit=1000)).unsettled

    await eventually(all_settled)


async def done(api: Api) -> str:
    image_id = await accepted(api)
    await finish(api, image_id)
    await settled(api)
    api.resources.signal.notify()
    return image_id


async def purge(api: Api) -> None:
    """Make all present events too old, and delete them."""
    await execute(api.database, update(EventRow).values(happened_at=in_seconds(-3600)))
    async with api.database.transaction() as repositories:
        assert await repositories.events.purge(older_than=60, kept_after=None, limit=1000)


def types(listed: dict[str, Any]) -> list[str]:
    return [event["type"] for event in listed["events"]]


def follow(
    server: Server, path: str = "/events", last_id: str | None = None, **headers: str
) -> AbstractAsyncContextManager[Stream]:
    return stream(f"http://127.0.0.1:{server.port}{path}", last_id, **headers)


async def received(opened: Stream, number: int) -> list[tuple[str | None, str]]:
    """The types and images of the next events."""
    blocks = [await opened.event() for _ in range(number)]
    assert all(block.json["type"] == block.event for block in blocks)
    return [(block.event, block.json["data"]["id"]) for block in blocks]


def of(*image_ids: str) -> list[tuple[str, str]]:
    return [(name, image_id) for image_id in image_ids for name in ALL_OF_ONE]


# --- pages -----------------------------------------------------------------------------------------------------------


async def test_pages_have_every_event_once_and_go_on_later(api: Api) -> None:
    images = [await done(api) for _ in range(3)]
    first = await page(api, "/events", limit=4)
    second = await page(api, first["next"])
    assert types(first) + types(second) == ALL_OF_ONE * 3
    assert [event["data"]["id"] for event in (*first["events"], *second["events"])] == [
        each for each in images for _ in ALL_OF_ONE
    ]
    assert len({event["id"] for event in (*first["events"], *second["events"])}) == 6
    assert first["next"] == f"{BASE}/events?after={first['events'][-1]['id']}&limit=4"
    assert (await page(api, second["next"]))["events"] == []
    later = await done(api)
    assert [event["data"]["id"] for event in (await page(api, second["next"]))["events"]] == [later, later]


async def test_an_event_has_the_image_as_it_was(api: Api) -> None:
    image_id = await done(api)
    listed = await page(api, f"/images/{image_id}/events")
    before, after = listed["events"]
    assert set(before) == {"id", "type", "timestamp", "data"}
    assert (before["data"]["status"], before["data"]["thumbnails"]) == ("NEW", {})
    assert after["data"] == {**await status_of(api, image_id), "metadata": None}


async def test_pages_of_an_image_and_of_types_leave_the_others_out(api: Api) -> None:
    image_id = await done(api)
    failed = await accepted(api)
    await fail(api, failed)
    await settled(api)
    assert types(await page(api, f"/images/{image_id}/events")) == ALL_OF_ONE
    ends = await page(api, "/events?types=image.done,image.failed")
    assert types(ends) == types(await page(api, "/events?types=image.done&types=image.failed"))
    assert [event["data"]["id"] for event in ends["events"]] == [image_id, failed]
    assert "types=image.done%2Cimage.failed" in ends["next"]


async def test_next_does_not_grow_old_while_nothing_is_found(api: Api) -> None:
    image_id = await done(api)
    nothing = await page(api, "/events?types=image.deleted")
    assert nothing["events"] == []
    await purge(api)
    assert (await api.client.delete(f"/images/{image_id}")).status_code == 204
    await settled(api)
    assert types(await page(api, nothing["next"])) == ["image.deleted"]


async def test_events_outlive_their_image_and_an_image_its_events(api: Api) -> None:
    image_id = await done(api)
    await purge(api)
    assert (await page(api, f"/images/{image_id}/events"))["events"] == []
    assert (await api.client.delete(f"/images/{image_id}")).status_code == 204
    await settled(api)
    assert types(await page(api, f"/images/{image_id}/events")) == ["image.deleted"]
    problem(await api.client.get(f"/images/{UNKNOWN}/events"), 404, "image-not-found")


async def test_after_an_event_that_is_too_old_or_unknown_returns_410(api: Api) -> None:
    await done(api)
    first = (await page(api, "/events"))["events"][0]["id"]
    await purge(api)
    for after in (first, TOO_OLD, first.rpartition("_")[0] + "_" + "9" * 19):
        answer = await api.client.get("/events", params={"after": after})
        assert "Ask for your images' state" in problem(answer, 410, "events-expired")["detail"]
        assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    "query", ["types=image.lost", "types=", "types=image.done,", "after=1", "limit=0", "limit=201"]
)
async def test_invalid_query_returns_422(sqlite_api: Api, query: str) -> None:
    problem(await sqlite_api.client.get(f"/events?{query}"), 422, "invalid-request")


# --- streams ---------------------------------------------------------------------------------------------------------


async def test_stream_of_an_image_begins_with_its_events_and_goes_on(server: Server) -> None:
    image_id = await accepted(server.api)
    async with follow(server, f"/images/{image_id}/events") as opened:
        assert opened.answer.status_code == 200
        headers = opened.answer.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert (headers["cache-control"], headers["vary"]) == ("no-store, no-transform", "Accept")
        assert (headers["x-accel-buffering"], headers["incremental"]) == ("no", "?1")
        assert await received(opened, 1) == [("image.accepted", image_id)]
        await done(server.api)
        await finish(server.api, image_id)
        server.api.resources.signal.notify()
        assert await received(opened, 1) == [("image.done", image_id)]


async def test_an_event_is_the_same_in_a_stream_and_a_page(server: Server) -> None:
    image_id = await done(server.api)
    async with follow(server, f"/images/{image_id}/events", Host="api.example:8000") as opened:
        blocks = [await opened.event() for _ in ALL_OF_ONE]
    listed = (await page(server.api, f"/images/{image_id}/events"))["events"]
    assert [{"id": block.id, **block.json} for block in blocks] == listed


async def test_stream_of_all_begins_with_the_next_event_and_has_a_place_to_resume_from(server: Server) -> None:
    await done(server.api)
    async with follow(server) as opened:
        block = await opened.block()
        assert block is not None
        assert (block.event, block.data) == (None, None)
        assert 1000 <= int(block.retry or 0) <= 3000
        assert block.id is not None
    missed = await done(server.api)
    async with follow(server, last_id=block.id) as opened:
        live = await done(server.api)
        assert await received(opened, 4) == of(missed, live)


async def test_stream_resumes_after_any_event_without_gap_or_repeat(server: Server) -> None:
    images = [await done(server.api) for _ in range(25)]  # more than one page
    listed = [event["id"] for event in (await page(server.api, "/events", limit=50))["events"]]
    for at in (0, 3, 40, 49):
        async with follow(server, last_id=listed[at]) as opened:
            assert [(await opened.event()).id for _ in listed[at + 1 :]] == listed[at + 1 :]
    async with follow(server, f"/events?after={listed[-3]}&types=image.done") as opened:
        assert await received(opened, 1) == [("image.done", images[-1])]
        images.append(await done(server.api))
        assert await received(opened, 1) == [("image.done", images[-1])]


async def test_last_event_id_comes_before_the_query(server: Server) -> None:
    await done(server.api)
    first, second = (await page(server.api, "/events"))["events"]
    async with follow(server, f"/events?after={first['id']}", second["id"]) as opened:
        live = await accepted(server.api)
        assert await received(opened, 1) == [("image.accepted", live)]


async def test_stream_tells_where_to_resume_although_no_event_was_of_its_choice(server: Server) -> None:
    image_id = await done(server.api)
    async with follow(server, "/events?types=image.deleted") as opened:
        await opened.block()
        begun = opened.last_id
    await done(server.api)
    async with follow(server, "/events?types=image.deleted", begun) as opened:
        await opened.block()
        await opened.block()
        assert opened.last_id != begun
    await purge(server.api)
    async with follow(server, "/events?types=image.deleted", opened.last_id) as opened:
        assert (await server.api.client.delete(f"/images/{image_id}")).status_code == 204
        assert await received(opened, 1) == [("image.deleted", image_id)]


@pytest.mark.parametrize("last", [TOO_OLD, "1", "evt_" + "x" * 2000])
async def test_unknown_last_event_resets_the_stream(server: Server, last: str) -> None:
    image_id = await done(server.api)
    async with follow(server, last_id=last) as opened:
        reset = await opened.event()
        assert reset.event == "reset"
        assert set(reset.json) == {"code", "detail", "after"}
        assert (reset.json["code"], reset.json["after"]) == ("events-expired", reset.id)
        live = await done(server.api)
        assert await received(opened, 2) == of(live)
    async with follow(server, last_id=reset.id) as opened:
        assert await received(opened, 2) == of(live)
    async with follow(server, f"/images/{image_id}/events", last) as opened:
        assert (await opened.event()).event == "reset"
        assert await received(opened, 2) == of(image_id)


async def test_purged_last_event_resets_the_stream_of_an_image(server: Server) -> None:
    image_id = await done(server.api)
    last = (await page(server.api, "/events"))["events"][0]["id"]
    await purge(server.api)
    async with follow(server, f"/images/{image_id}/events", last) as opened:
        reset = await opened.event()
        assert reset.event == "reset"
        async with follow(server, f"/images/{image_id}/events", reset.id) as again:
            assert (await server.api.client.delete(f"/images/{image_id}")).status_code == 204
            for each in (opened, again):
                assert await received(each, 1) == [("image.deleted", image_id)]


async def test_slow_client_gets_what_its_buffer_lost_from_the_log(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = server.api.app.state.context.services.feed
    subscribe = feed.subscribe
    monkeypatch.setattr(feed, "subscribe", lambda **choice: subscribe(**choice, buffer=1))
    async with follow(server) as opened:
        await opened.block()
        images = [await done(server.api) for _ in range(20)]
        assert await received(opened, 40) == of(*images)


async def test_requests_for_streams_are_refused_like_others(server: Server) -> None:
    for path, status, code in (
        (f"/images/{UNKNOWN}/events", 404, "image-not-found"),
        ("/images/1/events", 422, "invalid-request"),
        ("/events?types=x", 422, "invalid-request"),
    ):
        async with follow(server, path) as opened:
            await opened.answer.aread()
            problem(opened.answer, status, code)


async def test_head_of_a_stream_ends_at_once(server: Server) -> None:
    request = b"HEAD /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n"
    async with server.connection() as connection:
        await connection.send(request)
        assert b"text/event-stream" in await connection.head()
        assert await connection.is_closed()


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/*", "text/event-stream;q=0"])
async def test_page_is_sent_unless_a_stream_is_asked_for_by_its_name(sqlite_api: Api, accept: str) -> None:
    answer = await sqlite_api.client.get("/events", headers={"Accept": accept})
    assert answer.headers["content-type"] == "application/json"


async def test_other_origins_may_resume_streams(sqlite_url: str, tmp_path: Path) -> None:
    async with api_on(sqlite_url, tmp_path, allowed_origins="https://app.example") as api:
        asked = {
            "Origin": "https://app.example",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "Last-Event-ID",
        }
        assert (await api.client.options("/events", headers=asked)).status_code == 200
        shared = await api.client.get("/events", headers={"Origin": "https://app.example"})
        assert set(shared.headers["vary"].split(", ")) == {"Accept", "Origin"}
