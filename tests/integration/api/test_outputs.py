"""Outputs as files: explicit URLs, and what a name without an extension serves to which client."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from uuid import UUID

import httpx
import pytest

from harness.accept import BROWSERS
from harness.api import BASE, PNG, UNKNOWN, Api, accepted, api_on, finish, problem, status_of
from harness.outputs import HERO_FILES, RECIPES, Size, content_of, finish_with, thumbnail
from image_service.domain.keys import thumbnail_key

FOREVER: Final = "public, max-age=31536000, immutable"
REVALIDATED: Final = "public, no-cache"


@pytest.fixture
async def api(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with api_on(sqlite_url, tmp_path, recipes=RECIPES) as api:
        yield api


@pytest.fixture
async def hero(api: Api) -> str:
    """An image of the recipe that negotiates."""
    image_id = await accepted(api, PNG, recipe="hero")
    await finish_with(api, image_id, pending=["extra", "extra.jxl"], left_out=["hero@2x.avif"])
    return image_id


async def get(api: Api, image_id: str, name: str, accept: str | None = None, **headers: str) -> httpx.Response:
    given = {**({} if accept is None else {"Accept": accept}), **headers}
    request = api.client.build_request("GET", f"/images/{image_id}/thumbnails/{name}", headers=given)
    if accept is None:
        del request.headers["accept"]
    return await api.client.send(request)


def digest(name: str) -> str:
    return thumbnail(name, HERO_FILES[name]).sha256


async def test_every_output_is_served_at_its_url(api: Api, hero: str) -> None:
    outputs = [each for each in (await status_of(api, hero))["outputs"] if each["status"] == "ready"]
    assert len(outputs) == len(HERO_FILES)
    for output in outputs:
        answer = await api.client.get(output["url"], headers={"Accept": "image/avif,image/webp"})
        name = output["url"].rpartition("/")[2].partition("?")[0]
        assert answer.headers["content-type"] == output["content_type"]
        assert len(answer.content) == output["bytes"]
        assert answer.headers["etag"] == f'"{output["sha256"]}"'
        assert answer.headers["cache-control"] == FOREVER
        assert "vary" not in answer.headers
        assert "content-location" not in answer.headers
        assert answer.headers["content-disposition"] == f'inline; filename="{hero}-{name}"'


@pytest.mark.parametrize("name", ["hero.jpg", "hero.webp", "hero@2x.jpg", "hero@2x.webp"])
@pytest.mark.parametrize("query", ["", "?v=", "?v=0000000000000000"])
async def test_explicit_url_without_its_version_requires_revalidation(
    api: Api, hero: str, name: str, query: str
) -> None:
    answer = await get(api, hero, name + query)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, REVALIDATED)
    assert "vary" not in answer.headers


@pytest.mark.parametrize(
    "name",
    [
        *("hero.png", "hero.jpeg", "hero.JPG", "hero.jpg.jpg", "hero.webp.jpg", "hero@1x", "hero@1x.webp", "hero@3x"),
        *("hero@2x.avif", "small.webp", "extra", "extra.jxl", "extra.jpg", "hero.", ".jpg", "@2x", "hero@2x."),
        "x" * 3000,
    ],
)
async def test_other_names_are_not_found(api: Api, hero: str, name: str) -> None:
    problem(await get(api, hero, name, "image/*"), 404, "thumbnail-not-found")


async def test_missing_output_says_why(api: Api, hero: str) -> None:
    assert "it follows" in (await get(api, hero, "extra.jxl")).json()["detail"]
    assert "left out" in (await get(api, hero, "hero@2x.avif")).json()["detail"]
    assert "Check the image's status" in (await get(api, hero, "none")).json()["detail"]


async def test_default_output_that_is_no_jpeg_has_its_own_extension(api: Api) -> None:
    image_id = await accepted(api, PNG, recipe="avatar")
    await finish_with(api, image_id, {"square": (256, 256, 900), "square.webp": (256, 256, 500)})
    jpeg, webp = [await get(api, image_id, f"square.{extension}") for extension in ("jpg", "webp")]
    assert (len(jpeg.content), len(webp.content)) == (900, 500)
    plain = await get(api, image_id, f"square?v={thumbnail('square', (256, 256, 900)).sha256[:16]}", "image/webp")
    assert (plain.headers["content-type"], plain.headers["cache-control"]) == ("image/jpeg", FOREVER)
    assert "vary" not in plain.headers


# What a client that names these types gets of each image, whose recipe has JPEG, WebP, AVIF and JPEG XL.
ALL: Final[dict[str, Size]] = {
    "hero": (800, 600, 6000),
    "hero.avif": (800, 600, 3000),
    "hero.jxl": (800, 600, 2500),
    "hero.webp": (800, 600, 4000),
}
STORED: Final[dict[str, dict[str, Size]]] = {
    "all": ALL,
    "WebP is the smallest": {**ALL, "hero.webp": (800, 600, 2000)},
    "WebP only": {name: ALL[name] for name in ("hero", "hero.webp")},
    "none": {"hero": ALL["hero"]},
    "the same size": {"hero": (800, 600, 3000), "hero.avif": (800, 600, 3000)},
}
ORDER: Final = {
    "all": ("jxl", "avif", "webp"),
    "WebP is the smallest": ("webp", "jxl", "avif"),
    "WebP only": ("webp",),
    "none": (),
    "the same size": (),
}


@pytest.mark.parametrize("stored", STORED)
async def test_browsers_get_the_smallest_file_that_they_name(api: Api, stored: str) -> None:
    image_id = await accepted(api, PNG, recipe="hero")
    await finish_with(api, image_id, STORED[stored])
    for browser, (accept, named) in BROWSERS.items():
        answer = await get(api, image_id, "hero", accept)
        expected = next((kind for kind in ORDER[stored] if kind in named), "jpeg")
        assert (browser, answer.headers["content-type"]) == (browser, f"image/{expected}")
        name = "hero" if expected == "jpeg" else f"hero.{expected}"
        made = thumbnail(name, STORED[stored][name])
        assert answer.content == content_of(name, made.size_bytes)
        assert answer.headers["etag"] == f'"{made.sha256}"'
        assert answer.headers["vary"] == "Accept"
        assert answer.headers["cache-control"] == REVALIDATED
        explicit = "hero.jpg" if expected == "jpeg" else name
        assert answer.headers["content-disposition"] == f'inline; filename="{image_id}-{explicit}"'
        location = answer.headers["content-location"]
        assert location == f"/images/{image_id}/thumbnails/{explicit}?v={made.sha256[:16]}"
        same = await api.client.get(location)
        assert (same.content, same.headers["cache-control"]) == (answer.content, FOREVER)


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        ("image/avif;q=0, image/webp", "hero.webp"),
        ("image/avif;q=0, */*", "hero"),
        ("image/*", "hero"),
        ("image/jpeg", "hero"),
        ("image/avif;q=0.001, image/webp;q=1", "hero.avif"),
        ("image/avif;q=much", "hero"),
        ("", "hero"),
    ],
)
async def test_only_types_named_with_a_quality_count(api: Api, hero: str, accept: str, name: str) -> None:
    assert (await get(api, hero, "hero", accept)).headers["etag"] == f'"{digest(name)}"'


async def test_accept_may_be_several_lines(api: Api, hero: str) -> None:
    url = f"{BASE}/images/{hero}/thumbnails/hero"
    lines = [("Accept", "text/html"), ("Accept", "image/webp"), ("Accept", "image/avif;q=0")]
    answer = await api.client.send(httpx.Request("GET", url, headers=lines))
    assert answer.headers["content-type"] == "image/webp"


async def test_each_pixel_density_negotiates_for_itself(api: Api, hero: str) -> None:
    accept = "image/avif,image/webp"
    assert (await get(api, hero, "hero", accept)).headers["content-type"] == "image/avif"
    assert (await get(api, hero, "hero@2x", accept)).headers["content-type"] == "image/webp"
    assert (await get(api, hero, "small", accept)).headers["content-type"] == "image/jpeg"


async def test_version_does_not_make_a_negotiated_url_cacheable_for_ever(api: Api, hero: str) -> None:
    url = (await status_of(api, hero))["thumbnails"]["hero"]
    for accept in ("image/avif", "*/*"):
        answer = await api.client.get(url, headers={"Accept": accept})
        assert (answer.headers["cache-control"], answer.headers["vary"]) == (REVALIDATED, "Accept")


async def test_conditions_and_ranges_are_those_of_the_variant(api: Api, hero: str) -> None:
    avif, jpeg = (f'"{digest(name)}"' for name in ("hero.avif", "hero"))
    for etag, accept, status in ((avif, "image/avif", 304), (jpeg, "*/*", 304), (jpeg, "image/avif", 200)):
        answer = await get(api, hero, "hero", accept, **{"If-None-Match": etag})
        assert (answer.status_code, answer.headers["vary"]) == (status, "Accept")
        assert answer.headers["content-location"]
    both = await get(api, hero, "hero", "image/avif", **{"If-None-Match": f"{jpeg}, {avif}"})
    assert (both.status_code, both.headers["etag"]) == (304, avif)
    ranged = {"Range": "bytes=0-8"}
    for accept, name in (("image/avif", "hero.avif"), ("image/webp", "hero.webp")):
        piece = await get(api, hero, "hero", accept, **ranged)
        assert (piece.status_code, piece.content, piece.headers["vary"]) == (206, name.encode(), "Accept")
    other = await get(api, hero, "hero", "image/avif", **ranged, **{"If-Range": jpeg})
    assert (other.status_code, len(other.content)) == (200, 3000)
    outside = await get(api, hero, "hero", "image/avif", Range="bytes=3000-")
    problem(outside, 416, "range-not-satisfiable")
    assert (outside.headers["content-range"], outside.headers["vary"]) == ("bytes */3000", "Accept")
    mismatch = await get(api, hero, "hero", "image/avif", **{"If-Match": jpeg})
    problem(mismatch, 412, "precondition-failed")
    assert mismatch.headers["vary"] == "Accept"


async def test_missing_thumbnail_of_a_negotiating_recipe_varies(api: Api, hero: str) -> None:
    waiting = await accepted(api, PNG, recipe="hero")
    for image_id, name, vary in ((hero, "extra", "Accept"), (waiting, "hero", "Accept"), (hero, "extra.jxl", None)):
        missing = await get(api, image_id, name, "image/jxl")
        problem(missing, 404, "thumbnail-not-found")
        assert missing.headers.get("vary") == vary
    assert "vary" not in (await get(api, UNKNOWN, "hero")).headers


@pytest.mark.parametrize("accept", ["image/avif", "*/*"])
@pytest.mark.parametrize("name", ["hero", "hero.webp", "hero@2x", "hero.png"])
async def test_head_is_get_without_the_body(api: Api, hero: str, name: str, accept: str) -> None:
    got = await get(api, hero, name, accept)
    head = await api.client.head(f"/images/{hero}/thumbnails/{name}", headers={"Accept": accept})
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert {**head.headers, "x-request-id": ""} == {**got.headers, "x-request-id": ""}


async def test_other_recipes_do_not_negotiate(api: Api) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    url = (await status_of(api, image_id))["thumbnails"]["300x300"]
    answer = await api.client.get(url, headers={"Accept": "image/avif,image/webp"})
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("image/jpeg", FOREVER)
    assert "vary" not in answer.headers
    explicit = await get(api, image_id, "300x300.jpg")
    assert explicit.headers["etag"] == answer.headers["etag"]


async def test_negotiated_file_that_was_replaced_meanwhile_is_found_again(api: Api, hero: str) -> None:
    answer = await api.client.post(f"/images/{hero}/reprocess")
    assert answer.status_code == 202
    await finish_with(api, hero, {"hero": (800, 600, 6001), "hero.avif": (800, 600, 3001)})
    gone = api.settings.storage_path / thumbnail_key(UUID(hero), 1, "hero.avif")
    gone.unlink(missing_ok=True)
    assert len((await get(api, hero, "hero", "image/avif")).content) == 3001


class Presigned:
    """Signs nothing, but says what was asked for."""

    async def presign(self, key: str, *, method: str, seconds: int) -> str:
        return f"https://bucket.example/{key.rpartition('.')[2]}?{method}&{seconds}"


async def test_redirects_vary_and_expire(sqlite_url: str, tmp_path: Path) -> None:
    async with api_on(sqlite_url, tmp_path, recipes=RECIPES, presigned_urls=Presigned()) as api:
        image_id = await accepted(api, PNG, recipe="hero")
        await finish_with(api, image_id)
        for accept, target in (("image/avif", "avif"), ("image/webp", "webp"), ("*/*", "hero")):
            answer = await get(api, image_id, "hero", accept)
            assert (answer.status_code, answer.headers["location"]) == (307, f"https://bucket.example/{target}?GET&300")
            assert (answer.headers["vary"], answer.headers["cache-control"]) == ("Accept", REVALIDATED)
        explicit = await get(api, image_id, f"hero.avif?v={digest('hero.avif')[:16]}", "*/*")
        assert (explicit.status_code, explicit.headers["cache-control"]) == (307, "public, max-age=240")
        assert "vary" not in explicit.headers
        same = await get(api, image_id, "hero", "image/avif", **{"If-None-Match": f'"{digest("hero.avif")}"'})
        assert (same.status_code, same.headers["vary"]) == (304, "Accept")
