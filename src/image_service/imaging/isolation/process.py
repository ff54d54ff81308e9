"""One decoder process: its start, the jobs it is sent, and its end."""

import asyncio
import json
import os
import signal
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from typing import Final, Self, cast

import structlog

from image_service.domain.wellformed import one_line
from image_service.errors import DecoderCrashed, DecoderTimeout, Outage, ServiceError, StartError
from image_service.imaging.isolation.jobs import Job, encode_job
from image_service.imaging.isolation.protocol import (
    MAX_LINE,
    Reply,
    SourceUnreadable,
    decode_ready,
    decode_reply,
)
from image_service.imaging.limits import RenderLimits

_log = structlog.get_logger(__name__)

_KEPT_VARIABLES: Final = ("LD_LIBRARY_PATH", "PYTHONPATH")
_KEPT_PREFIX: Final = "COVERAGE_"
_STDERR_TAIL: Final = 2000
"""Bytes at the end of a process's standard error that are kept for the log."""
_EXIT_SECONDS: Final = 2.0
"""Time for an idle process to exit by itself."""
_STDOUT: Final = 1


class _Pipes(SubprocessStreamProtocol):
    """The pipes of a process: what it writes without having been asked ends it at once."""

    def __init__(self) -> None:
        super().__init__(MAX_LINE, asyncio.get_running_loop())
        self.spoke_unasked = False
        self._asked = True  # for the line that reports readiness
        self._unread = 0
        self._pid = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note which process it is. Called by the event loop."""
        super().connection_made(transport)
        self._subprocess = cast("asyncio.SubprocessTransport", transport)
        self._pid = self._subprocess.get_pid()

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        """Count the bytes of replies. Called by the event loop."""
        if fd == _STDOUT:
            self._unread += len(data)
            if not self._asked:
                self._end()
        super().pipe_data_received(fd, data)

    def close_output(self) -> None:
        """Read nothing more that the process writes."""
        if (output := self._subprocess.get_pipe_transport(_STDOUT)) is not None:
            output.close()

    def read(self, count: int) -> None:
        """Note that so many bytes of replies were read."""
        self._unread -= count

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Allow output for the duration of the block, which must read all of it.

        Raises:
            ValueError: there is more output.
        """
        self._asked = True
        try:
            yield
        except (ServiceError, SourceUnreadable):
            self.end_of_reply()
            raise
        self.end_of_reply()

    def end_of_reply(self) -> None:
        """Note that nothing is expected any more; raises ``ValueError`` if there is output that was not read."""
        self._asked = False
        if self._unread:
            self.spoke_unasked = True
            raise ValueError("more output than one reply")

    def _end(self) -> None:
        """Kill the process and all that it started."""
        if not self.spoke_unasked:
            _log.error("decoder process wrote unasked and is killed: possible exploit", pid=self._pid)
        self.spoke_unasked = True
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)


class InvalidReply(Exception):
    """A process sent something that this service's own code would not: a file has taken it over, perhaps a former one.

    It can have had a reply in the pipe before the job was sent, which then stands where that to the job belongs.
    """


class DecoderProcess:
    """One decoder process."""

    def __init__(self, process: Process, pipes: _Pipes, limits: RenderLimits) -> None:
        self._process = process
        self._pipes = pipes
        self._limits = limits
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
        loop = asyncio.get_running_loop()
        try:
            transport, pipes = await loop.subprocess_exec(
                _Pipes,
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
        except OSError as error:
            raise Outage(f"No decoder process can be started: {error}.") from error
        child = cls(Process(transport, pipes, loop), pipes, limits)
        try:
            async with asyncio.timeout(limits.start_seconds):
                lacking = decode_ready(await child._read_line())
            pipes.end_of_reply()
            _check_sandbox(lacking, required=limits.require_sandbox)
        except (TimeoutError, EOFError, ValueError) as error:
            await child.kill()
            _log.error("decoder process does not start", stderr_tail=child.stderr_tail)
            raise Outage("The decoder process does not start; the log says why. Try again in a few seconds.") from error
        except BaseException:
            await child.kill()
            raise
        return child

    @property
    def alive(self) -> bool:
        """Whether the process can take a job: it is not known to have ended, and has written nothing unasked."""
        return self._process.returncode is None and not self._pipes.spoke_unasked

    @property
    def stderr_tail(self) -> str:
        """The end of its standard error."""
        return one_line(self._stderr_tail.decode(errors="replace"), _STDERR_TAIL)

    async def render(self, job: Job) -> tuple[Reply, list[bytes]]:
        """Have an image rendered; returns the reply and the thumbnails' bytes. After an error it is not to be used.

        Raises:
            ServiceError: the verdict on the file; after this one, it can be used.
            SourceUnreadable: the process says so; the same.
            DecoderTimeout: the process used up its processor time.
            DecoderCrashed: the process died for any other reason.
            InvalidReply: the process sent something else than one reply to this job.
        """
        try:
            with self._pipes.asked():
                # If the process dies while it is written to, its replies end, which is handled below.
                with suppress(ConnectionError):
                    self._stdin.write(encode_job(job))
                    await self._stdin.drain()
                reply = decode_reply(await self._read_line(), job, self._limits)
                return reply, [await self._read(each.size_bytes) for each in reply.thumbnails]
        except EOFError:
            raise await self._death() from None
        except ValueError as error:
            raise self.invalid(error) from error

    def invalid(self, reason: ValueError) -> "InvalidReply":
        """Log that the process sent something invalid, and return the error for its job."""
        _log.error(
            "decoder process sent an invalid reply: possible exploit",
            pid=self._process.pid,
            reason=one_line(str(reason), _STDERR_TAIL),
            stderr_tail=self.stderr_tail,
        )
        return InvalidReply()

    async def _read_line(self) -> bytes:
        """Return a line of output; ``EOFError`` if the output ends before, ``ValueError`` if the line is too long."""
        line = await self._stdout.readline()
        self._pipes.read(len(line))
        if not line.endswith(b"\n"):
            raise EOFError
        return line

    async def _read(self, count: int) -> bytes:
        content = await self._stdout.readexactly(count)  # its error is an EOFError
        self._pipes.read(count)
        return content

    async def _death(self) -> DecoderCrashed | DecoderTimeout:
        """Return the error for a process that has ended."""
        await self.kill()
        status = self._process.returncode or 0
        _log.warning("decoder process died", pid=self._process.pid, status=status, stderr_tail=self.stderr_tail)
        if status == -signal.SIGSYS:
            _log.error("decoder killed by seccomp: possible exploit", pid=self._process.pid)
        return DecoderTimeout() if status == -signal.SIGXCPU else DecoderCrashed()

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
        # The event loop reports the end only after the pipe's, which it does not see while output waits to be read.
        self._pipes.close_output()
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
