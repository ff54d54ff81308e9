"""What a decoder process that a file has taken over can make its parent believe, and what it can reach: nothing.

The process is behind the real sandbox, with the folders that the service gives it. After each attempt the pool renders
the next image properly. Which system calls fail is tried one by one in ``test_sandbox``.
"""

import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
from structlog.testing import capture_logs

from harness.images import encoded, gradient
from harness.pace import slowness
from harness.waiting import eventually
from image_service.domain.image import Rendering
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.errors import (
    CorruptImage,
    DecoderCrashed,
    DecoderOutOfMemory,
    DecoderTimeout,
    ObjectMissing,
    ServiceError,
)
from image_service.imaging.isolation.pool import RenderPool
from image_service.imaging.limits import RenderLimits
from tests.contract.exploits import KERNELS, NO_LANDLOCK, NO_SCOPES, Exploit
from tests.contract.rendering import GOOD, children

OTHER = encoded(gradient(320, 200), "JPEG")
LIE = """
import __main__, json
honest = __main__.encode_rendering

def encode_rendering(number, rendering, **options):
    fields = json.loads(honest(number, rendering, **options))
    small = fields["thumbnails"]["100x100"]
    LIE
    return json.dumps(fields).encode() + b"\\n"

__main__.encode_rendering = encode_rendering
result = render(source.with_name("good"), recipe, out, limits)
"""
SEND = """
import json

def send(fields):
    replies.write(json.dumps(fields).encode() + b"\\n")
    replies.flush()

"""


class Victim:
    """A pool with hostile input, as the service wires it."""

    def __init__(self, folder: Path, **limits: Any) -> None:  # noqa: ANN401  (the limits' own fields)
        self.storage = folder / "storage"
        self.out = self.storage / "scratch" / "job"
        self.out.mkdir(parents=True)
        (self.storage / "good").write_bytes(GOOD)
        folders: dict[str, Any] = {"readable": (str(self.storage),), "writable": ()}
        self.pool = RenderPool(1, RenderLimits(**(folders | limits)))

    async def render(self, content: bytes | str) -> Rendering:
        (self.storage / "source").write_bytes(content.encode() if isinstance(content, str) else content)
        return await self.pool.render(self.storage / "source", DEFAULT_RECIPE, self.out)

    async def error(self, code: str) -> ServiceError:
        """Return the error that hostile code ends with."""
        with pytest.raises(ServiceError) as caught:
            await self.render(code)
        return caught.value

    async def still_serves(self) -> None:
        """Check that the next image gets its own result."""
        rendering = await self.render(OTHER)
        assert (rendering.width, rendering.height) == (320, 200)
        assert [(each.width, each.height) for each in rendering.thumbnails] == [(100, 63), (300, 188), (320, 200)]


@pytest.fixture
async def victim(exploit: Exploit, tmp_path: Path) -> AsyncIterator[Victim]:
    exploit()
    victim = Victim(tmp_path)
    yield victim
    await victim.pool.close()


@pytest.fixture
def bystander() -> Iterator[Popen[bytes]]:
    """Another process of the same user, which ends when it reads a line."""
    with Popen([sys.executable, "-c", "input()"], stdin=PIPE) as process:
        yield process
        process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "lie",
    [
        'fields["traits"]["dominant_colour"] = "<b>"',
        'fields["traits"]["placeholder"] = "<script>"',
        'fields["traits"]["metadata_removed"] = ["secrets"]',
        'fields["width"] = 10 ** 9',
        'fields["timings"] = [["evil_step", 1.0]]',
        'fields["timings"] = [["decode", 1e9]]',
        'fields["thumbnails"]["../../original"] = small',
        'del fields["thumbnails"]["300x300"]',
        'del fields["thumbnails"]["300x300"]; fields["left_out"] = ["300x300"]',
        'fields["left_out"] = ["original"]',
        'fields["sha256"] = "ab\\r\\n"',
        'fields["job"] = "0" * 16',
        'del fields["job"]',
        'small[0] = "text/html"',
        'small[0] = "image/webp"',  # allowed, but not what the file is
        "small[1], small[2] = 100, 100",
        "small[1] = 10 ** 6",
        "small[3] = 10 ** 9",
        "small[3] = -1",
        "small[3] -= 1",  # the others' bytes are shifted, and one is left
        'out.contents["100x100"] = b"<script>".ljust(small[3])',
        'out.contents["100x100"] = out.contents["300x300"]; small[3] = len(out.contents["100x100"])',
    ],
)
async def test_lie_in_a_field_is_a_crash_of_the_decoder(victim: Victim, lie: str) -> None:
    await victim.pool.start()
    before = children()
    files = (
        "import gc\nout = next(each for each in gc.get_objects() if type(each).__name__ == 'CollectedFiles')\n    "
        if "out." in lie
        else ""
    )
    with capture_logs() as logged:
        error = await victim.error(LIE.replace("LIE", files.replace("\n", "\n    ", 1) + lie, 1))
    assert type(error) is DecoderCrashed
    assert "decoder process sent an invalid reply: possible exploit" in [each["event"] for each in logged]
    assert not before & children()
    assert names(victim.out) == []
    await victim.still_serves()


@pytest.mark.parametrize("code", ["storage-full", "storage-unavailable", "object-missing", "internal-error"])
async def test_claimed_outage_is_a_crash_of_the_decoder(victim: Victim, code: str) -> None:
    error = await victim.error(
        SEND + f"send({{'job': number, 'code': {code!r}, 'detail': ''}}); import os; os._exit(0)"
    )
    assert type(error) is DecoderCrashed
    await victim.still_serves()


async def test_detail_of_a_verdict_is_one_short_line(victim: Victim) -> None:
    error = await victim.error(
        "from image_service.errors import CorruptImage\nraise CorruptImage('x\\r\\n\\0' * 4_000)"
    )
    assert type(error) is CorruptImage
    assert error.detail == ("x   " * 100)[:300]
    await victim.still_serves()


async def test_second_reply_is_not_the_next_image_s(victim: Victim) -> None:
    verdict = "{'job': number, 'code': 'corrupt-image', 'detail': 'Forged.'}"
    error = await victim.error(SEND + f"send({verdict}); send({verdict}); import os; os._exit(0)")
    assert isinstance(error, DecoderCrashed | CorruptImage)  # the latter if the second came later
    await victim.still_serves()


async def test_reply_that_follows_a_reply_ends_the_process(victim: Victim) -> None:
    """The renderer's own reply follows the one that hostile code has sent."""
    await victim.pool.start()
    before = children()
    error = await victim.error(
        SEND + "send({'job': number, 'code': 'corrupt-image', 'detail': 'Forged.'})\n"
        "result = render(source.with_name('good'), recipe, out, limits)"
    )
    assert isinstance(error, DecoderCrashed | CorruptImage)
    await eventually(lambda: not before & children())
    await victim.still_serves()


async def test_output_between_two_jobs_ends_the_process(victim: Victim) -> None:
    code = SEND + (
        "import threading, time\nfrom image_service.errors import CorruptImage\n"
        "def later():\n"
        "    while not source.with_name('now').exists():\n"
        "        time.sleep(0.01)\n"
        "    send({'job': number, 'code': 'corrupt-image', 'detail': 'Forged.'})\n"
        "threading.Thread(target=later).start()\nraise CorruptImage('Honest.')"
    )
    with capture_logs() as logged:
        assert (await victim.error(code)).detail == "Honest."
        (victim.storage / "now").touch()
        await eventually(lambda: not children())
    assert "decoder process wrote unasked and is killed: possible exploit" in [each["event"] for each in logged]
    await victim.still_serves()


async def test_late_reply_to_the_former_job_is_refused(victim: Victim) -> None:
    """A process that stays taken over answers the next job with the former one's number and result.

    That is not the next image's fault: another process renders it.
    """
    code = (
        "import __main__\nhonest, former = __main__.encode_rendering, number\n"
        "made = result = render(source.with_name('good'), recipe, out, limits)\n"
        "late = lambda number, rendering, busy: honest(former, made)\n"
        "__main__.encode_rendering = lambda *given, busy: (\n"
        "    setattr(__main__, 'encode_rendering', late), honest(*given))[1]"
    )
    assert (await victim.render(code)).width == 640
    before = children()
    with capture_logs() as logged:
        await victim.still_serves()
    assert [each["reason"] for each in logged] == ["a reply to another job"]
    assert not before & children()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("replies.write(b'x' * 20_000_000); replies.flush()", DecoderCrashed),
        ("replies.write(b'[' * 60_000 + b'\\n'); replies.flush()", DecoderCrashed),
        ("replies.write(b'\\n'); replies.flush()", DecoderCrashed),
        ("while True: replies.write(b'x' * 1_000_000)", DecoderCrashed),
        ("import os; os.close(replies.fileno())\nwhile True: pass", DecoderCrashed),
        ("replies.write(b'{'); replies.flush(); import time; time.sleep(100)", DecoderTimeout),
        (LIE.replace("LIE", "small[3] += 1"), DecoderCrashed),
        (
            "from image_service.errors import DecoderOutOfMemory\nraise DecoderOutOfMemory()",
            DecoderOutOfMemory,
        ),
    ],
    ids=["huge line", "deep line", "empty line", "endless line", "closed", "half a line", "too few bytes", "memory"],
)
async def test_broken_reply_costs_one_image(
    exploit: Exploit, tmp_path: Path, code: str, error: type[ServiceError]
) -> None:
    exploit()
    victim = Victim(tmp_path, wall_seconds=6 * slowness())
    assert type(await victim.error(code)) in {error, DecoderTimeout}
    await victim.still_serves()
    await victim.pool.close()


async def test_source_deleted_meanwhile_is_missing(victim: Victim) -> None:
    (victim.storage / "source").write_text("raise OSError")
    task = victim.pool.render(victim.storage / "gone", DEFAULT_RECIPE, victim.out)
    with pytest.raises(ObjectMissing):
        await task
    await victim.still_serves()


REACH = """
import os
from image_service.errors import CorruptImage

got = []
for path in PATHS:
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_RDWR | os.O_APPEND):
        try:
            os.open(path, flags)
            got.append(path)
        except PermissionError:
            pass
for folder in FOLDERS:
    for attempt in (
        lambda: os.open(folder + "/100x100", os.O_CREAT | os.O_WRONLY),
        lambda: os.symlink("/etc/passwd", folder + "/100x100"),
        lambda: os.link(PATHS[0], folder + "/100x100"),
        lambda: os.mkfifo(folder + "/100x100"),
        lambda: os.mkdir(folder + "/100x100"),
        lambda: os.rename(PATHS[0], folder + "/100x100"),
        lambda: os.unlink(PATHS[0]),
    ):
        try:
            attempt()
            got.append(folder)
        except PermissionError:
            pass
raise CorruptImage(f"reached {got}")
"""


@pytest.mark.parametrize("kernel", [*KERNELS, "without Landlock"])
async def test_no_file_is_within_reach(exploit: Exploit, tmp_path: Path, kernel: str) -> None:
    exploit({**KERNELS, "without Landlock": NO_LANDLOCK}[kernel])
    victim = Victim(tmp_path)
    originals, upload = victim.storage / "originals" / "7f", victim.storage / "scratch" / "upload"
    originals.mkdir(parents=True)
    upload.mkdir()
    paths = [originals / "accepted", upload / "original", victim.out / "other", victim.storage / "good"]
    for path in paths[:3]:
        path.write_bytes(b"as it was uploaded")
    folders = [originals, upload, victim.out, victim.storage / "scratch", victim.storage]
    code = REACH.replace("PATHS", repr([*map(str, paths)])).replace("FOLDERS", repr([*map(str, folders)]))
    assert (await victim.error(code)).detail == "reached []"
    assert all(path.read_bytes() == b"as it was uploaded" for path in paths[:3])
    assert [names(folder) for folder in folders[:3]] == [["accepted"], ["original"], ["other"]]
    await victim.still_serves()
    await victim.pool.close()


SIGNAL = """
import fcntl, os, signal, struct
from image_service.errors import CorruptImage

done = []
for attempt in (
    lambda: fcntl.fcntl(0, fcntl.F_SETOWN, PID),
    lambda: fcntl.fcntl(0, 15, struct.pack("ii", 1, PID)),
    lambda: fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGKILL),
    lambda: fcntl.fcntl(0, fcntl.F_SETFL, os.O_ASYNC),
    lambda: fcntl.ioctl(0, 0x8901, struct.pack("i", PID)),
    lambda: fcntl.ioctl(0, 0x5452, struct.pack("i", 1)),
    lambda: os.kill(PID, signal.SIGKILL),
):
    try:
        attempt()
        done.append("done")
    except OSError as error:
        done.append(error.errno)
raise CorruptImage(str(done))
"""


@pytest.mark.parametrize("kernel", KERNELS)
async def test_no_process_is_within_reach(
    exploit: Exploit, tmp_path: Path, bystander: Popen[bytes], kernel: str
) -> None:
    """Data that arrives at the descriptor would send the signal: the next job does."""
    exploit(KERNELS[kernel])
    victim = Victim(tmp_path)
    assert (await victim.error(SIGNAL.replace("PID", str(bystander.pid)))).detail == str([1] * 7)
    await victim.still_serves()
    assert bystander.poll() is None
    bystander.communicate(b"\n")
    assert bystander.returncode == 0
    await victim.pool.close()


async def test_signal_would_arrive_without_the_filter(
    exploit: Exploit, tmp_path: Path, bystander: Popen[bytes]
) -> None:
    """The test above can fail: where the filter allows these calls, the signal ends the other process."""
    exploit(NO_SCOPES + "\nsandbox.syscalls.ALLOWED['fcntl'] = sandbox.syscalls.FCNTL")
    victim = Victim(tmp_path)
    assert (await victim.error(SIGNAL.replace("PID", str(bystander.pid)))).detail.startswith("['done', 'done'")
    await victim.still_serves()
    await eventually(lambda: bystander.poll() is not None)
    assert bystander.returncode == -signal.SIGKILL
    await victim.pool.close()
