"""The object storage and responses that the test server does not send."""

import os
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from obstore.exceptions import BaseError, GenericError
from obstore.store import MemoryStore
from structlog.testing import capture_logs

from image_service.errors import Outage, StorageFull, StorageUnavailable
from image_service.storage.objects import ObjectStorage

KEYS = ("originals/7f/a", "originals/7f/b", "originals/7f/c")


class Store:
    """Objects in memory."""

    def __init__(self) -> None:
        self.kept = MemoryStore()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any of the store's methods
        return getattr(self.kept, name)


class ReportsMissingKeys(Store):
    """Like Google's and Azure's: deleting a missing key is an error."""

    async def delete_async(self, paths: str | Sequence[str]) -> None:
        for path in [paths] if isinstance(paths, str) else paths:
            await self.kept.head_async(path)
            await self.kept.delete_async(path)


@pytest.fixture
def store() -> Store:
    return Store()


def storage_on(store: Store, folder: Path) -> ObjectStorage:
    return ObjectStorage(store, folder / "storage", limit=5, largest_copy=1000)  # type: ignore[arg-type]  # a stand-in


async def put(storage: ObjectStorage, *keys: str) -> None:
    async with storage.scratch() as scratch:
        file = scratch / "file"
        file.write_bytes(b"content")
        await storage.adopt(dict.fromkeys(keys, file))


async def test_ages_are_by_the_servers_clock(store: Store, tmp_path: Path) -> None:
    class Later(Store):
        async def head_async(self, path: str) -> dict[str, Any]:
            meta: dict[str, Any] = dict(await self.kept.head_async(path))
            written: datetime = meta["last_modified"]
            return meta | {"last_modified": written + timedelta(hours=2)}

    later = Later()
    later.kept = store.kept
    await put(storage_on(store, tmp_path), KEYS[0])
    (found,) = [item async for item in storage_on(later, tmp_path).list("")]
    assert 7200 <= found.age_seconds < 7260


async def test_missing_key_does_not_prevent_other_deletions(tmp_path: Path) -> None:
    storage = storage_on(ReportsMissingKeys(), tmp_path)
    await put(storage, KEYS[0], KEYS[2])
    await storage.delete(KEYS)
    assert [item async for item in storage.list("")] == []


@pytest.mark.parametrize(
    ("failure", "outage"),
    [
        (GenericError("Server returned non-2xx status code: 507 Insufficient Storage: "), StorageFull),
        (GenericError("status code: 500 Internal Server Error: \n<Code>XMinioStorageFull</Code>"), StorageFull),
        (GenericError("status code: 500 Internal Server Error: "), StorageUnavailable),
        (BaseError("something new"), StorageUnavailable),
        (OSError("something old"), StorageUnavailable),
    ],
)
async def test_lack_of_space_is_distinguished_from_other_failures(
    tmp_path: Path, failure: Exception, outage: type[Outage]
) -> None:
    class Failing(Store):
        async def put_async(self, *_args: object, **_options: object) -> None:
            raise failure

    with pytest.raises(outage):
        await put(storage_on(Failing(), tmp_path), KEYS[0])


async def test_logged_reason_is_one_line_without_the_query(tmp_path: Path) -> None:
    class Failing(Store):
        async def head_async(self, path: str) -> None:
            raise GenericError(f"Error performing HEAD https://host/{path}?sig=secret in 1ms\n\nDebug source: secret")

    with capture_logs() as lines, pytest.raises(StorageUnavailable):
        await anext(aiter(storage_on(Failing(), tmp_path).read(KEYS[0], 0, 0)))
    (line,) = lines
    assert line["reason"] == f"Error performing HEAD https://host/{KEYS[0]} in 1ms"


async def test_failed_upload_removes_the_other_files(store: Store, tmp_path: Path) -> None:
    storage = storage_on(store, tmp_path)
    async with storage.scratch() as scratch:
        (scratch / "file").write_bytes(b"content")
        with pytest.raises(StorageUnavailable):
            await storage.adopt({KEYS[0]: scratch / "file", KEYS[1]: scratch / "missing"})
    assert [item async for item in storage.list("")] == []


async def test_first_upload_sweeps_old_scratch_directories(store: Store, tmp_path: Path) -> None:
    old = tmp_path / "storage" / "scratch" / "old"
    old.mkdir(parents=True)
    os.utime(old, (time.time() - 4000, time.time() - 4000))
    storage = storage_on(store, tmp_path)
    await put(storage, KEYS[0])
    assert not old.exists()


async def test_memory_store_has_no_presigned_urls(tmp_path: Path) -> None:
    storage = ObjectStorage(MemoryStore(), tmp_path, limit=5, largest_copy=1000)
    with pytest.raises(StorageUnavailable):
        await storage.presign(KEYS[0], method="GET", seconds=60)
