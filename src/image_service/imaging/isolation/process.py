"""One decoder process: its start, the jobs it is sent, and its end."""

import asyncio
import json
import os
import signal
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from typing import Final, Self, cast

import structlog

from image_service.errors import DecoderCrashed, DecoderTimeout, Outage, StartError
from image_service.imaging.isolation.protocol import decode_ready
from image_service.imaging.limits import RenderLimits

_log = structlog.get_logger(__name__)

_KEPT_VARIABLES: Final = ("LD_LIBRARY_PATH", "PYTHONPATH")
_KEPT_PREFIX: Final = "COVERAGE_"
_STDERR_TAIL: Final = 2000
"""Bytes at the end of a process's standard error that are kept for the log."""
_EXIT_SECONDS: Final = 2.0
"""Time for an idle process to exit by itself."""


class DecoderProcess:
    """One decoder process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        # The process was started with all three pipes.
        self._stdin = cast("StreamWriter", process.stdin)
        self._stdout = cast("StreamReader", process.stdout)
        self._stderr_tail = b""
        self._stderr_reader = asyncio.create_task(self._read_stderr(cast("StreamReader", process.stderr)))

    @classmethod
    async def start(cls, limits: RenderLimits) -> Self:
        """Return a process that is ready for jobs.

        Raises:
            Outage: none can be started.
            StartError: the sandbox is unavailable but required.
        """
        try:
            child = cls(
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "image_service.imaging.isolation.child",
                    json.dumps(asdict(limits)),
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=PIPE,
                    env=_environment(),
                    start_new_session=True,
                )
            )
        except OSError as error:
            raise Outage(f"No decoder process can be started: {error}.") from error
        try:
            async with asyncio.timeout(limits.start_seconds):
                lacking = decode_ready(await child._stdout.readline())
            _check_sandbox(lacking, required=limits.require_sandbox)
        except (TimeoutError, ValueError) as error:
            await child.kill()
            _log.error("decoder process does not start", stderr_tail=child.stderr_tail)
            raise Outage("The decoder process does not start; the log says why. Try again in a few seconds.") from error
        except BaseException:
            await child.kill()
            raise
        return child

    @property
    def alive(self) -> bool:
        """Whether the process is not known to have ended."""
        return self._process.returncode is None

    @property
    def stderr_tail(self) -> str:
        """The end of its standard error."""
        return self._stderr_tail.decode(errors="replace")

    async def request(self, line: bytes) -> bytes:
        """Send a job and return the reply.

        Raises:
            DecoderTimeout: the process used up its processor time.
            DecoderCrashed: the process died for any other reason.
        """
        # If the process dies while it is written to, its replies end, which is handled below.
        with suppress(ConnectionError):
            self._stdin.write(line)
            await self._stdin.drain()
        if reply := await self._stdout.readline():
            return reply
        await self.kill()
        status = self._process.returncode or 0
        _log.warning("decoder process died", pid=self._process.pid, status=status, stderr_tail=self.stderr_tail)
        if status == -signal.SIGSYS:
            _log.error("decoder killed by seccomp: possible exploit", pid=self._process.pid)
        if status == -signal.SIGXCPU:
            raise DecoderTimeout
        raise DecoderCrashed

    async def exit(self) -> None:
        """Close standard input, which ends an idle process; kill the process if that does not."""
        self._stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_SECONDS):
                await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """Kill the process and all that it started, and wait for its end. Safe to call twice."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await self._stderr_reader
        self._stdin.close()

    async def _read_stderr(self, stderr: StreamReader) -> None:
        """Keep reading, or a codec that writes much would block on a full pipe."""
        while piece := await stderr.read(_STDERR_TAIL):
            self._stderr_tail = (self._stderr_tail + piece)[-_STDERR_TAIL:]


def _check_sandbox(lacking: tuple[str, ...], *, required: bool) -> None:
    """Log a warning, once in this process, if the kernel lacks a layer of the sandbox.

    Raises:
        StartError: the sandbox is required.
    """
    if not lacking:
        return
    if required:
        raise StartError(
            f"REQUIRE_SANDBOX is set, but the decoder sandbox is unavailable: {', '.join(lacking)} is missing. Run a "
            "Linux kernel of version 5.13 or later with Landlock and seccomp enabled, or unset REQUIRE_SANDBOX."
        )
    _warn(lacking)


@cache
def _warn(lacking: tuple[str, ...]) -> None:
    _log.warning("decoder sandbox unavailable: an exploited decoder has this process's rights", lacking=lacking)


def _environment() -> dict[str, str]:
    """Return the environment of a decoder process: where code is, and how to report coverage; no credentials."""
    kept = {
        name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIX)
    }
    # File names in UTF-8 whatever the locale; one malloc arena, as each reserves address space; and no threads for
    # NumPy, which a decoder loads and which reserves more for each.
    return kept | {"PYTHONUTF8": "1", "MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
