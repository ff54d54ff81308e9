"""What an exploited decoder process can and cannot do, tried in a real process.

The process runs all of its own code except the renderer, which is replaced: it executes the file as Python code.
"""

import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
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

EXPLOIT = """
import image_service.imaging.isolation.sandbox as sandbox
import image_service.imaging.render.pipeline as pipeline

def render(source, recipe, out, limits):
    exec(source.read_text(), {})

pipeline.render = render
"""
TRY = """
import ctypes, errno, os, resource, socket, threading
from image_service.errors import CorruptImage
try:
    ATTACK
except OSError as error:
    raise CorruptImage(errno.errorcode[error.errno])
raise CorruptImage("done")
"""
NO_LANDLOCK = """
def absent(*_):
    raise OSError(38, "Function not implemented")

sandbox._apply_landlock = absent
"""
NO_SANDBOX = "sandbox.enter_sandbox = lambda *_: ()"

Exploit = Callable[..., None]
MakePool = Callable[..., RenderPool]


@pytest.fixture
def exploit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exploit:
    """Make decoder processes execute their input, after an optional preparation."""

    def exploit(preparation: str = "") -> None:
        folder = tmp_path / "site"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(EXPLOIT + preparation)
        path = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *([path] if path else [])]))

    return exploit


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


async def outcome(make_pool: MakePool, storage: Path, attack: str) -> str:
    """Return the name of the error that ``attack`` raises, or "done"."""
    names = {"STORAGE": storage, "ELSEWHERE": storage.parent / "elsewhere", "PARENT": os.getpid()}
    for name, value in names.items():
        attack = attack.replace(name, str(value))
    with pytest.raises(CorruptImage) as caught:
        # Required, so that the test fails on a kernel without it, with a message that says what to do.
        await run(make_pool(require_sandbox=True), storage, TRY.replace("ATTACK", attack))
    return str(caught.value)


@pytest.mark.parametrize(
    "attack",
    [
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
    ],
)
async def test_refuses(exploit: Exploit, make_pool: MakePool, storage: Path, attack: str) -> None:
    exploit()
    assert await outcome(make_pool, storage, attack) in {"EPERM", "EACCES"}
    assert (storage / "original").read_text() == "secret"
    assert (storage.parent / "elsewhere").read_text() == "secret"


@pytest.mark.parametrize(
    "attack",
    [
        "os.fork()",
        "os.execv('/bin/sh', ['sh'])",
        "os.posix_spawn('/bin/sh', ['sh'], {})",
        "ctypes.CDLL(None).ptrace(16, PARENT, 0, 0)",
        "ctypes.CDLL(None).unshare(0x10000000)",
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


@pytest.mark.parametrize(
    "action",
    [
        "open('STORAGE/original')",
        "os.listdir('STORAGE')",
        "import sqlite3, lzma",
        "thread = threading.Thread(target=int); thread.start(); thread.join()",
    ],
)
async def test_sandbox_allows(exploit: Exploit, make_pool: MakePool, storage: Path, action: str) -> None:
    exploit()
    assert await outcome(make_pool, storage, action) == "done"


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
