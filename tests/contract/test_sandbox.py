"""What an exploited decoder process can and cannot do, tried in a real process.

The process runs all of its own code except the renderer, which is replaced: it executes the file as Python code. What
such a process can make its parent believe is tried in ``test_hostile_decoder``.
"""

import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from harness.images import encoded, gradient
from harness.waiting import eventually
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.errors import CorruptImage, DecoderCrashed, DecoderTimeout, StartError
from image_service.imaging.isolation import process as process_module
from image_service.imaging.isolation.pool import RenderPool
from image_service.imaging.limits import RenderLimits
from tests.contract.exploits import KERNELS, NO_LANDLOCK, Exploit
from tests.contract.rendering import MakePool

TRY = """
import ctypes, errno, fcntl, os, resource, signal, socket, struct, threading
from image_service.errors import CorruptImage
def syscall(*numbers):
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(*map(ctypes.c_long, numbers)) < 0:
        raise OSError(ctypes.get_errno(), "")
try:
    ATTACK
except OSError as error:
    raise CorruptImage(errno.errorcode[error.errno])
raise CorruptImage("done")
"""
NO_SANDBOX = "sandbox.enter_sandbox = lambda *_: ()"


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    (tmp_path / "storage" / "scratch" / "job").mkdir(parents=True)
    (tmp_path / "storage" / "original").write_text("secret")
    (tmp_path / "elsewhere").write_text("secret")
    return tmp_path / "storage"


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture
async def make_pool(storage: Path) -> AsyncIterator[MakePool]:
    pools: list[RenderPool] = []

    def make_pool(**limits: Any) -> RenderPool:  # noqa: ANN401  (the limits' own fields)
        folders: dict[str, Any] = {"readable": (str(storage),), "writable": ()}
        pools.append(RenderPool(1, RenderLimits(**(folders | limits))))
        return pools[-1]

    yield make_pool
    for pool in pools:
        await pool.close()


async def run(pool: RenderPool, storage: Path, code: str) -> None:
    source = storage / "source"
    source.write_text(code)
    await pool.render(source, DEFAULT_RECIPE, storage / "scratch" / "job")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def outcomes(pool: RenderPool, storage: Path, *attempts: str) -> dict[str, str]:
    """Try each in turn in one process, and return the name of the error that it raises, or "done"."""
    original = f"ctypes.create_string_buffer({str(storage / 'original').encode()!r})"
    places = {"STORAGE": storage, "ELSEWHERE": storage.parent / "elsewhere", "PARENT": os.getpid(), "PATH": original}
    found = {}
    for attempt in attempts:
        code = attempt
        for name, value in places.items():
            code = code.replace(name, str(value))
        with pytest.raises(CorruptImage) as caught:
            await run(pool, storage, TRY.replace("ATTACK", code))
        found[attempt] = str(caught.value)
    return found


REFUSED = (
    "socket.socket()",
    "socket.socket(socket.AF_UNIX)",
    "socket.socketpair()",
    "open('/etc/shadow')",
    "open('/etc/passwd')",
    "open('/proc/PARENT/environ')",
    "open('ELSEWHERE')",
    "open('ELSEWHERE', 'w')",
    "open('STORAGE/original', 'w')",
    "open('STORAGE/original', 'r+')",
    "open('STORAGE/new', 'w')",
    "open('STORAGE/scratch/job/new', 'w')",
    "open('/tmp/new', 'w')",
    "open('STORAGE/original', 'ab')",
    "os.open('STORAGE', os.O_TMPFILE | os.O_RDWR)",
    "open('STORAGE/scratch/../new', 'w')",
    "os.open('STORAGE/original', os.O_TRUNC)",
    "os.unlink('STORAGE/original')",
    "os.truncate('STORAGE/original', 0)",
    "os.chmod('STORAGE/original', 0o777)",
    "os.rename('STORAGE/original', 'STORAGE/scratch/job/original')",
    "os.link('STORAGE/original', 'STORAGE/scratch/job/original')",
    "os.symlink('STORAGE/original', 'STORAGE/scratch/job/original')",
    "os.mkfifo('STORAGE/scratch/job/fifo')",
    "os.listdir('/')",
    "os.kill(PARENT, 0)",
    "resource.prlimit(PARENT, resource.RLIMIT_CORE)",
    "os.setpriority(os.PRIO_PROCESS, PARENT, 19)",
    "fcntl.fcntl(0, fcntl.F_SETOWN, PARENT)",
    "fcntl.fcntl(0, fcntl.F_SETOWN, -PARENT)",
    "fcntl.fcntl(0, fcntl.F_GETOWN)",
    "fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGKILL)",
    "fcntl.fcntl(0, 15, struct.pack('ii', 1, PARENT))",  # F_SETOWN_EX
    "fcntl.fcntl(0, fcntl.F_SETFL, os.O_ASYNC)",
    "fcntl.fcntl(os.open('STORAGE', 0), fcntl.F_NOTIFY, fcntl.DN_MODIFY)",
    "fcntl.fcntl(os.open('STORAGE/original', 0), fcntl.F_SETLEASE, fcntl.F_RDLCK)",
    "fcntl.lockf(os.open('STORAGE/original', 0), fcntl.LOCK_SH)",
    "fcntl.flock(os.open('STORAGE/original', 0), fcntl.LOCK_EX)",
    "fcntl.fcntl(1, 1031, 4096)",  # F_SETPIPE_SZ
    "fcntl.fcntl(0, 1033, 1)",  # F_ADD_SEALS
    "syscall({'x86_64': 72, 'aarch64': 25}[os.uname().machine], 0, (1 << 32) + fcntl.F_SETOWN, PARENT)",
    "fcntl.ioctl(0, 0x5452, struct.pack('i', 1))",  # FIOASYNC
    "fcntl.ioctl(0, 0x8901, struct.pack('i', PARENT))",  # FIOSETOWN
    "fcntl.ioctl(0, 0x8902, struct.pack('i', PARENT))",  # SIOCSPGRP
    "fcntl.ioctl(0, 0x5412, b'x')",  # TIOCSTI
    "syscall({'x86_64': 157, 'aarch64': 167}[os.uname().machine], 1, 0)",  # prctl: outlive the parent
    "syscall({'x86_64': 200, 'aarch64': 130}[os.uname().machine], PARENT, 0)",  # tkill
    "syscall({'x86_64': 234, 'aarch64': 131}[os.uname().machine], PARENT, PARENT, 0)",  # tgkill
    "syscall({'x86_64': 129, 'aarch64': 138}[os.uname().machine], PARENT, 0, 0)",  # rt_sigqueueinfo
    "syscall(424, 0, 0, 0, 0)",  # pidfd_send_signal
    "os.pidfd_open(PARENT)",
    "os.memfd_create('x')",
    "os.pipe()",
    "os.dup2(0, 1)",
    "os.ftruncate(0, 0)",
    "os.fsync(0)",
    "os.pwrite(0, b'x', 0)",
    "os.sendfile(1, 0, 0, 1)",
)


@pytest.mark.parametrize("kernel", KERNELS)
async def test_refuses(exploit: Exploit, make_pool: MakePool, storage: Path, kernel: str) -> None:
    exploit(KERNELS[kernel])
    # Required, so that the test fails on a kernel without it, with a message that says what to do.
    found = await outcomes(make_pool(require_sandbox=True), storage, *REFUSED)
    assert {attempt: name for attempt, name in found.items() if name not in {"EPERM", "EACCES"}} == {}
    assert (storage / "original").read_text() == "secret"
    assert (storage.parent / "elsewhere").read_text() == "secret"


CHANGES = (
    "open('STORAGE/original', 'w')",
    "open('STORAGE/original', 'r+')",
    "open('STORAGE/original', 'a')",
    "open('STORAGE/new', 'x')",
    "open('STORAGE/scratch/job/new', 'x')",
    "os.open('STORAGE/original', os.O_TRUNC)",
    "os.open('STORAGE', os.O_TMPFILE | os.O_WRONLY)",
    "syscall({'x86_64': 257, 'aarch64': 56}[os.uname().machine], -100, ctypes.addressof(PATH), 1)",
    "os.unlink('STORAGE/original')",
    "os.truncate('STORAGE/original', 0)",
    "os.rename('STORAGE/original', 'STORAGE/new')",
    "os.link('STORAGE/original', 'STORAGE/new')",
    "os.symlink('/etc/passwd', 'STORAGE/new')",
    "os.mkdir('STORAGE/new')",
    "os.utime('STORAGE/original')",
    "os.setxattr('STORAGE/original', 'user.x', b'x')",
)


async def test_seccomp_alone_keeps_files_from_being_changed(
    exploit: Exploit, make_pool: MakePool, storage: Path
) -> None:
    exploit(NO_LANDLOCK)
    assert await outcomes(make_pool(), storage, *CHANGES) == dict.fromkeys(CHANGES, "EPERM")
    assert names(storage) == ["original", "scratch", "source"]
    assert (storage / "original").read_text() == "secret"


@pytest.mark.parametrize(
    "attack",
    [
        "os.fork()",
        "os.execv('/bin/sh', ['sh'])",
        "os.posix_spawn('/bin/sh', ['sh'], {})",
        "ctypes.CDLL(None).ptrace(16, PARENT, 0, 0)",
        "ctypes.CDLL(None).unshare(0x10000000)",
        "ctypes.CDLL(None).syscall(425, 1, 0)",  # io_uring_setup
        "ctypes.CDLL(None).syscall(426, 1, 0)",
        "ctypes.CDLL(None).syscall(0x40000000 + 39)",
    ],
)
async def test_seccomp_kills_process(
    exploit: Exploit, make_pool: MakePool, storage: Path, logged: list[EventDict], attack: str
) -> None:
    exploit()
    if "0x40000000" in attack and os.uname().machine != "x86_64":
        attack = "os.fork()"
    with pytest.raises(DecoderCrashed):
        await run(make_pool(require_sandbox=True), storage, TRY.replace("ATTACK", attack.replace("PARENT", "1")))
    assert "decoder killed by seccomp: possible exploit" in [each["event"] for each in logged]


ALLOWED = (
    "open('STORAGE/original')",
    "os.listdir('STORAGE')",
    "import sqlite3, lzma",
    "thread = threading.Thread(target=int); thread.start(); thread.join()",
    "os.close(os.dup(0)); fcntl.fcntl(0, fcntl.F_GETFL); fcntl.fcntl(0, fcntl.F_GETFD)",
    "os.close(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 10))",
)


async def test_sandbox_allows(exploit: Exploit, make_pool: MakePool, storage: Path) -> None:
    exploit()
    found = await outcomes(make_pool(require_sandbox=True), storage, *ALLOWED)
    assert found == dict.fromkeys(ALLOWED, "done")


async def test_renders_from_folder_mounted_after_start(make_pool: MakePool, storage: Path) -> None:
    pool = make_pool()
    shutil.move(storage, moved := storage.parent / "moved")
    await pool.start()
    shutil.move(moved, storage)
    (storage / "source").write_bytes(encoded(gradient(640, 480), "JPEG"))
    assert (await pool.render(storage / "source", DEFAULT_RECIPE, storage / "scratch" / "job")).thumbnails


async def test_warns_once_without_landlock(
    exploit: Exploit, make_pool: MakePool, storage: Path, logged: list[EventDict]
) -> None:
    process_module._warn.cache_clear()
    exploit(NO_LANDLOCK)
    for _ in range(2):
        with pytest.raises(CorruptImage, match="done"):
            await run(make_pool(), storage, TRY.replace("ATTACK", f"open('{storage.parent / 'elsewhere'}')"))
    (warning,) = [each for each in logged if each["log_level"] == "warning"]
    assert warning["lacking"] == ("Landlock (Function not implemented)",)


async def test_start_fails_without_required_sandbox(exploit: Exploit, make_pool: MakePool) -> None:
    exploit(NO_LANDLOCK)
    with pytest.raises(StartError, match=r"REQUIRE_SANDBOX .* Landlock \(Function not implemented\)"):
        await make_pool(require_sandbox=True).start()


@pytest.mark.parametrize(
    ("end", "error"), [("time.sleep(100)", DecoderTimeout), ("os.abort()", DecoderCrashed)], ids=["slow", "crashed"]
)
async def test_kills_children_of_decoder_process(
    exploit: Exploit, make_pool: MakePool, storage: Path, end: str, error: type[Exception]
) -> None:
    exploit(NO_SANDBOX)
    pid = storage / "scratch" / "job" / "pid"
    start = (
        "import os, subprocess, time\nfrom pathlib import Path\n"
        f"other = subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(100)'])\n"
        f"Path({str(pid)!r}).write_text(str(other.pid))\n"
    )
    with pytest.raises(error):
        await run(make_pool(wall_seconds=1.0, writable=("/",)), storage, start + end)
    other = int(pid.read_text())
    await eventually(lambda: not psutil.pid_exists(other) or psutil.Process(other).status() == psutil.STATUS_ZOMBIE)
