"""The part of the disk that uploads leave free."""

import asyncio
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from obstore.store import MemoryStore

from harness.waiting import eventually
from image_service.errors import StorageFull, StorageUnavailable
from image_service.storage import reserve
from image_service.storage.folder import StorageFolder
from image_service.storage.local import LocalStorage
from image_service.storage.objects.storage import ObjectStorage
from image_service.storage.reserve import SpaceReserve

GIB = 1024**3


class Disk:
    """What ``statvfs`` says, in blocks of 4 KiB."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.size = 100 * GIB
        self.free = 100 * GIB
        self.asked = 0
        monkeypatch.setattr(os, "statvfs", self.statvfs)

    def statvfs(self, _: Path) -> SimpleNamespace:
        self.asked += 1
        # The root account alone may use the difference between ``f_bfree`` and ``f_bavail``.
        size, free = self.size >> 12, self.free >> 12
        return SimpleNamespace(f_frsize=4096, f_blocks=size, f_bfree=size, f_bavail=free)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def space(tmp_path: Path) -> SpaceReserve:
    return SpaceReserve(StorageFolder(tmp_path / "storage"), percent=5)


@pytest.mark.parametrize(
    ("size", "kept"), [(GIB, GIB // 20), (100 * GIB, 5 * GIB), (4000 * GIB, 5 * GIB), (0, 0)], ids=str
)
async def test_uploads_leave_five_percent_and_at_most_5_gib(
    disk: Disk, space: SpaceReserve, size: int, kept: int
) -> None:
    disk.size, disk.free = size, kept + 8192
    await space.check()
    disk.free = kept - 8192
    space = SpaceReserve(space._folder, percent=5)
    if kept:
        with pytest.raises(StorageFull):
            await space.check()


async def test_disk_is_asked_once_a_second(disk: Disk, space: SpaceReserve, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(reserve, "time", SimpleNamespace(monotonic=lambda: now))
    for _ in range(10):
        await space.check()
    assert disk.asked == 1
    now += 1
    await space.check()
    assert disk.asked == 2


async def test_freed_space_is_seen_at_once(disk: Disk, space: SpaceReserve) -> None:
    disk.free = 0
    for _ in range(2):
        with pytest.raises(StorageFull):
            await space.check()
    disk.free = disk.size
    await space.check()


async def test_disk_that_hangs_blocks_one_thread(
    disk: Disk, space: SpaceReserve, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def hang(_: Path) -> None:
        disk.asked += 1
        release.wait(10)
        raise OSError

    monkeypatch.setattr(os, "statvfs", hang)
    first = asyncio.create_task(space.check())
    await eventually(lambda: disk.asked)
    for _ in range(10):
        await space.check()
    assert disk.asked == 1
    release.set()
    with pytest.raises(StorageUnavailable):
        await first


async def test_without_a_reserve_the_disk_is_not_asked(disk: Disk, tmp_path: Path) -> None:
    await SpaceReserve(StorageFolder(tmp_path), percent=0).check()
    assert not disk.asked


async def test_storages_have_a_reserve(disk: Disk, tmp_path: Path) -> None:
    disk.free = 0
    for storage in (
        LocalStorage(tmp_path / "local", reserve=5),
        ObjectStorage(MemoryStore(), tmp_path / "scratch", limit=1, largest_copy=1, reserve=5),
    ):
        with pytest.raises(StorageFull):
            await storage.check_space()
        async with storage.scratch():  # as workers do, and deletions go on
            pass
        await storage.delete(["a"])
