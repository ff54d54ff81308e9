"""The local storage: the order of its system calls, and the translation of their errors."""

import asyncio
import errno
import gc
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from harness.waiting import eventually, wait_for
from image_service.errors import ObjectMissing, ObjectUnreadable, StorageFull, StorageUnavailable
from image_service.storage import local
from image_service.storage.conventions import PIECE_BYTES
from image_service.storage.local import LocalStorage

DIGEST = hashlib.sha256(b"content").hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "not" / "yet" / "there"


@pytest.fixture
def storage(root: Path) -> LocalStorage:
    return LocalStorage(root)


class Release(threading.Event):
    """Blocks threads until it is set, or for ten seconds, so that a failing test does not hang."""

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
    """Every fsync, mkdir and rename below the root, in order, with its path."""
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


async def test_adopt_creates_folders_renames_files_and_syncs_in_order(
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


async def test_known_folder_is_synced_once_and_scratch_never(
    storage: LocalStorage, calls: list[tuple[str, str]]
) -> None:
    await put(storage, "t/7f/a")
    calls.clear()
    await put(storage, "t/7f/b")
    assert [kind for kind, _ in calls] == ["rename", "fsync", "fsync"]
    assert calls[-1] == ("fsync", "t/7f")


async def test_folder_of_another_process_is_synced(
    storage: LocalStorage, root: Path, calls: list[tuple[str, str]]
) -> None:
    await storage.probe()
    (root / "t" / "7f").mkdir(parents=True)
    calls.clear()
    await put(storage, "t/7f/a")
    assert calls.index(("fsync", "t")) < calls.index(("rename", "t/7f/a"))
    assert calls.index(("fsync", ".")) < calls.index(("rename", "t/7f/a"))


async def test_root_is_created_durably(storage: LocalStorage, root: Path, calls: list[tuple[str, str]]) -> None:
    await storage.bound_database()
    assert calls[-1] == ("fsync", ".")
    assert ("fsync", str(root.parent)) in calls
    assert ("fsync", str(root.parent.parent)) in calls


async def test_modes_are_independent_of_the_umask(storage: LocalStorage, root: Path) -> None:
    before = os.umask(0)
    try:
        await put(storage, "t/7f/a")
    finally:
        os.umask(before)
    (kept,) = (root / "scratch").iterdir()
    assert modes(root) == {
        ".": 0o750,
        "scratch": 0o750,
        f"scratch/{kept.name}": 0o750,
        "t": 0o750,
        "t/7f": 0o750,
        "t/7f/a": 0o640,
    }


async def test_emptied_scratch_directory_is_reused(root: Path) -> None:
    storage = LocalStorage(root, fresh_seconds=0.0)
    await put(storage, "t/7f/a")
    (first,) = (root / "scratch").iterdir()
    os.utime(first, (0, 0))
    async with storage.scratch() as second, storage.scratch() as third:
        assert second == first
        assert third != first
        assert list(second.iterdir()) == []
        assert await storage.sweep_scratch(60) == 0


async def test_fresh_scratch_directory_is_reused_without_a_check(root: Path) -> None:
    storage = LocalStorage(root, fresh_seconds=3600.0)
    await put(storage, "t/7f/a")
    (kept,) = (root / "scratch").iterdir()
    os.utime(kept, (0, 0))
    async with storage.scratch() as folder:
        assert folder == kept
        assert folder.stat().st_mtime == 0
        assert list(folder.iterdir()) == []


async def test_swept_scratch_directory_is_created_again(root: Path) -> None:
    storage = LocalStorage(root, fresh_seconds=0.0)
    await put(storage, "t/7f/a")
    (first,) = (root / "scratch").iterdir()
    first.rmdir()
    async with storage.scratch() as second:
        assert list(second.iterdir()) == []


async def test_number_of_kept_scratch_directories_is_bounded(storage: LocalStorage, root: Path) -> None:
    await asyncio.gather(*(put(storage, f"t/7f/{number}") for number in range(40)))
    assert len(list((root / "scratch").iterdir())) == 16


async def test_local_path_is_the_stored_file(storage: LocalStorage, root: Path) -> None:
    await put(storage, "t/7f/a")
    async with storage.scratch() as scratch:
        assert await storage.local_path("t/7f/a", scratch, DIGEST) == root / "t/7f/a"
        assert list(scratch.iterdir()) == []


async def test_pieces_have_at_most_256_kib(storage: LocalStorage) -> None:
    async with storage.scratch() as scratch:
        (scratch / "a").write_bytes(bytes(PIECE_BYTES * 2 + 1))
        await storage.adopt({"a": scratch / "a"})
    assert [len(piece) async for piece in storage.read("a")] == [262_144, 262_144, 1]


async def test_file_deleted_while_being_read_is_read_to_its_end(storage: LocalStorage) -> None:
    async with storage.scratch() as scratch:
        (scratch / "a").write_bytes(bytes(PIECE_BYTES * 3))
        await storage.adopt({"a": scratch / "a"})
    pieces = storage.read("a")
    total = len(await anext(pieces))
    await storage.delete(["a"])
    total += sum([len(piece) async for piece in pieces])
    assert total == PIECE_BYTES * 3


async def test_file_truncated_while_being_read_ends_the_read(storage: LocalStorage, root: Path) -> None:
    async with storage.scratch() as scratch:
        (scratch / "a").write_bytes(bytes(PIECE_BYTES * 3))
        await storage.adopt({"a": scratch / "a"})
    pieces = storage.read("a")
    await anext(pieces)
    os.truncate(root / "a", PIECE_BYTES)
    assert [piece async for piece in pieces] == []


async def test_cancelled_reader_leaves_no_open_file(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, release: Release
) -> None:
    await put(storage, "a")
    opening, closed = threading.Event(), threading.Event()

    class Watched(FileIO):
        def close(self) -> None:
            super().close()
            closed.set()

    def slow_open(descriptor: int) -> FileIO:
        opening.set()
        release.wait()
        return Watched(descriptor)

    monkeypatch.setattr(local, "FileIO", slow_open)
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
async def test_os_error_is_translated(
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


async def test_failed_rename_removes_files_already_renamed(
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


async def test_failed_folder_fsync_removes_the_files(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(storage, "t/7f/a")
    is_shard: Callable[[int], bool] = lambda fd: Path(f"/proc/self/fd/{fd}").readlink() == root / "t/7f"  # noqa: E731 - one use
    monkeypatch.setattr(os, "fsync", failing(errno.EIO, when=is_shard, real=os.fsync))
    with pytest.raises(StorageUnavailable):
        await put(storage, "t/7f/b")
    assert stored(root) == {"t/7f/a"}


async def test_folder_removed_by_hand_is_created_again_at_the_second_try(storage: LocalStorage, root: Path) -> None:
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
async def test_disk_error_in_a_scratch_block_is_translated(
    storage: LocalStorage, root: Path, number: int, expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        async with storage.scratch():
            raise OSError(number, "as write() raises it")
    assert list((root / "scratch").iterdir()) == []


async def test_other_errors_in_a_scratch_block_are_kept(storage: LocalStorage) -> None:
    with pytest.raises(TimeoutError):
        async with storage.scratch():
            raise TimeoutError


async def test_unmounted_volume_is_an_outage_and_not_a_missing_object(storage: LocalStorage, root: Path) -> None:
    await put(storage, "t/7f/a")
    unmount(root)
    with pytest.raises(StorageUnavailable):
        await storage.local_path("t/7f/a", root, DIGEST)
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


async def test_root_that_cannot_be_created_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageUnavailable):
            await LocalStorage(root).probe()


async def test_conflict_of_file_and_folder_is_an_outage(storage: LocalStorage, root: Path) -> None:
    await put(storage, "t/7f/a")
    with pytest.raises(StorageUnavailable):
        await put(storage, "t/7f/a/below")
    with pytest.raises(StorageUnavailable):
        await put(storage, "t/7f")
    with pytest.raises(ObjectMissing):
        await anext(storage.read("t/7f"))
    assert stored(root) == {"t/7f/a"}


async def test_list_skips_entries_that_are_no_objects(storage: LocalStorage, root: Path) -> None:
    await put(storage, "t/7f/a")
    (root / ".lock").write_bytes(b"1")
    (root / "t" / "7f" / ".nfs0001").write_bytes(b"deleted but still open")
    (root / "t" / "7f" / "link").symlink_to(root / "t" / "7f" / "a")
    (root / "t" / "loop").symlink_to(root / "t")
    assert [item.key async for item in storage.list("")] == ["t/7f/a"]


@pytest.mark.parametrize("link", ["t", "t/7f", "t/7f/a"])
async def test_symbolic_links_in_the_storage_are_not_followed(
    storage: LocalStorage, root: Path, tmp_path: Path, link: str
) -> None:
    await put(storage, "t/7f/a")
    (root / link).rename(tmp_path / "outside")
    (root / link).symlink_to(tmp_path / "outside")
    with pytest.raises(ObjectMissing):
        await anext(storage.read("t/7f/a"))
    async with storage.scratch() as scratch:
        with pytest.raises(ObjectMissing):
            await storage.local_path("t/7f/a", scratch, DIGEST)


async def test_storage_may_itself_be_reached_through_a_symbolic_link(root: Path, tmp_path: Path) -> None:
    await LocalStorage(root).probe()
    (tmp_path / "link").symlink_to(root)
    storage = LocalStorage(tmp_path / "link")
    await put(storage, "t/7f/a")
    assert await anext(storage.read("t/7f/a")) == b"content"
    async with storage.scratch() as scratch:
        assert (await storage.local_path("t/7f/a", scratch, DIGEST)).read_bytes() == b"content"
    assert [item.key async for item in storage.list("")] == ["t/7f/a"]
    await storage.delete(["t/7f/a"])
    assert not stored(root)


async def test_nothing_is_stored_through_a_symbolic_link(storage: LocalStorage, root: Path, tmp_path: Path) -> None:
    await storage.probe()
    (tmp_path / "outside").mkdir()
    (root / "t").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageUnavailable):
        await put(storage, "t/7f/a")
    with pytest.raises(StorageUnavailable):
        await put(storage, "t/a")
    assert not list((tmp_path / "outside").iterdir())


async def test_link_instead_of_a_file_is_not_stored(storage: LocalStorage, root: Path, tmp_path: Path) -> None:
    target = tmp_path / "outside"
    target.write_bytes(b"secret")
    target.chmod(0o600)
    async with storage.scratch() as scratch:
        (scratch / "link").symlink_to(target)
        with pytest.raises(StorageUnavailable):
            await storage.adopt({"t/7f/a": scratch / "link"})
    assert not stored(root)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


async def test_link_instead_of_the_owner_is_not_followed(storage: LocalStorage, root: Path, tmp_path: Path) -> None:
    await storage.probe()
    (tmp_path / "outside").touch()
    (root / ".owner").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageUnavailable):
        await storage.bind_to_database("id")
    assert not (tmp_path / "outside").read_bytes()


async def test_named_pipe_is_no_object(storage: LocalStorage, root: Path) -> None:
    await storage.probe()
    os.mkfifo(root / "pipe")
    with pytest.raises(ObjectMissing):
        await wait_for(anext(storage.read("pipe")))


async def test_age_is_by_modification_time_and_never_negative(storage: LocalStorage, root: Path) -> None:
    await put(storage, "old", "new")
    now = (root / "old").stat().st_mtime
    os.utime(root / "old", (now - 5000, now - 5000))
    os.utime(root / "new", (now + 5000, now + 5000))
    ages = {item.key: item.age_seconds async for item in storage.list("")}
    assert 5000 <= ages["old"] < 5100
    assert ages["new"] == 0


async def test_setting_the_clock_forward_ages_no_file(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(storage, "file")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 7200)
    async with storage.scratch() as live:
        assert [item.age_seconds < 60 async for item in storage.list("")] == [True]
        assert await storage.sweep_scratch(3600) == 0
        assert live.exists()


async def test_setting_the_clock_back_ages_no_file(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(storage, "file")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 7200)
    os.utime(root / "file", (time.time(), time.time()))
    assert [item.age_seconds < 60 async for item in storage.list("")] == [True]


async def test_lost_scratch_directory_is_an_outage(storage: LocalStorage) -> None:
    async def write(*, lost: bool) -> None:
        async with storage.scratch() as folder:
            if lost:
                folder.rmdir()
            (folder / "missing" / "upload").write_bytes(b"x")

    with pytest.raises(StorageUnavailable):
        await write(lost=True)
    with pytest.raises(FileNotFoundError):
        await write(lost=False)


async def test_list_reads_in_bounded_batches(root: Path) -> None:
    storage = LocalStorage(root, batch=3)
    names = [f"t/{number % 4}/{number}" for number in range(20)]
    await put(storage, *names)
    assert sorted([item.key async for item in storage.list("")]) == sorted(names)
    for consumed in range(1, 20):
        items = storage.list("")
        keys = [(await anext(items)).key for _ in range(consumed)]
        # What is deleted now is listed only if it was read before: the rest of one batch.
        await storage.delete(name for name in names if name not in keys)
        ahead = [item.key async for item in items]
        assert len(ahead) <= 2
        await put(storage, *names)


async def test_sweep_continues_after_an_entry_it_cannot_remove(
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


async def test_probe_raises_storage_full_on_a_full_disk(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_bytes(path: Path, _: bytes) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(StorageFull):
        await storage.probe()
    assert list((root / "scratch").iterdir()) == []


async def test_probes_of_a_hanging_disk_time_out_and_share_one_thread(
    root: Path, monkeypatch: pytest.MonkeyPatch, release: Release
) -> None:
    await LocalStorage(root).probe()
    storage = LocalStorage(root, probe_timeout=1.0)
    started = []
    real_write = Path.write_bytes

    def hang(path: Path, content: bytes) -> None:
        started.append(path)
        release.wait()
        real_write(path, content)

    monkeypatch.setattr(Path, "write_bytes", hang)
    probes = [asyncio.create_task(storage.probe()) for _ in range(3)]
    for probe in probes:
        with pytest.raises(StorageUnavailable):
            await probe
    with pytest.raises(StorageUnavailable):
        await storage.probe()
    assert len(started) == 1
    release.set()
    await eventually(lambda: answers(storage))


async def answers(storage: LocalStorage) -> bool:
    try:
        await storage.probe()
    except StorageUnavailable:
        return False
    return True


async def test_failure_of_a_cancelled_probe_is_not_reported(
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
        probe = storage._probe._probing
        assert probe is not None
        await asyncio.wait({probe})
    await storage.probe()
    gc.collect()
    assert reports == []


async def test_empty_owner_file_is_overwritten(storage: LocalStorage, root: Path) -> None:
    await storage.probe()
    (root / ".owner").touch()
    assert await storage.bind_to_database("one") == "one"
    assert (root / ".owner").read_text() == "one"


async def test_file_that_cannot_be_read_is_object_unreadable(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(storage, "originals/80/key")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(hashlib, "file_digest", fail)
    with pytest.raises(ObjectUnreadable):
        await storage.local_path("originals/80/key", tmp_path, DIGEST)
