"""The storage's probe on real mounts: it fails where an upload would, and says why."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from image_service.errors import StorageUnavailable
from image_service.storage.local import LocalStorage

SCRIPT = """
set -e
cd "$1"
mkdir -p moved/originals inodes readonly
mount -t tmpfs -o size=1m tmpfs moved/originals
mount -t tmpfs -o size=1m,nr_inodes=6 tmpfs inodes
mount -t tmpfs -o size=1m tmpfs readonly
mkdir readonly/scratch
mount -o remount,ro readonly
exec "$2" -c "$3"
"""
PROBES = """
import asyncio, json, sys
from pathlib import Path
from image_service.errors import Outage
from image_service.storage.local import LocalStorage

async def main():
    found = {}
    for name in ("moved", "inodes", "readonly"):
        try:
            await LocalStorage(Path(name)).probe()
        except Outage as outage:
            found[name] = [outage.code, outage.cause]
    print("found", json.dumps(found))

asyncio.run(main())
"""


def test_probe_fails_where_an_upload_would(tmp_path: Path) -> None:
    """Without root it needs user namespaces (Ubuntu: ``sysctl kernel.apparmor_restrict_unprivileged_userns=0``)."""
    as_root = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    command = ("unshare", "--mount", *as_root, "sh", "-c", SCRIPT, "sh", tmp_path, sys.executable, PROBES)
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (our own script)
    assert outcome.returncode == 0, outcome.stderr
    found = json.loads(outcome.stdout.partition("found ")[2])
    assert {name: code for name, (code, _) in found.items()} == {
        "moved": "storage-unavailable",
        "inodes": "storage-full",
        "readonly": "storage-unavailable",
    }
    assert found["moved"][1].startswith("OSError EXDEV: Invalid cross-device link: moved/scratch/")
    assert "-> moved/originals/.probe/" in found["moved"][1]
    assert found["inodes"][1].startswith("OSError ENOSPC: No space left on device: inodes/")
    assert found["readonly"][1].startswith("OSError EROFS: Read-only file system: readonly/")


async def test_probe_leaves_nothing_and_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    await storage.probe()
    left, fresh = (tmp_path / "originals/.probe" / name for name in ("left", "fresh"))
    left.touch()
    fresh.touch()
    os.utime(left, (0, 0))
    await storage.probe()
    assert not left.exists()
    assert fresh.exists()
    assert len(files_below(tmp_path)) == 1
    assert [item async for item in storage.list("")] == []


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_probe_does_not_follow_a_link_that_an_upload_would_refuse(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "storage/originals").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageUnavailable, match="ENOTDIR: a symbolic link"):
        await LocalStorage(tmp_path / "storage").probe()
    assert list((tmp_path / "elsewhere").iterdir()) == []
