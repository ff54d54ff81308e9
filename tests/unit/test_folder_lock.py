import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from image_service.errors import FolderInUse
from image_service.storage.lock import FolderLock

HOLDER = """
import sys
from pathlib import Path
from image_service.storage.lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_locked_folder_error_names_the_holder_and_the_remedy(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(FolderInUse) as caught, FolderLock(tmp_path):
        pass
    assert str(caught.value) == (
        f"The data folder {tmp_path} is in use by another process (pid {os.getpid()}): "
        "stop it, or choose another folder with --data."
    )


def test_locked_folder_error_without_a_recorded_pid(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        (tmp_path / ".lock").write_bytes(b"")
        with pytest.raises(FolderInUse, match=r"in use by another process: stop it"), FolderLock(tmp_path):
            pass


def test_lock_is_released_at_the_end_and_after_an_error(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with lock:
        pass
    with pytest.raises(RuntimeError), lock:
        raise RuntimeError
    with lock:
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"
    lock.__exit__(None, None, None)


def test_missing_folder_is_created(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "new" / "data"):
        assert stat.S_IMODE((tmp_path / "new" / "data").stat().st_mode) == 0o750


def test_folder_that_cannot_be_created_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError), FolderLock(tmp_path / "file" / "data"):
        pass


def test_lock_is_released_after_a_write_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"), FolderLock(tmp_path):
            pass
    with FolderLock(tmp_path):
        pass


def test_lock_of_a_killed_process_is_released(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:  # noqa: S603 - our own code
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(FolderInUse, match=rf"\(pid {holder.pid}\)"), FolderLock(tmp_path):
            pass
        holder.kill()
        holder.wait()
    with FolderLock(tmp_path):
        pass
