"""The list of images: newest first, in pages that contain every image once."""

from collections.abc import AsyncIterator
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import pytest
from sqlalchemy import update

from harness.api import BASE, UNKNOWN, Api, UnavailableQueue, accepted, api_on, fail, finish, problem, status_of
from harness.processes import free_port
from harness.rows import execute
from image_service.models import ImageRow, ThumbnailRow


async def page(api: Api, url: str = "/images", /, **query: str | int) -> dict[str, Any]:
    answer = await api.client.get(url, params=query or None)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    listed: dict[str, Any] = answer.json()
    assert set(listed) == {"images", "next"}
    return listed


def ids(listed: dict[str, Any]) -> list[str]:
    return [image["id"] for image in listed["images"]]


async def pages(api: Api, **query: str | int) -> list[list[str]]:
    """Returns the ids on each page."""
    first = await page(api, **query)
    return [ids(first), *[ids(listed) async for listed in following_pages(api, first)]]


async def following_pages(api: Api, listed: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Yields the pages after a page."""
    while listed["next"] is not None:
        listed = await page(api, listed["next"])
        yield listed


def flat(found: list[list[str]]) -> list[str]:
    return list(chain.from_iterable(found))


async def uploaded(api: Api, number: int) -> list[str]:
    """Uploads images; returns their ids, newest first."""
    return [await accepted(api) for _ in range(number)][::-1]


async def test_list_without_images_is_empty(api: Api) -> None:
    assert await page(api) == {"images": [], "next": None}
    assert await page(api, status="DONE", limit=1, before=UNKNOWN) == {"images": [], "next": None}


async def test_listed_image_equals_its_status(api: Api) -> None:
    first, second, third = await uploaded(api, 3)
    await finish(api, first)
    await fail(api, second)
    listed = await page(api)
    assert listed == {"images": [await status_of(api, image_id) for image_id in (first, second, third)], "next": None}
    assert [image["status"] for image in listed["images"]] == ["DONE", "ERROR", "PROCESSING"]
    assert list(listed["images"][0]["thumbnails"]) == ["100x100", "300x300", "1200x1200"]


@pytest.mark.parametrize(
    ("limit", "lengths"), [(1, [1] * 6), (2, [2, 2, 2]), (3, [3, 3]), (4, [4, 2]), (5, [5, 1]), (6, [6]), (7, [6])]
)
async def test_pages_contain_every_image_once(api: Api, limit: int, lengths: list[int]) -> None:
    newest_first = await uploaded(api, 6)
    await finish(api, newest_first[2])  # it has three thumbnail rows, and still counts once
    found = await pages(api, limit=limit)
    assert [len(each) for each in found] == lengths
    assert flat(found) == newest_first


async def test_default_page_has_fifty_images(api: Api) -> None:
    newest_first = await uploaded(api, 51)
    listed = await page(api)
    assert ids(listed) == newest_first[:50]
    assert dict(parse_qsl(urlsplit(listed["next"]).query)) == {"limit": "50", "before": newest_first[49]}
    assert ids(await page(api, listed["next"])) == newest_first[50:]


async def test_new_images_do_not_shift_later_pages(api: Api) -> None:
    images = await uploaded(api, 5)
    first = await page(api, limit=2)
    await uploaded(api, 3)
    found = ids(first)
    async for listed in following_pages(api, first):
        await uploaded(api, 3)
        found += ids(listed)
    assert found == images
    assert len(ids(await page(api))) == 5 + 3 + 2 * 3


async def test_deleted_images_do_not_shift_later_pages(api: Api) -> None:
    images = await uploaded(api, 6)
    first = await page(api, limit=2)
    for image_id in images[1:3]:  # the last image of the first page, and the first image of the second
        await api.client.delete(f"/images/{image_id}")
    assert flat([ids(listed) async for listed in following_pages(api, first)]) == images[3:]


async def test_state_change_keeps_the_position(api: Api) -> None:
    images = await uploaded(api, 4)
    for image_id in images[::-1]:
        await finish(api, image_id)
    await api.client.post(f"/images/{images[3]}/reprocess")
    assert flat(await pages(api, limit=3)) == images


async def test_list_filters_by_status(api: Api) -> None:
    images = await uploaded(api, 9)
    for image_id in images[0::3]:
        await finish(api, image_id)
    for image_id in images[1::3]:
        await fail(api, image_id)
    expected = {"NEW": [], "PROCESSING": images[2::3], "DONE": images[0::3], "ERROR": images[1::3]}
    for status, filtered in expected.items():
        assert flat(await pages(api, status=status, limit=2)) == filtered
        assert ids(await page(api, status=status)) == filtered
    first = await page(api, status="DONE", limit=2)
    assert dict(parse_qsl(urlsplit(first["next"]).query)) == {"status": "DONE", "limit": "2", "before": images[3]}


async def test_list_filters_unqueued_images(sqlite_url: str, tmp_path: Path) -> None:
    async with api_on(sqlite_url, tmp_path, UnavailableQueue()) as api:
        images = await uploaded(api, 3)
        assert await pages(api, status="NEW", limit=2) == [images[:2], images[2:]]
        assert await pages(api, status="PROCESSING") == [[]]


async def test_before_may_be_any_id(api: Api) -> None:
    images = await uploaded(api, 3)
    assert ids(await page(api, before=UNKNOWN)) == []
    assert ids(await page(api, before="ffffffff-ffff-ffff-ffff-ffffffffffff")) == images
    assert ids(await page(api, before=images[0])) == images[1:]
    assert ids(await page(api, before=images[0].upper())) == images[1:]


@pytest.mark.parametrize("limit", [1, 200])
async def test_page_size_limits_are_accepted(sqlite_api: Api, limit: int) -> None:
    (newest, _) = await uploaded(sqlite_api, 2)
    listed = await page(sqlite_api, limit=limit)
    assert ids(listed)[0] == newest
    assert len(ids(listed)) == min(limit, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "201"),
        ("limit", "-1"),
        ("limit", "many"),
        ("limit", "1.5"),
        ("limit", ""),
        ("limit", "9" * 30),
        ("before", "yesterday"),
        ("before", ""),
        ("before", f"{UNKNOWN}0"),
        ("status", "done"),
        ("status", "LOST"),
        ("status", ""),
    ],
)
async def test_invalid_query_returns_422(sqlite_api: Api, name: str, value: str) -> None:
    document = problem(await sqlite_api.client.get("/images", params={name: value}), 422, "invalid-request")
    assert document["detail"].startswith(f"The request is not valid: {name}: ")


@pytest.mark.parametrize(
    ("settings", "headers", "base"),
    [
        ({}, {}, BASE),
        ({}, {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "img.example.org"}, "https://img.example.org"),
        ({"public_url": "https://x.example/api/"}, {"X-Forwarded-Host": "b"}, "https://x.example/api"),
    ],
)
async def test_listed_urls_use_the_public_address(
    sqlite_url: str, tmp_path: Path, settings: dict[str, Any], headers: dict[str, str], base: str
) -> None:
    async with api_on(sqlite_url, tmp_path, **settings) as api:
        newest, _ = await uploaded(api, 2)
        await finish(api, newest)
        listed = (await api.client.get("/images", params={"limit": 1, "status": "DONE"}, headers=headers)).json()
        everything = (await api.client.get("/images", params={"limit": 1}, headers=headers)).json()
    (image,) = listed["images"]
    assert image["original_url"] == f"{base}/images/{newest}/original"
    assert all(url.startswith(f"{base}/images/{newest}/thumbnails/") for url in image["thumbnails"].values())
    assert listed["next"] is None
    assert everything["next"] == f"{base}/images?limit=1&before={newest}"


async def test_list_during_database_outage_returns_503(tmp_path: Path) -> None:
    async with api_on(f"postgresql+asyncpg://unknown@127.0.0.1:{free_port()}/nothing", tmp_path) as api:
        answer = await api.client.get("/images")
        problem(answer, 503, "database-unavailable")
        assert answer.headers["retry-after"] == "5"


async def test_malformed_row_does_not_break_the_list(api: Api) -> None:
    newest, bad, oldest = await uploaded(api, 3)
    for image_id in (newest, bad, oldest):
        await finish(api, image_id)
    before = await page(api)
    made_up = {"dominant_colour": "<b>", "metadata_removed": ["secrets"]}
    await execute(api.database, update(ImageRow).where(ImageRow.id == UUID(bad)).values(**made_up))
    kinds = {"content_type": "text/html", "sha256": "ab\r\n"}
    await execute(
        api.database,
        update(ThumbnailRow)
        .where(ThumbnailRow.image_id == UUID(bad), ThumbnailRow.output == "100x100")
        .values(**kinds),
    )
    after = await page(api)
    assert ids(after) == [newest, bad, oldest]
    assert [after["images"][0], after["images"][2]] == [before["images"][0], before["images"][2]]
    whole, malformed = before["images"][1], after["images"][1]
    assert malformed["thumbnails"] == {name: url for name, url in whole["thumbnails"].items() if name != "100x100"}
    assert malformed == whole | {
        "dominant_colour": None,
        "metadata_removed": [],
        "thumbnails": malformed["thumbnails"],
        "outputs": [output for output in whole["outputs"] if output["preset"] != "100x100"],
        "srcset": whole["srcset"].partition(", ")[2],
        "picture": whole["picture"].replace(escape(whole["srcset"]), escape(malformed["srcset"])),
    }
    assert await status_of(api, bad) == malformed
    problem(await api.client.get(f"/images/{bad}/thumbnails/100x100"), 404, "thumbnail-not-found")
    assert (await api.client.get(f"/images/{bad}/thumbnails/300x300")).status_code == 200
