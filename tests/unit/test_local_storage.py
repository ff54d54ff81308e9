"""What only the local storage promises: the order of its calls to the kernel, and what it makes of their failures."""

import asyncio
import errno
import gc
import os
import stat
import threading
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from image_service.errors import ObjectMissing, StorageFull, StorageUnavailable
from image_service.storage import local
from image_service.storage.local import PIECE_BYTES, LocalStorage


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "not" / "yet" / "there"


@pytest.fixture
def storage(root: Path) -> LocalStorage:
    return LocalStorage(root)


class Release(threading.Event):
    """Holds up threads until it is set; not for ever, so that a failing test fails instead of hanging."""

    def wait(self, timeout: float | None = 10) -> bool:
        return super().wait(timeout)


@pytest.fixture
def release() -> Release:
    return Release()


async def put(storage: LocalStorage, *keys: str) -> None:
    async with storage.scratch() as scratch:
        files = {key: scratch / str(number) for number, key in enumerate(keys)}
        for path in files.values():
            path.write_bytes(b"content")
        await storage.adopt(files)


def stored(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def modes(root: Path) -> dict[str, int]:
    return {path.relative_to(root).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in (root, *root.rglob("*"))}


def unmount(root: Path) -> None:
    root.rename(root.with_name("unmounted"))
    root.mkdir()


def failing(error: int, *, when: Callable[..., bool], real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands in for any os function
        if when(*args):
            raise OSError(error, os.strerror(error))
        return real(*args, **kwargs)

    return call


@pytest.fixture
def calls(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every fsync, mkdir and rename below the root, in order, with the path that it was for."""
    seen: list[tuple[str, str]] = []
    real_fsync, real_rename, real_mkdir = os.fsync, os.rename, os.mkdir

    def name(path: str | Path) -> str:
        return Path(path).relative_to(root).as_posix()

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        seen.append(("fsync", name(path) if path.is_relative_to(root) else str(path)))
        real_fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        seen.append(("rename", name(target)))
        real_rename(source, target)

    def mkdir(path: Path, mode: int = 0o777) -> None:
        real_mkdir(path, mode)
        seen.append(("mkdir", name(path) if Path(path).is_relative_to(root) else str(path)))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "mkdir", mkdir)
    return seen


async def test_new_folders_then_renames_then_files_then_each_folder_once(
    storage: LocalStorage, calls: list[tuple[str, str]]
) -> None:
    async with storage.scratch() as scratch:
        (scratch / "a").write_bytes(b"a")
        (scratch / "b").write_bytes(b"b")
        calls.clear()
        await storage.adopt({"t/7f/a": scratch / "a", "t/7f/b": scratch / "b"})
    assert calls == [
        ("mkdir", "t"),
        ("fsync", "."),
        ("mkdir", "t/7f"),
        ("fsync", "t"),
        ("rename", "t/7f/a"),
        ("rename", "t/7f/b"),
        ("fsync", "t/7f/a"),
        ("fsync", "t/7f/b"),
        ("fsync", "t/7f"),
    ]


async def test_a_known_folder_costs_one_fsync_and_a_scratch_folder_none(
    storage: LocalStorage, calls: list[tuple[str, str]]
) -> None:
    await put(storage, "t/7f/a")
    calls.clear()
    await put(storage, "t/7f/b")
    assert [kind for kind, _ in calls] == ["rename", "fsync", "fsync"]
    assert calls[-1] == ("fsync", "t/7f")


async def test_a_folder_that_another_process_has_just_made_is_synced_all_the_same(
    storage: LocalStorage, root: Path, calls: list[tuple[str, str]]
) -> None:
    await storage.probe()
    (root / "t" / "7f").mkdir(parents=True)
    calls.clear()
    await put(storage, "t/7f/a")
    assert calls.index(("fsync", "t")) < calls.index(("rename", "t/7f/a"))
    assert calls.index(("fsync", ".")) < calls.index(("rename", "t/7f/a"))


async def test_the_root_itself_is_made_durably(storage: LocalStorage, root: Path, calls: list[tuple[str, str]]) -> None:
    await storage.probe()
    assert calls[-1] == ("fsync", ".")
    assert ("fsync", str(root.parent)) in calls
    assert ("fsync", str(root.parent.parent)) in calls


async def test_modes_do_not_depend_on_the_umask(storage: LocalStorage, root: Path) -> None:
    before = os.umask(0)
    try:
        await put(storage, "t/7f/a")
    finally:
        os.umask(before)
    (spare,) = (root / "scratch").iterdir()
    assert modes(root) == {
        ".": 0o750,
        "scratch": 0o750,
        f"scratch/{spare.name}": 0o750,
        "t": 0o750,
        "t/7f": 0o750,
        "t/7f/a": 0o640,
    }


async def test_a_scratch_folder_that_was_emptied_is_used_again(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_YOUNG", 0.0)
    await put(storage, "t/7f/a")
    (first,) = (root / "scratch").iterdir()
    os.utime(first, (0, 0))
    async with storage.scratch() as second, storage.scratch() as third:
        assert second == first
        assert third != first
        assert list(second.iterdir()) == []
        assert await storage.sweep_scratch(60) == 0


async def test_a_scratch_folder_that_was_emptied_a_moment_ago_is_used_as_it_is(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_YOUNG", 3600.0)
    await put(storage, "t/7f/a")
    looked_after: list[object] = []
    monkeypatch.setattr(local, "_make_young", looked_after.append)
    async with storage.scratch() as folder:
        assert list(folder.iterdir()) == []
    assert looked_after == []


async def test_a_scratch_folder_that_was_swept_is_made_again(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_YOUNG", 0.0)
    await put(storage, "t/7f/a")
    (first,) = (root / "scratch").iterdir()
    first.rmdir()
    async with storage.scratch() as second:
        assert list(second.iterdir()) == []


async def test_spare_scratch_folders_are_few(storage: LocalStorage, root: Path) -> None:
    await asyncio.gather(*(put(storage, f"t/7f/{number}") for number in range(40)))
    assert len(list((root / "scratch").iterdir())) == 16


async def test_local_path_is_the_stored_file_itself(storage: LocalStorage, root: Path) -> None:
    await put(storage, "t/7f/a")
    async with storage.scratch() as scratch:
        assert await storage.local_path("t/7f/a", scratch) == root / "t/7f/a"
        assert list(scratch.iterdir()) == []


async def test_pieces_are_at_most_256_kib(storage: LocalStorage) -> None:
    async with storage.scratch() as scratch:
        (scratch / "a").write_bytes(bytes(PIECE_BYTES * 2 + 1))
        await storage.adopt({"a": scratch / "a"})
    assert [len(piece) async for piece in storage.read("a")] == [262_144, 262_144, 1]


async def test_a_file_deleted_while_it_is_read_is_read_to_its_end(storage: LocalStorage) -> None:
    async with storage.scratch() as scratch:
        (scratch / "a").write_bytes(bytes(PIECE_BYTES * 3))
        await storage.adopt({"a": scratch / "a"})
    pieces = storage.read("a")
    total = len(await anext(pieces))
    await storage.delete(["a"])
    total += sum([len(piece) async for piece in pieces])
    assert total == PIECE_BYTES * 3


async def test_a_file_cut_short_while_it_is_read_ends_the_reading(storage: LocalStorage, root: Path) -> None:
    async with storage.scratch() as scratch:
        (scratch / "a").write_bytes(bytes(PIECE_BYTES * 3))
        await storage.adopt({"a": scratch / "a"})
    pieces = storage.read("a")
    await anext(pieces)
    os.truncate(root / "a", PIECE_BYTES)
    assert [piece async for piece in pieces] == []


async def test_a_reader_cancelled_while_the_file_is_opened_leaves_no_open_file(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, release: Release
) -> None:
    await put(storage, "a")
    opening, closed = threading.Event(), threading.Event()

    class Watched(FileIO):
        def close(self) -> None:
            super().close()
            closed.set()

    def slow_open(path: Path, *_: object, **__: object) -> FileIO:
        opening.set()
        release.wait()
        return Watched(path)

    monkeypatch.setattr(Path, "open", slow_open)
    reader = asyncio.ensure_future(anext(storage.read("a")))
    await asyncio.to_thread(opening.wait)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    release.set()
    assert await asyncio.to_thread(closed.wait, 5)


@pytest.mark.parametrize(
    "failure",
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageUnavailable),
        (errno.EACCES, StorageUnavailable),
        (errno.ESTALE, StorageUnavailable),
    ],
)
@pytest.mark.parametrize("function", ["fsync", "rename", "mkdir"])
async def test_what_the_kernel_says_becomes_one_of_two_errors(
    storage: LocalStorage,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    failure: tuple[int, type[Exception]],
) -> None:
    number, expected = failure
    await storage.probe()
    async with storage.scratch() as scratch:
        (scratch / "a").write_bytes(b"a")
        with monkeypatch.context() as patch:
            patch.setattr(os, function, failing(number, when=lambda *_: True, real=getattr(os, function)))
            with pytest.raises(expected) as caught:
                await storage.adopt({"t/7f/a": scratch / "a"})
    assert isinstance(caught.value.__cause__, OSError)
    assert stored(root) == set()


async def test_a_failing_second_rename_takes_back_the_first(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        second = failing(errno.ENOSPC, when=lambda _, target: Path(target).name == "b", real=os.rename)
        patch.setattr(os, "rename", second)
        with pytest.raises(StorageFull):
            await put(storage, "t/7f/a", "t/7f/b", "t/7f/c")
    assert stored(root) == set()
    await put(storage, "t/7f/a", "t/7f/b")
    assert stored(root) == {"t/7f/a", "t/7f/b"}


async def test_a_failing_folder_fsync_takes_back_the_files(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(storage, "t/7f/a")
    is_shard: Callable[[int], bool] = lambda fd: Path(f"/proc/self/fd/{fd}").readlink() == root / "t/7f"  # noqa: E731 - one use
    monkeypatch.setattr(os, "fsync", failing(errno.EIO, when=is_shard, real=os.fsync))
    with pytest.raises(StorageUnavailable):
        await put(storage, "t/7f/b")
    assert stored(root) == {"t/7f/a"}


async def test_a_shard_folder_removed_by_hand_is_made_again_at_the_second_try(
    storage: LocalStorage, root: Path
) -> None:
    await put(storage, "t/7f/a")
    await storage.delete(["t/7f/a"])
    (root / "t/7f").rmdir()
    with pytest.raises(StorageUnavailable):
        await put(storage, "t/7f/b")
    await put(storage, "t/7f/b")
    assert stored(root) == {"t/7f/b"}


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, StorageUnavailable)]
)
async def test_a_disk_error_of_whoever_writes_into_the_scratch_folder_is_translated(
    storage: LocalStorage, root: Path, number: int, expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        async with storage.scratch():
            raise OSError(number, "as write() says it")
    assert list((root / "scratch").iterdir()) == []


async def test_no_other_error_is_touched(storage: LocalStorage) -> None:
    with pytest.raises(TimeoutError):
        async with storage.scratch():
            raise TimeoutError


async def test_a_vanished_volume_is_an_outage_and_not_a_missing_object(storage: LocalStorage, root: Path) -> None:
    await put(storage, "t/7f/a")
    unmount(root)
    with pytest.raises(StorageUnavailable):
        await storage.local_path("t/7f/a", root)
    with pytest.raises(StorageUnavailable):
        await anext(storage.read("t/7f/a"))
    with pytest.raises(StorageUnavailable):
        [item async for item in storage.list("t/")]
    with pytest.raises(StorageUnavailable):
        await put(storage, "t/7f/b")
    with pytest.raises(StorageUnavailable):
        await storage.probe()
    with pytest.raises(StorageUnavailable):
        await storage.sweep_scratch(0)
    assert list(modes(root)) == ["."]


async def test_a_root_that_cannot_be_made_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageUnavailable):
            await LocalStorage(root).probe()


async def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder(storage: LocalStorage, root: Path) -> None:
    await put(storage, "t/7f/a")
    with pytest.raises(StorageUnavailable):
        await put(storage, "t/7f/a/below")
    with pytest.raises(StorageUnavailable):
        await put(storage, "t/7f")
    with pytest.raises(ObjectMissing):
        await anext(storage.read("t/7f"))
    assert stored(root) == {"t/7f/a"}


async def test_list_skips_what_is_not_an_object(storage: LocalStorage, root: Path) -> None:
    await put(storage, "t/7f/a")
    (root / ".lock").write_bytes(b"1")
    (root / "t" / "7f" / ".nfs0001").write_bytes(b"deleted but still open")
    (root / "t" / "7f" / "link").symlink_to(root / "t" / "7f" / "a")
    (root / "t" / "loop").symlink_to(root / "t")
    assert [item.key async for item in storage.list("")] == ["t/7f/a"]


async def test_age_comes_from_the_files_time_and_is_never_negative(storage: LocalStorage, root: Path) -> None:
    await put(storage, "old", "new")
    now = (root / "old").stat().st_mtime
    os.utime(root / "old", (now - 5000, now - 5000))
    os.utime(root / "new", (now + 5000, now + 5000))
    ages = {item.key: item.age_seconds async for item in storage.list("")}
    assert 5000 <= ages["old"] < 5100
    assert ages["new"] == 0


async def test_a_clock_that_is_put_forward_ages_no_file(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(storage, "file")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 7200)
    async with storage.scratch() as live:
        assert [item.age_seconds < 60 async for item in storage.list("")] == [True]
        assert await storage.sweep_scratch(3600) == 0
        assert live.exists()


async def test_a_clock_that_is_put_back_ages_no_file(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(storage, "file")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 7200)
    os.utime(root / "file", (time.time(), time.time()))
    assert [item.age_seconds < 60 async for item in storage.list("")] == [True]


async def test_a_scratch_folder_that_vanishes_is_an_outage(storage: LocalStorage) -> None:
    async def write(*, lost: bool) -> None:
        async with storage.scratch() as folder:
            if lost:
                folder.rmdir()
            (folder / "missing" / "upload").write_bytes(b"x")

    with pytest.raises(StorageUnavailable):
        await write(lost=True)
    with pytest.raises(FileNotFoundError):
        await write(lost=False)


async def test_list_reads_in_bounded_batches(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_BATCH", 3)
    await put(storage, *(f"t/{number % 4}/{number}" for number in range(20)))
    produced: list[str] = []
    real_walk = LocalStorage._walk

    def walk(self: LocalStorage, folder: Path, prefix: str) -> Any:  # noqa: ANN401 - a generator like the real one
        for item in real_walk(self, folder, prefix):
            produced.append(item.key)
            yield item

    monkeypatch.setattr(LocalStorage, "_walk", walk)
    consumed = 0
    async for _ in storage.list(""):
        consumed += 1
        # Each level of folders sees an object once on its way up: three levels, and one batch ahead of the reader.
        assert len(set(produced)) <= consumed + 2
    assert consumed == 20


async def test_sweep_takes_stray_files_and_is_not_stopped_by_what_it_cannot_remove(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await storage.probe()
    for name in ("probe-of-a-killed-process", "other"):
        (root / "scratch" / name).write_bytes(b"x")
    (root / "scratch" / "stuck").mkdir()
    (root / "scratch" / "empty").mkdir()
    stuck = failing(errno.EBUSY, when=lambda path, **_: Path(path).name == "stuck", real=os.rmdir)
    monkeypatch.setattr(os, "rmdir", stuck)
    assert await storage.sweep_scratch(-60) == 3
    assert [path.name for path in (root / "scratch").iterdir()] == ["stuck"]


async def test_probe_says_full_when_one_block_does_not_fit(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_bytes(path: Path, _: bytes) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(StorageFull):
        await storage.probe()
    assert list((root / "scratch").iterdir()) == []


async def test_probes_of_a_hanging_disk_give_up_and_take_one_thread_between_them(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, release: Release
) -> None:
    await storage.probe()
    started = []
    real_write = Path.write_bytes

    def hang(path: Path, content: bytes) -> None:
        started.append(path)
        release.wait()
        real_write(path, content)

    monkeypatch.setattr(Path, "write_bytes", hang)
    monkeypatch.setattr(local, "PROBE_SECONDS", 0.01)
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            await storage.probe()
    assert len(started) == 1
    release.set()
    monkeypatch.setattr(local, "PROBE_SECONDS", 5)
    await storage.probe()


async def test_a_cancelled_probes_failure_is_nobodys_business(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, release: Release
) -> None:
    await storage.probe()
    started = threading.Event()

    def fail(path: Path, content: bytes) -> None:
        started.set()
        release.wait()
        raise OSError(errno.EIO, str(path), len(content))

    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        probing = asyncio.create_task(storage.probe())
        await asyncio.to_thread(started.wait)
        probing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probing
        release.set()
        assert storage._probing is not None
        await asyncio.wait({storage._probing})
    await storage.probe()
    gc.collect()
    assert reports == []


async def test_a_claim_that_a_crash_left_empty_says_nothing(storage: LocalStorage, root: Path) -> None:
    await storage.probe()
    (root / ".owner").touch()
    assert await storage.bind_to_database("one") == "one"
    assert (root / ".owner").read_text() == "one"
