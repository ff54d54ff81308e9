"""Deletion removes an image in any state at once, and its files then or soon after."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from uuid import UUID

import pytest

from harness.api import UNKNOWN, Api, UnavailableQueue, accepted, api_on, claimed, complete, fail, finish, problem
from harness.processes import free_port
from image_service.errors import StorageUnavailable
from image_service.services.deletion import Deletion
from image_service.storage.local import LocalStorage


def requests_for(image_id: str) -> list[tuple[str, str]]:
    """All requests for an image."""
    files = ["", "/original", "/thumbnails/100x100", "/thumbnails/300x300", "/thumbnails/1200x1200"]
    reads = [("GET", f"/images/{image_id}{file}") for file in files]
    return [*reads, ("POST", f"/images/{image_id}/reprocess"), ("DELETE", f"/images/{image_id}")]


async def assert_deleted(api: Api, image_id: str) -> None:
    """Asserts that every request for the image returns 404."""
    for method, path in requests_for(image_id):
        problem(await api.client.request(method, path), 404, "image-not-found")
    assert (await api.client.get("/images")).json() == {"images": [], "next": None}


async def delete(api: Api, image_id: str) -> None:
    answer = await api.client.delete(f"/images/{image_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    await assert_deleted(api, image_id)


async def due_removals(api: Api) -> int:
    """Returns the number of files recorded for removal."""
    async with api.database.transaction() as repositories:
        return len(await repositories.removals.due(limit=100))


def files(api: Api) -> list[Path]:
    return [*api.originals, *api.thumbnails]


async def test_unqueued_image_is_deleted(database_url: str, tmp_path: Path) -> None:
    async with api_on(database_url, tmp_path, UnavailableQueue()) as api:
        await delete(api, await accepted(api))
        assert not files(api)


async def test_queued_image_is_deleted(api: Api) -> None:
    await delete(api, await accepted(api))
    assert not files(api)


async def test_claimed_image_is_deleted(api: Api) -> None:
    image_id = await accepted(api)
    await claimed(api, image_id)
    await delete(api, image_id)
    assert not files(api)


async def test_done_image_is_deleted(api: Api) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    assert len(files(api)) == 4
    await delete(api, image_id)
    assert not files(api)
    assert await due_removals(api) == 0


async def test_failed_image_is_deleted(api: Api) -> None:
    image_id = await accepted(api)
    await fail(api, image_id)
    await delete(api, image_id)
    assert not files(api)


async def test_image_in_reprocessing_is_deleted_with_its_thumbnails(api: Api) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    await api.client.post(f"/images/{image_id}/reprocess")
    await claimed(api, image_id)
    await delete(api, image_id)
    assert not files(api)


async def test_other_images_are_not_deleted(api: Api) -> None:
    others = [await accepted(api) for _ in range(3)]
    await finish(api, others[1])
    assert (await api.client.delete(f"/images/{others[0]}")).status_code == 204
    assert [image["id"] for image in (await api.client.get("/images")).json()["images"]] == [others[2], others[1]]
    for _, path in requests_for(others[1])[:5]:
        assert (await api.client.get(path)).status_code == 200


async def test_concurrent_deletions_succeed_once(api: Api) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    answers = await asyncio.gather(*(api.client.delete(f"/images/{image_id}") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [204, *[404] * 7]
    assert not files(api)


async def test_completion_and_deletion_are_serialized(api: Api) -> None:
    image_id = await accepted(api)
    claim = await claimed(api, image_id)
    finishing, deleting = await asyncio.gather(
        complete(api, claim), api.client.delete(f"/images/{image_id}"), return_exceptions=True
    )
    assert not isinstance(deleting, BaseException)
    assert deleting.status_code == 204
    await assert_deleted(api, image_id)
    if isinstance(finishing, BaseException):  # the claim was lost: the worker removes the files that it stored
        assert not api.originals
    else:
        assert not files(api)


async def test_deleting_an_unknown_image_returns_404(api: Api) -> None:
    problem(await api.client.delete(f"/images/{UNKNOWN}"), 404, "image-not-found")


@pytest.mark.parametrize("image_id", ["1", "späť", f"{UNKNOWN}0", "*"])
async def test_deleting_an_invalid_id_returns_422(sqlite_api: Api, image_id: str) -> None:
    problem(await sqlite_api.client.delete(f"/images/{image_id}"), 422, "invalid-request")


async def test_deletion_during_storage_outage_removes_files_later(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unavailable(_storage: LocalStorage, _keys: Iterable[str]) -> None:
        raise StorageUnavailable

    deletion = Deletion(database=api.database, storage=api.resources.storage)  # as workers run it periodically
    image_id = await accepted(api)
    await finish(api, image_id)
    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "delete", unavailable)
        await delete(api, image_id)
        with pytest.raises(StorageUnavailable):
            await deletion.run_once()
    assert len(files(api)) == 4
    assert await deletion.run_once() == 4
    assert not files(api)
    assert await deletion.run_once() == 0


async def test_deletion_during_database_outage_deletes_nothing(sqlite_url: str, tmp_path: Path) -> None:
    async with api_on(sqlite_url, tmp_path) as api:
        image_id = await accepted(api)
        kept = files(api)
    async with api_on(f"postgresql+asyncpg://unknown@127.0.0.1:{free_port()}/nothing", tmp_path) as api:
        answer = await api.client.delete(f"/images/{image_id}")
        problem(answer, 503, "database-unavailable")
        assert answer.headers["retry-after"] == "5"
        assert files(api) == kept


@pytest.mark.parametrize("file", ["original", "thumbnails/100x100"])
async def test_file_that_is_deleted_while_it_is_requested_returns_404(
    api: Api, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    read = LocalStorage.read

    async def deleted_first(self: LocalStorage, key: str, start: int, length: int | None) -> AsyncIterator[bytes]:
        await Deletion(database=api.database, storage=self).delete(UUID(image_id))
        async for piece in read(self, key, start, length):
            yield piece

    monkeypatch.setattr(LocalStorage, "read", deleted_first)
    problem(await api.client.get(f"/images/{image_id}/{file}"), 404, "image-not-found")


async def test_lost_file_of_an_image_that_is_still_recorded_returns_500(api: Api) -> None:
    image_id = await accepted(api)
    for path in api.originals:
        path.unlink()
    problem(await api.client.get(f"/images/{image_id}/original"), 500, "object-missing")


async def test_thumbnail_that_is_replaced_while_it_is_requested_is_served(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    read = LocalStorage.read
    replaced: list[bytes] = []

    async def replaced_first(self: LocalStorage, key: str, start: int, length: int | None) -> AsyncIterator[bytes]:
        if not replaced:
            assert (await api.client.post(f"/images/{image_id}/reprocess")).status_code == 202
            replaced.append((await finish(api, image_id))["100x100"])
            await self.delete([key])
        async for piece in read(self, key, start, length):
            yield piece

    monkeypatch.setattr(LocalStorage, "read", replaced_first)
    answer = await api.client.get(f"/images/{image_id}/thumbnails/100x100")
    assert (answer.status_code, answer.content) == (200, replaced[0])


async def test_requests_beside_deletions_are_answered_with_the_file_or_404(api: Api) -> None:
    for _ in range(10):
        image_id = await accepted(api)
        await finish(api, image_id)
        urls = [f"/images/{image_id}/original", f"/images/{image_id}/thumbnails/100x100"] * 5
        requests = [asyncio.create_task(api.client.get(url)) for url in urls]
        assert (await api.client.delete(f"/images/{image_id}")).status_code == 204
        assert {answer.status_code for answer in await asyncio.gather(*requests)} <= {200, 404}
