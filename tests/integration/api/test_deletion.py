"""A deleted image is gone at once, in whatever state it was, and its files with it or soon after."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from harness.api import UNKNOWN, Api, QueueThatIsAway, accepted, api_on, claimed, complete, fail, finish, problem
from harness.processes import free_port
from image_service.errors import StorageUnavailable
from image_service.services.deletion import Deletion
from image_service.storage.local import LocalStorage


def addresses(image_id: str) -> list[tuple[str, str]]:
    """Everything that can be asked of an image."""
    files = ["", "/original", "/thumbnails/100x100", "/thumbnails/300x300", "/thumbnails/1200x1200"]
    reads = [("GET", f"/images/{image_id}{file}") for file in files]
    return [*reads, ("POST", f"/images/{image_id}/reprocess"), ("DELETE", f"/images/{image_id}")]


async def gone(api: Api, image_id: str) -> None:
    """Nothing of the image is left for those who ask."""
    for method, path in addresses(image_id):
        problem(await api.client.request(method, path), 404, "image-not-found")
    assert (await api.client.get("/images")).json() == {"images": [], "next": None}


async def deleted(api: Api, image_id: str) -> None:
    answer = await api.client.delete(f"/images/{image_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    await gone(api, image_id)


async def due(api: Api) -> int:
    """Files that are written down to be removed."""
    async with api.database.transaction() as repositories:
        return len(await repositories.removals.due(limit=100))


def files(api: Api) -> list[Path]:
    return [*api.originals, *api.thumbnails]


async def test_an_image_that_waits_for_the_queue(database_url: str, tmp_path: Path) -> None:
    async with api_on(database_url, tmp_path, QueueThatIsAway()) as api:
        await deleted(api, await accepted(api))
        assert not files(api)


async def test_an_image_that_waits_in_the_queue(api: Api) -> None:
    await deleted(api, await accepted(api))
    assert not files(api)


async def test_an_image_that_a_worker_holds(api: Api) -> None:
    image_id = await accepted(api)
    await claimed(api, image_id)
    await deleted(api, image_id)
    assert not files(api)


async def test_an_image_that_is_done(api: Api) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    assert len(files(api)) == 4
    await deleted(api, image_id)
    assert not files(api)
    assert await due(api) == 0


async def test_an_image_in_error(api: Api) -> None:
    image_id = await accepted(api)
    await fail(api, image_id)
    await deleted(api, image_id)
    assert not files(api)


async def test_an_image_that_is_processed_again_goes_with_its_old_thumbnails(api: Api) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    await api.client.post(f"/images/{image_id}/reprocess")
    await claimed(api, image_id)
    await deleted(api, image_id)
    assert not files(api)


async def test_its_neighbours_stay(api: Api) -> None:
    others = [await accepted(api) for _ in range(3)]
    await finish(api, others[1])
    assert (await api.client.delete(f"/images/{others[0]}")).status_code == 204
    assert [image["id"] for image in (await api.client.get("/images")).json()["images"]] == [others[2], others[1]]
    for _, path in addresses(others[1])[:5]:
        assert (await api.client.get(path)).status_code == 200


async def test_of_many_who_delete_at_once_one_does(api: Api) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    answers = await asyncio.gather(*(api.client.delete(f"/images/{image_id}") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [204, *[404] * 7]
    assert not files(api)


async def test_a_worker_that_finishes_while_its_image_is_deleted_either_finishes_first_or_not_at_all(api: Api) -> None:
    image_id = await accepted(api)
    claim = await claimed(api, image_id)
    finishing, deleting = await asyncio.gather(
        complete(api, claim), api.client.delete(f"/images/{image_id}"), return_exceptions=True
    )
    assert not isinstance(deleting, BaseException)
    assert deleting.status_code == 204
    await gone(api, image_id)
    if isinstance(finishing, BaseException):  # its claim was lost: what it had stored is its own to remove
        assert not api.originals
    else:
        assert not files(api)


async def test_an_image_that_never_was(api: Api) -> None:
    problem(await api.client.delete(f"/images/{UNKNOWN}"), 404, "image-not-found")


@pytest.mark.parametrize("image_id", ["1", "späť", f"{UNKNOWN}0", "*"])
async def test_an_id_that_is_none(sqlite_api: Api, image_id: str) -> None:
    problem(await sqlite_api.client.delete(f"/images/{image_id}"), 422, "invalid-request")


async def test_while_the_storage_is_away_the_image_goes_and_its_files_follow(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def be_away(_storage: LocalStorage, _keys: Iterable[str]) -> None:
        raise StorageUnavailable

    deletion = Deletion(database=api.database, storage=api.resources.storage)  # what workers do now and then
    image_id = await accepted(api)
    await finish(api, image_id)
    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "delete", be_away)
        await deleted(api, image_id)
        with pytest.raises(StorageUnavailable):
            await deletion.run_once()
    assert len(files(api)) == 4
    assert await deletion.run_once() == 4
    assert not files(api)
    assert await deletion.run_once() == 0


async def test_while_the_database_is_away_nothing_is_deleted(sqlite_url: str, tmp_path: Path) -> None:
    async with api_on(sqlite_url, tmp_path) as api:
        image_id = await accepted(api)
        kept = files(api)
    async with api_on(f"postgresql+asyncpg://nobody@127.0.0.1:{free_port()}/nothing", tmp_path) as api:
        answer = await api.client.delete(f"/images/{image_id}")
        problem(answer, 503, "database-unavailable")
        assert answer.headers["retry-after"] == "5"
        assert files(api) == kept
