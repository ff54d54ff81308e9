"""Recipes: chosen at upload and for reprocessing, and listed."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from harness.api import JPEG, PNG, Api, accepted, api_on, finish, problem, status_of, upload
from harness.forms import CONTENT_TYPE, form, part
from harness.outputs import HERO_FILES, RECIPES, finish_with
from image_service.domain.image import Image
from image_service.domain.recipe import Preset, Recipe, Recipes


@pytest.fixture
async def api(database_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with api_on(database_url, tmp_path, recipes=RECIPES) as api:
        yield api


@pytest.fixture
async def sqlite_api(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with api_on(sqlite_url, tmp_path, recipes=RECIPES, max_file_size=1_000_000) as api:
        yield api


async def send(api: Api, *parts: bytes, query: str = "", **headers: str) -> Any:  # noqa: ANN401  (the response)
    return await api.client.post(
        f"/images{query}", content=form(*parts), headers={"Content-Type": CONTENT_TYPE, **headers}
    )


async def recorded(api: Api, image_id: str) -> Image:
    async with api.database.transaction() as repositories:
        image = await repositories.images.get(UUID(image_id))
    assert image is not None
    return image


FIELD = part(b"avatar", b"recipe", None)


@pytest.mark.parametrize(
    ("parts", "query", "recipe"),
    [
        ((part(PNG),), "?recipe=avatar", "avatar"),
        ((FIELD, part(PNG)), "", "avatar"),
        ((FIELD, FIELD, part(PNG)), "?recipe=avatar&recipe=avatar", "avatar"),
        ((part(b"{}", b"file", None), FIELD, part(PNG), part(b"x", b"other", None)), "", "avatar"),
        ((part(PNG),), "?recipe=default", None),
        ((part(b"default", b"recipe", None), part(PNG)), "", None),
        ((part(PNG),), "", None),
    ],
)
async def test_recipe_is_recorded(api: Api, parts: tuple[bytes, ...], query: str, recipe: str | None) -> None:
    answer = await send(api, *parts, query=query)
    assert answer.status_code == 202, answer.text
    image_id = answer.json()["id"]
    assert (await recorded(api, image_id)).recipe_name == recipe
    assert (await status_of(api, image_id))["recipe"] == (recipe or "default")


REFUSED = {
    "unknown": ((part(PNG),), "?recipe=cover", "unknown-recipe"),
    "unknown in the form": ((part(b"cover", b"recipe", None), part(PNG)), "", "unknown-recipe"),
    "empty": ((part(PNG),), "?recipe=", "unknown-recipe"),
    "other case": ((part(PNG),), "?recipe=Avatar", "unknown-recipe"),
    "blank": ((part(b" avatar", b"recipe", None), part(PNG)), "", "unknown-recipe"),
    "too long": ((part(b"x" * 5000, b"recipe", None), part(PNG)), "", "unknown-recipe"),
    "no text": ((part(b"\xff\r\n\x00", b"recipe", None), part(PNG)), "", "unknown-recipe"),
    "two in the query": ((part(PNG),), "?recipe=avatar&recipe=hero", "recipe-conflict"),
    "two in the form": ((FIELD, part(b"hero", b"recipe", None), part(PNG)), "", "recipe-conflict"),
    "one in each": ((FIELD, part(PNG)), "?recipe=hero", "recipe-conflict"),
    "after the file": ((part(PNG), FIELD), "", "recipe-after-file"),
    "after a file without name": ((part(PNG, b"file", None), FIELD), "", "recipe-after-file"),
}


@pytest.mark.parametrize("refused", REFUSED)
async def test_other_recipe_is_refused_and_nothing_stored(sqlite_api: Api, refused: str) -> None:
    parts, query, code = REFUSED[refused]
    document = problem(await send(sqlite_api, *parts, query=query), 422, code)
    if code == "unknown-recipe":
        assert document["detail"].endswith("or none for the default recipe: avatar, default, hero.")
        assert document["detail"].isprintable()
    assert len(document["detail"]) < 300
    described = sqlite_api.app.openapi()["paths"]["/images"]["post"]["responses"]["422"]
    assert code in described["content"]["application/problem+json"]["examples"]
    assert not sqlite_api.originals
    assert not sqlite_api.scratch
    assert (await sqlite_api.client.get("/images")).json()["images"] == []


async def test_the_list_of_names_is_bounded(sqlite_url: str, tmp_path: Path) -> None:
    many = Recipes(*(Recipe(name=f"r{number:03}", presets=(Preset(name="a", width=1),)) for number in range(500)))
    async with api_on(sqlite_url, tmp_path, recipes=many) as api:
        detail = problem(await upload(api, recipe="x" * 4000), 422, "unknown-recipe")["detail"]
    assert "r018 and 481 more, which GET /recipes lists." in detail
    assert len(detail) < 400


async def test_unknown_recipe_is_refused_before_the_file_is_read(sqlite_api: Api) -> None:
    big = part(PNG + bytes(2_000_000))  # with it, the answer would be 413
    problem(await send(sqlite_api, big), 413, "upload-too-large")
    problem(await send(sqlite_api, big, query="?recipe=cover"), 422, "unknown-recipe")
    text = part(b"no image" * 10_000)
    problem(await send(sqlite_api, part(b"cover", b"recipe", None), text), 422, "unknown-recipe")


async def test_idempotency_key_belongs_to_file_and_recipe(api: Api) -> None:
    image_id = await accepted(api, key="k", recipe="avatar")
    again = await upload(api, key="k", recipe="avatar")
    assert (again.json()["id"], again.headers["idempotent-replayed"]) == (image_id, "true")
    for other in ("hero", "default", None):
        problem(await upload(api, key="k", recipe=other), 422, "idempotency-key-reused")
    default = await accepted(api, key="d")
    assert (await upload(api, key="d", recipe="default")).json()["id"] == default
    assert len(api.originals) == 2


async def test_reprocessing_takes_another_recipe(api: Api) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    for recipe, recorded_as in (("hero", "hero"), (None, "hero"), ("default", None)):
        query = {} if recipe is None else {"recipe": recipe}
        answer = await api.client.post(f"/images/{image_id}/reprocess", params=query)
        assert answer.status_code == 202, answer.text
        assert (await recorded(api, image_id)).recipe_name == recorded_as
        status = await status_of(api, image_id)
        assert status["thumbnails"], "the ones before are served meanwhile"
        await (finish(api, image_id) if recorded_as is None else finish_with(api, image_id))


@pytest.mark.parametrize(
    ("query", "code"),
    [("?recipe=cover", "unknown-recipe"), ("?recipe=", "unknown-recipe"), ("?recipe=a&recipe=b", "recipe-conflict")],
)
async def test_reprocessing_with_another_name_is_refused(sqlite_api: Api, query: str, code: str) -> None:
    image_id = await accepted(sqlite_api)
    await finish(sqlite_api, image_id)
    problem(await sqlite_api.client.post(f"/images/{image_id}/reprocess{query}"), 422, code)
    assert (await status_of(sqlite_api, image_id))["status"] == "DONE"


async def test_lane_depends_on_the_recipe(sqlite_api: Api) -> None:
    await accepted(sqlite_api, JPEG)
    assert (await sqlite_api.resources.queue.depth())["express"] == 1  # type: ignore[index]
    await accepted(sqlite_api, JPEG, recipe="hero")
    depth = {lane.value: waiting for lane, waiting in (await sqlite_api.resources.queue.depth()).items()}
    assert (depth["express"], depth["normal"]) == (1, 1)


async def test_recipes_are_listed(sqlite_api: Api) -> None:
    answer = await sqlite_api.client.get("/recipes")
    recipes = {each["name"]: each for each in answer.json()["recipes"]}
    assert list(recipes) == ["avatar", "default", "hero"]
    (square,) = recipes["avatar"]["presets"]
    assert square == {
        "name": "square",
        "width": 256,
        "height": 256,
        "fit": "cover",
        "gravity": "centre",
        "background": "#ffffff",
        "enlarge": False,
        "formats": ["jpeg", "webp"],
        "quality": {"jpeg": 82, "webp": 78},
        "effort": "fast",
        "sharpen": False,
        "linear": False,
        "animation": "first",
        "dpr": [1],
        "optional": False,
        "outputs": ["square", "square.webp"],
    }
    assert recipes["hero"]["negotiate"] is True
    assert recipes["hero"]["presets"][0]["outputs"] == [
        *("hero", "hero.webp", "hero.avif"),
        *("hero@2x", "hero@2x.webp", "hero@2x.avif"),
    ]
    assert [each["name"] for each in recipes["default"]["presets"]] == ["100x100", "300x300", "1200x1200"]


async def test_limits_are_those_of_the_settings(sqlite_url: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_file_size": 12_345, "max_pixels": 678, "enabled_formats": "png,jpeg"}
    async with api_on(sqlite_url, tmp_path, recipes=RECIPES, **settings) as api:
        limits = (await api.client.get("/limits")).json()
    assert limits == {
        "max_file_size": 12_345,
        "max_pixels": 678,
        "content_types": ["image/jpeg", "image/png"],
        "recipes": ["avatar", "default", "hero"],
        "file_field": "file",
        "recipe_field": "recipe",
        "max_fields": 64,
        "max_recipe_name": 64,
        "max_metadata": 1024,
        "max_idempotency_key": 255,
    }


@pytest.mark.parametrize("path", ["/recipes", "/limits"])
async def test_recipes_and_limits_are_cacheable_and_need_no_database(tmp_path: Path, path: str) -> None:
    async with api_on(f"sqlite+aiosqlite:///{tmp_path}/missing/none.db", tmp_path) as api:
        answer = await api.client.get(path)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "public, max-age=60")
        again = await api.client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", answer.headers["etag"])


async def test_image_of_a_recipe_that_the_process_does_not_know_is_served(sqlite_url: str, tmp_path: Path) -> None:
    async with api_on(sqlite_url, tmp_path / "a", recipes=RECIPES) as api:
        image_id = await accepted(api, recipe="hero")
        await finish_with(api, image_id, pending=["extra", "extra.jxl"])
        known = await status_of(api, image_id)
    async with api_on(sqlite_url, tmp_path / "a") as api:
        unknown = await status_of(api, image_id)
        assert unknown == known
        assert (await api.client.get("/images")).json()["images"] == [unknown]
        for output in unknown["outputs"][: len(HERO_FILES)]:
            assert (await api.client.get(output["url"])).status_code == 200
        problem(await upload(api, recipe="hero"), 422, "unknown-recipe")
