"""The contract of ``ports.Storage``, for every adapter."""

import asyncio
import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from image_service.errors import ObjectChanged, ObjectMissing, Outage
from image_service.ports import Storage
from image_service.storage.local import LocalStorage
from image_service.storage.objects import ObjectStorage

LIMIT = 120.0
"""Seconds, so that servers on a busy machine count as available."""
LARGEST = 64 * 1024 * 1024
KEY = "originals/7f/0190"
BIG = os.urandom(1024) * 1500 + b"an odd length"


@pytest.fixture(params=["local", "memory", "s3", "gcs", "azure"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    match request.param:
        case "local":
            return LocalStorage(tmp_path / "storage")
        case "memory":
            return ObjectStorage(MemoryStore(), tmp_path / "storage", limit=LIMIT, largest_copy=LARGEST)
        case server:
            env: dict[str, str] = request.getfixturevalue(f"{server}_env")
            for name, value in env.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setattr("image_service.storage.objects.storage.PROBE_TIMEOUT", LIMIT)
            return ObjectStorage.at(env["STORAGE_URL"], tmp_path / "storage", limit=LIMIT, largest_copy=LARGEST)


async def put(storage: Storage, files: dict[str, bytes]) -> None:
    async with storage.scratch() as scratch:
        paths = {key: scratch / str(number) for number, key in enumerate(files)}
        for key, path in paths.items():
            path.write_bytes(files[key])
        await storage.adopt(paths)


async def get(storage: Storage, key: str, start: int = 0, length: int | None = None) -> bytes:
    return b"".join([piece async for piece in storage.read(key, start, length)])


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def keys(storage: Storage, prefix: str) -> set[str]:
    found = [item.key async for item in storage.list(prefix)]
    assert len(found) == len(set(found))
    return set(found)


async def test_scratch_is_an_empty_directory_removed_with_its_content(storage: Storage) -> None:
    async with storage.scratch() as one, storage.scratch() as other:
        assert one != other
        assert list(one.iterdir()) == []
        (one / "deep" / "er").mkdir(parents=True)
        (one / "deep" / "er" / "file").write_bytes(b"x")
    assert not one.exists()
    assert not other.exists()


@pytest.mark.parametrize("error", [RuntimeError, ConnectionResetError, asyncio.CancelledError])
async def test_scratch_is_removed_after_an_error_which_is_raised(storage: Storage, error: type[BaseException]) -> None:
    folder = None

    async def fail() -> None:
        nonlocal folder
        async with storage.scratch() as folder:
            (folder / "file").write_bytes(b"x")
            raise error

    with pytest.raises(error):
        await fail()
    assert folder is not None
    assert not folder.exists()


async def test_adopted_file_reads_back_unchanged(storage: Storage) -> None:
    await put(storage, {KEY: BIG, "thumbnails/7f/0190.1.100x100": b"small", "thumbnails/7f/0190.1.empty": b""})
    assert await get(storage, KEY) == BIG
    assert await get(storage, "thumbnails/7f/0190.1.100x100") == b"small"
    assert await get(storage, "thumbnails/7f/0190.1.empty") == b""


async def test_adopting_nothing_stores_nothing(storage: Storage) -> None:
    await storage.adopt({})
    assert await keys(storage, "") == set()


async def test_adopting_a_key_again_replaces_the_file(storage: Storage) -> None:
    await put(storage, {KEY: BIG})
    await put(storage, {KEY: b"short"})
    assert await get(storage, KEY) == b"short"


async def test_failed_adopt_stores_nothing(storage: Storage) -> None:
    async with storage.scratch() as scratch:
        whole = scratch / "whole"
        whole.write_bytes(b"whole")
        with pytest.raises(Outage):
            await storage.adopt({KEY: whole, "originals/80/0191": scratch / "never-written"})
    assert await keys(storage, "") == set()


async def test_concurrent_adopts(storage: Storage) -> None:
    contents = {f"originals/{number % 8:02x}/{number}": str(number).encode() for number in range(40)}
    await asyncio.gather(*(put(storage, {key: content}) for key, content in contents.items()))
    assert {key: await get(storage, key) for key in await keys(storage, "originals/")} == contents


async def test_pieces_have_a_bounded_size(storage: Storage) -> None:
    await put(storage, {KEY: BIG})
    sizes = [len(piece) async for piece in storage.read(KEY)]
    assert max(sizes) <= 1024 * 1024
    assert min(sizes) > 0


@pytest.mark.parametrize(
    ("start", "length"),
    [(0, 0), (0, 1), (1, 3), (700_000, 600_000), (0, 10_000_000), (len(BIG) - 3, None), (len(BIG), None), (10**9, 5)],
)
async def test_range_equals_the_slice(storage: Storage, start: int, length: int | None) -> None:
    await put(storage, {KEY: BIG})
    expected = BIG[start:] if length is None else BIG[start : start + length]
    assert await get(storage, KEY, start, length) == expected


async def test_read_can_be_abandoned(storage: Storage) -> None:
    await put(storage, {KEY: BIG})
    pieces = aiter(storage.read(KEY))
    first = await anext(pieces)
    assert BIG.startswith(first)
    await pieces.aclose()  # type: ignore[attr-defined]  # a generator in every adapter
    assert await get(storage, KEY) == BIG


async def test_local_path_has_the_content(storage: Storage) -> None:
    await put(storage, {KEY: BIG})
    async with storage.scratch() as scratch:
        path = await storage.local_path(KEY, scratch, digest(BIG))
        assert path.read_bytes() == BIG
    assert await get(storage, KEY) == BIG


@pytest.mark.parametrize(
    "kept", [b"other content", BIG[:-1], BIG + b"\0", b""], ids=["other", "cut", "longer", "empty"]
)
async def test_local_path_of_a_file_with_another_digest_is_object_changed(storage: Storage, kept: bytes) -> None:
    await put(storage, {KEY: kept})
    async with storage.scratch() as scratch:
        with pytest.raises(ObjectChanged):
            await storage.local_path(KEY, scratch, digest(BIG))
    assert await get(storage, KEY) == kept


@pytest.mark.parametrize("missing", [KEY, "originals/80/0191", "originals/7f", "originals", f"{KEY}/below"])
async def test_missing_key_is_object_missing(storage: Storage, missing: str) -> None:
    if missing != KEY:
        await put(storage, {KEY: b"x"})
    with pytest.raises(ObjectMissing):
        await anext(aiter(storage.read(missing)))
    with pytest.raises(ObjectMissing):
        await anext(aiter(storage.read(missing, 0, 0)))
    async with storage.scratch() as scratch:
        with pytest.raises(ObjectMissing):
            await storage.local_path(missing, scratch, digest(b"x"))
    await storage.delete([missing])
    assert await keys(storage, "") == (set() if missing == KEY else {KEY})


async def test_delete_removes_the_given_keys_only(storage: Storage) -> None:
    names = {f"originals/7f/{number}" for number in range(600)}
    async with storage.scratch() as scratch:
        for name in names:
            (scratch / name.rpartition("/")[2]).write_bytes(b"x")
        await storage.adopt({name: scratch / name.rpartition("/")[2] for name in names})
    doomed: Iterable[str] = (f"originals/7f/{number}" for number in range(590))
    await storage.delete(doomed)
    assert await keys(storage, "") == {f"originals/7f/{number}" for number in range(590, 600)}
    await storage.delete([])


async def test_list_yields_keys_with_the_prefix_and_no_scratch_files(storage: Storage) -> None:
    await put(
        storage, {"originals/7f/a": b"x", "originals/7f/ab": b"x", "originals/80/a": b"x", "thumbnails/7f/a": b"x"}
    )
    async with storage.scratch() as scratch:
        (scratch / "file").write_bytes(b"x")
        assert await keys(storage, "") == {"originals/7f/a", "originals/7f/ab", "originals/80/a", "thumbnails/7f/a"}
        assert await keys(storage, "originals/") == {"originals/7f/a", "originals/7f/ab", "originals/80/a"}
        assert await keys(storage, "orig") == {"originals/7f/a", "originals/7f/ab", "originals/80/a"}
        assert await keys(storage, "originals/7") == {"originals/7f/a", "originals/7f/ab"}
        assert await keys(storage, "originals/7f/ab") == {"originals/7f/ab"}
        assert await keys(storage, "originals/81/") == set()
        assert await keys(storage, "nothing/") == set()


async def test_list_yields_the_age(storage: Storage) -> None:
    before = time.time()
    await put(storage, {KEY: b"x"})
    ages = [item.age_seconds async for item in storage.list("")]
    assert len(ages) == 1
    # Some storages record whole seconds.
    assert 0 <= ages[0] <= time.time() - before + 1


async def test_objects_can_be_deleted_while_listed(storage: Storage) -> None:
    await put(storage, {f"originals/{number % 4:02x}/{number}": b"x" for number in range(300)})
    async for item in storage.list("originals/"):
        await storage.delete([item.key])
    await storage.delete(await keys(storage, ""))  # a folder that changes while it is read may hide an entry
    assert await keys(storage, "") == set()


async def test_list_can_be_abandoned(storage: Storage) -> None:
    await put(storage, {f"originals/7f/{number}": b"x" for number in range(300)})
    items = aiter(storage.list(""))
    await anext(items)
    await items.aclose()  # type: ignore[attr-defined]  # a generator in every adapter


async def test_sweep_removes_old_scratch_directories_only(storage: Storage) -> None:
    await put(storage, {KEY: b"x"})
    async with storage.scratch() as live, storage.scratch() as left_behind:
        (live / "file").write_bytes(b"x")
        (left_behind / "deep").mkdir()
        (left_behind / "deep" / "file").write_bytes(b"x")
        for path in (left_behind / "deep", left_behind):
            os.utime(path, (time.time() - 7200, time.time() - 7200))
        assert await storage.sweep_scratch(3600) == 1
        assert (live / "file").exists()
        assert not left_behind.exists()
        assert await storage.sweep_scratch(3600) == 0
    assert await keys(storage, "") == {KEY}


async def test_sweep_keeps_a_directory_with_a_recently_written_file(storage: Storage) -> None:
    async with storage.scratch() as live:
        (live / "upload").write_bytes(b"x")
        os.utime(live, (time.time() - 7200, time.time() - 7200))
        assert await storage.sweep_scratch(3600) == 0
        assert (live / "upload").exists()


async def test_sweep_of_an_unused_storage(storage: Storage) -> None:
    assert await storage.sweep_scratch(0) == 0


async def test_a_probe_is_not_disturbed_by_the_next_one(storage: Storage) -> None:
    async def twice() -> None:
        await storage.probe()
        await storage.probe()

    await asyncio.gather(twice(), storage.probe())


async def test_probe_stores_nothing(storage: Storage) -> None:
    await asyncio.gather(storage.probe(), storage.probe())
    await storage.probe()
    assert await keys(storage, "") == set()
    assert await storage.sweep_scratch(-60) == 0


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "originals/../../x",
        "originals//x",
        "originals/./x",
        "originals/\0",
        ".lock",
        "originals/.hidden",
        "scratch",
        "scratch/x",
        "originals/",
    ],
)
async def test_invalid_key_is_refused(storage: Storage, key: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    with pytest.raises(ValueError, match="not a storage key"):
        await storage.adopt({KEY: file, key: file})
    with pytest.raises(ValueError, match="not a storage key"):
        await storage.local_path(key, tmp_path, digest(b"x"))
    with pytest.raises(ValueError, match="not a storage key"):
        await anext(aiter(storage.read(key)))
    with pytest.raises(ValueError, match="not a storage key"):
        await storage.delete([KEY, key])
    assert file.read_bytes() == b"x"
    assert await keys(storage, "") == set()


@pytest.mark.parametrize("prefix", ["/", "../", "originals/../", "scratch/", "/etc/"])
async def test_invalid_prefix_is_refused(storage: Storage, prefix: str) -> None:
    with pytest.raises(ValueError, match="not a storage key"):
        await keys(storage, prefix)


async def test_concurrent_bindings_agree(storage: Storage) -> None:
    owners = await asyncio.gather(*(storage.bind_to_database(f"database {number}") for number in range(8)))
    assert len(set(owners)) == 1
    assert await storage.bind_to_database("other") == owners[0]


async def test_storage_stays_bound_to_the_first_database(storage: Storage) -> None:
    assert await storage.bound_database() is None
    assert await storage.bind_to_database("one") == "one"
    assert await storage.bound_database() == "one"
    assert await storage.bind_to_database("other") == "one"
    assert await keys(storage, "") == set()
    await put(storage, {KEY: b"x"})
    assert await storage.bind_to_database("one") == "one"
