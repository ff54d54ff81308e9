"""What a decoder cannot do once a file has taken it over, tried in the real process; and what is said where it could.

The process runs everything as ever, but the renderer in it: that runs Python code which the file brings.
"""

import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from harness.images import encoded, gradient
from harness.waiting import eventually
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.errors import CorruptImage, DecoderCrashed, DecoderTimeout, StartError
from image_service.imaging import pool as pool_module
from image_service.imaging.limits import RenderLimits
from image_service.imaging.pool import RenderPool

TAKEN_OVER = """
import image_service.imaging.rendering as rendering
import image_service.imaging.sandbox as sandbox

def render(source, recipe, out, limits):
    exec(source.read_text(), {"out": out})

rendering.render = render
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
NO_FENCE = """
def absent(*_):
    raise OSError(38, "Function not implemented")

sandbox._fence = absent
"""
NO_SANDBOX = "sandbox.shut_in = lambda *_: ()"

TakeOver = Callable[..., None]
MakePool = Callable[..., RenderPool]


@pytest.fixture
def take_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TakeOver:
    """Make decoder processes run code, after this further preparation."""

    def take_over(preparation: str = "") -> None:
        folder = tmp_path / "site"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(TAKEN_OVER + preparation)
        path = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *([path] if path else [])]))

    return take_over


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

    def make_pool(**limits: float) -> RenderPool:
        folders = {"readable": (str(storage),), "writable": (str(storage / "scratch"),)}
        pools.append(RenderPool(1, RenderLimits(**folders, **limits)))  # type: ignore[arg-type]
        return pools[-1]

    yield make_pool
    for pool in pools:
        await pool.close()


async def run(pool: RenderPool, storage: Path, code: str) -> None:
    source = storage / "source"
    source.write_text(code)
    await pool.render(source, DEFAULT_RECIPE, storage / "scratch" / "job")


async def outcome(make_pool: MakePool, storage: Path, attack: str) -> str:
    """The name of the error that ``attack`` met, or "done"."""
    names = {"STORAGE": storage, "ELSEWHERE": storage.parent / "elsewhere", "PARENT": os.getpid()}
    for name, value in names.items():
        attack = attack.replace(name, str(value))
    with pytest.raises(CorruptImage) as caught:
        # Required, so that a kernel without it fails the test, and says how to mend that.
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
async def test_refuses(take_over: TakeOver, make_pool: MakePool, storage: Path, attack: str) -> None:
    take_over()
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
async def test_ends_a_process_that_tries(
    take_over: TakeOver, make_pool: MakePool, storage: Path, logged: list[EventDict], attack: str
) -> None:
    take_over()
    if "0x40000000" in attack and os.uname().machine != "x86_64":
        attack = "os.fork()"
    with pytest.raises(DecoderCrashed):
        await run(make_pool(require_sandbox=True), storage, TRY.replace("ATTACK", attack.replace("PARENT", "1")))
    assert "a file took over its decoder, which the sandbox ended" in [each["event"] for each in logged]


@pytest.mark.parametrize(
    "deed",
    [
        "open('STORAGE/original')",
        "open('STORAGE/scratch/job/new', 'w').write('thumbnail')",
        "os.listdir('STORAGE')",
        "import sqlite3, lzma",
        "thread = threading.Thread(target=int); thread.start(); thread.join()",
    ],
)
async def test_lets_work_go_on(take_over: TakeOver, make_pool: MakePool, storage: Path, deed: str) -> None:
    take_over()
    assert await outcome(make_pool, storage, deed) == "done"


async def test_finds_folders_that_were_mounted_later(make_pool: MakePool, storage: Path) -> None:
    pool = make_pool()
    shutil.move(storage, away := storage.parent / "away")
    await pool.start()
    shutil.move(away, storage)
    (storage / "source").write_bytes(encoded(gradient(640, 480), "JPEG"))
    assert (await pool.render(storage / "source", DEFAULT_RECIPE, storage / "scratch" / "job")).thumbnails


async def test_warns_once_where_the_kernel_offers_less(
    take_over: TakeOver, make_pool: MakePool, storage: Path, logged: list[EventDict]
) -> None:
    pool_module._warn.cache_clear()
    take_over(NO_FENCE)
    for _ in range(2):
        with pytest.raises(CorruptImage, match="done"):
            await run(make_pool(), storage, TRY.replace("ATTACK", f"open('{storage.parent / 'elsewhere'}')"))
    (warning,) = [each for each in logged if each["log_level"] == "warning"]
    assert warning["lacking"] == ("Landlock (Function not implemented)",)


async def test_refuses_such_a_kernel_where_it_is_told_to(take_over: TakeOver, make_pool: MakePool) -> None:
    take_over(NO_FENCE)
    with pytest.raises(StartError, match=r"REQUIRE_SANDBOX .* Landlock \(Function not implemented\)"):
        await make_pool(require_sandbox=True).start()


@pytest.mark.parametrize(
    ("end", "error"), [("time.sleep(100)", DecoderTimeout), ("os.abort()", DecoderCrashed)], ids=["slow", "crashed"]
)
async def test_nothing_outlives_a_process_that_could_start_others(
    take_over: TakeOver, make_pool: MakePool, storage: Path, end: str, error: type[Exception]
) -> None:
    take_over(NO_SANDBOX)
    start = (
        f"import os, subprocess, time\nfrom pathlib import Path\nother = subprocess.Popen([{sys.executable!r}, '-c', "
    )
    start += "'import time; time.sleep(100)'])\nPath(out, 'pid').write_text(str(other.pid))\n"
    with pytest.raises(error):
        await run(make_pool(wall_seconds=1.0), storage, start + end)
    other = int((storage / "scratch" / "job" / "pid").read_text())
    await eventually(lambda: not psutil.pid_exists(other) or psutil.Process(other).status() == psutil.STATUS_ZOMBIE)
