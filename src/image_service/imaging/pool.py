"""Renders in processes that may die: a few warm ones, each replaced when a file kills it."""

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
from pathlib import Path
from typing import Final, Self, cast

import structlog

from image_service.domain.image import Rendering
from image_service.domain.recipe import Recipe
from image_service.errors import (
    DecoderCrashed,
    DecoderFailure,
    DecoderOutOfMemory,
    DecoderTimeout,
    Outage,
    StartError,
    StorageUnavailable,
)
from image_service.imaging.limits import DEFAULT_LIMITS, RenderLimits
from image_service.imaging.protocol import Job, decode_ready, decode_reply, encode_job

_log = structlog.get_logger(__name__)

_KEPT_VARIABLES: Final = ("LD_LIBRARY_PATH", "PYTHONPATH")
_KEPT_PREFIX: Final = "COVERAGE_"
_LAST_WORDS: Final = 2000
"""Bytes of a dead process's standard error worth keeping."""
_SHUTTING_DOWN: Final = "The renderer is shutting down. Try again in a few seconds."
_EXIT_SECONDS: Final = 2.0
"""How long an idle process may take to leave by itself."""


class RenderPool:
    """The ``Renderer`` that survives any file: decoders run in processes of their own, inside hard limits.

    One process a slot, started when first needed and kept warm. A crash, a time-out or a cancelled call costs the
    process and no neighbour.
    """

    def __init__(self, slots: int, limits: RenderLimits = DEFAULT_LIMITS) -> None:
        """Make a pool; nothing runs yet.

        Args:
            slots: Images that may be rendered at once; more wait.
            limits: What each may cost; the defaults if left out.
        """
        self._slots = tuple(_Slot(limits) for _ in range(slots))
        # Last in, first out: a quiet service keeps few processes, and keeps them warm.
        self._idle: asyncio.LifoQueue[_Slot] = asyncio.LifoQueue()
        for slot in self._slots:
            self._idle.put_nowait(slot)
        self._closed = False

    async def start(self) -> None:
        """Start the first process, so that a broken installation shows now.

        Raises:
            Outage: no decoder process can be started.
            StartError: the kernel cannot shut it in, and the limits say that it must.
        """
        slot = await self._idle.get()
        try:
            await slot.warm()
        finally:
            self._idle.put_nowait(slot)

    async def close(self) -> None:
        """End every process, in the middle of its work if need be. Safe to call twice."""
        self._closed = True
        await asyncio.gather(*(slot.retire() for slot in self._slots))

    async def render(self, source: Path, recipe: Recipe, out: Path) -> Rendering:
        """Make every preset of the recipe; see ``Renderer.render``.

        Raises:
            Outage: no decoder process can be started, the storage behind a path fails, or the pool is closed.
        """
        job = Job(source=source, recipe=recipe, out=out)
        slot = await self._idle.get()
        try:
            with suppress(StorageUnavailable):
                return await self._attempt(slot, job)
            # A process may enter the folders that were there when it started; a volume mounted since is another.
            await slot.retire()
            return await self._attempt(slot, job)
        finally:
            self._idle.put_nowait(slot)

    @property
    def slots(self) -> int:
        """Images that can be rendered at once."""
        return len(self._slots)

    @property
    def busy(self) -> int:
        """Processes that are rendering."""
        return sum(slot.busy for slot in self._slots)

    @property
    def idle(self) -> int:
        """Processes that are kept warm."""
        return sum(slot.alive and not slot.busy for slot in self._slots)

    async def _attempt(self, slot: "_Slot", job: Job) -> Rendering:
        if self._closed:
            raise Outage(_SHUTTING_DOWN)
        try:
            return await slot.render(job)
        except DecoderCrashed as error:
            if self._closed:
                raise Outage(_SHUTTING_DOWN) from error
            raise


class _Slot:
    """The place of one process after another."""

    def __init__(self, limits: RenderLimits) -> None:
        self._limits = limits
        self._child: _Child | None = None
        self._jobs = 0
        self._busy = False

    @property
    def busy(self) -> bool:
        """Whether its process is rendering."""
        return self._busy

    @property
    def alive(self) -> bool:
        """Whether it has a process that is not known to have ended."""
        return self._child is not None and self._child.alive

    async def warm(self) -> "_Child":
        """The slot's process, started if there is none."""
        if self._child is None or not self._child.alive:
            await self.retire()
            self._child = await _Child.start(self._limits)
            self._jobs = 0
        return self._child

    async def render(self, job: Job) -> Rendering:
        child = await self.warm()
        self._jobs += 1
        self._busy, usable = True, False
        try:
            async with asyncio.timeout(self._limits.wall_seconds):
                reply = await child.ask(encode_job(job))
            rendering = decode_reply(reply, job)
            usable = True
            if len(rendering.thumbnails) < len(job.recipe.presets):
                # The encoder of an optional preset that took too long may still be at it.
                self._jobs = self._limits.jobs_per_child
        except TimeoutError:
            raise DecoderTimeout from None
        except ValueError as error:
            raise DecoderCrashed from error
        except DecoderOutOfMemory:
            # It said so itself, and leaves by itself.
            usable, self._jobs = True, self._limits.jobs_per_child
            raise
        except DecoderFailure:
            raise
        except Exception:
            # A verdict, or an outage of the storage: the process itself is as good as before.
            usable = True
            raise
        finally:
            self._busy = False
            if not usable:
                self._child = None
                await child.kill()
            elif self._jobs >= self._limits.jobs_per_child:
                await self.retire()
        return rendering

    async def retire(self) -> None:
        """Let an idle process leave by itself; kill a busy one."""
        child, self._child = self._child, None
        if child is not None:
            await (child.kill() if self._busy else child.leave())


class _Child:
    """One decoder process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        # The process was started with all three pipes.
        self._stdin = cast("StreamWriter", process.stdin)
        self._stdout = cast("StreamReader", process.stdout)
        self._last_words = b""
        self._listener = asyncio.create_task(self._listen(cast("StreamReader", process.stderr)))

    @classmethod
    async def start(cls, limits: RenderLimits) -> Self:
        """A process that is ready for jobs.

        Raises:
            Outage: there is none to be had.
            StartError: it would not be shut in as it has to be.
        """
        try:
            child = cls(
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "image_service.imaging.child",
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
            _judge(lacking, required=limits.require_sandbox)
        except (TimeoutError, ValueError) as error:
            await child.kill()
            _log.error("decoder does not start", last_words=child.last_words)
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
    def last_words(self) -> str:
        """The end of what it wrote to standard error."""
        return self._last_words.decode(errors="replace")

    async def ask(self, line: bytes) -> bytes:
        """The reply to a job.

        Raises:
            DecoderTimeout: the process used up its processor time.
            DecoderCrashed: the process died of anything else.
        """
        # A process that dies while being written to shows below, as the end of its replies.
        with suppress(ConnectionError):
            self._stdin.write(line)
            await self._stdin.drain()
        if reply := await self._stdout.readline():
            return reply
        await self.kill()
        status = self._process.returncode or 0
        _log.warning("decoder died", pid=self._process.pid, status=status, last_words=self.last_words)
        if status == -signal.SIGSYS:
            _log.error("a file took over its decoder, which the sandbox ended", pid=self._process.pid)
        if status == -signal.SIGXCPU:
            raise DecoderTimeout
        raise DecoderCrashed

    async def leave(self) -> None:
        """Close standard input, which ends an idle process; kill it if that does not."""
        self._stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_SECONDS):
                await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End the process and whatever it started; returns once it is gone. Safe to call twice."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await self._listener
        self._stdin.close()

    async def _listen(self, stderr: StreamReader) -> None:
        """Keep reading, or a chatty codec would block on a full pipe."""
        while piece := await stderr.read(_LAST_WORDS):
            self._last_words = (self._last_words + piece)[-_LAST_WORDS:]


def _judge(lacking: tuple[str, ...], *, required: bool) -> None:
    """Say once in this process's life what the kernel does not offer to shut decoders in; or refuse.

    Raises:
        StartError: it is required.
    """
    if not lacking:
        return
    if required:
        raise StartError(
            f"REQUIRE_SANDBOX is set, but decoders cannot be shut in here: {', '.join(lacking)} is missing. Run a "
            "Linux kernel of version 5.13 or later with Landlock and seccomp turned on, or unset REQUIRE_SANDBOX."
        )
    _warn(lacking)


@cache
def _warn(lacking: tuple[str, ...]) -> None:
    _log.warning("DECODERS ARE NOT SHUT IN: a file that takes one over can do what this process can", lacking=lacking)


def _environment() -> dict[str, str]:
    """What a decoder process may know: where to find code, and how to report coverage; no credentials."""
    kept = {
        name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIX)
    }
    # File names are UTF-8 whatever the locale; one malloc arena, as each reserves address space, and no
    # threads for NumPy, which comes with a decoder and reserves more for each.
    return kept | {"PYTHONUTF8": "1", "MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
