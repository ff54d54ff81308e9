"""A pool of decoder processes: a few warm ones, each replaced when a file crashes it."""

import asyncio
import errno
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from image_service.causes import cause_of
from image_service.domain.image import RenderedThumbnail, Rendering
from image_service.domain.recipe import Recipe
from image_service.errors import (
    DecoderCrashed,
    DecoderFailure,
    DecoderOutOfMemory,
    DecoderTimeout,
    ObjectMissing,
    ObjectUnreadable,
    Outage,
    ServiceError,
    StorageFull,
    StorageUnavailable,
)
from image_service.imaging.isolation.jobs import Job
from image_service.imaging.isolation.outputs import store
from image_service.imaging.isolation.process import DecoderProcess, InvalidReply
from image_service.imaging.isolation.protocol import Reply, SourceUnreadable
from image_service.imaging.limits import DEFAULT_LIMITS, RenderLimits

_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SHUTTING_DOWN: Final = "The renderer is shutting down. Try again in a few seconds."


class RenderPool:
    """The ``Renderer`` that survives any file: decoders run in processes of their own, inside hard limits.

    One process per slot, started when first needed and kept warm. A crash, a timeout or a cancelled call ends that
    process and affects no other.
    """

    def __init__(self, slots: int, limits: RenderLimits = DEFAULT_LIMITS) -> None:
        """Create a pool without processes.

        Args:
            slots: Images that may be rendered at once; more wait.
            limits: The limits for each; the defaults if left out.
        """
        self._slots = tuple(_Slot(limits) for _ in range(slots))
        # Last in, first out: a quiet service keeps few processes, and keeps them warm.
        self._idle: asyncio.LifoQueue[_Slot] = asyncio.LifoQueue()
        for slot in self._slots:
            self._idle.put_nowait(slot)
        self._closed = False

    async def start(self) -> None:
        """Start the first process, so that a broken installation is noticed at startup.

        Raises:
            Outage: no decoder process can be started.
            StartError: the sandbox is unavailable, and the limits require it.
        """
        slot = await self._idle.get()
        try:
            await slot.warm()
        finally:
            self._idle.put_nowait(slot)

    async def close(self) -> None:
        """End every process, busy ones too. Safe to call twice."""
        self._closed = True
        await asyncio.gather(*(slot.stop() for slot in self._slots))

    async def render(self, source: Path, recipe: Recipe, out: Path) -> Rendering:
        """Make every output of the recipe; see ``Renderer.render``.

        Raises:
            Outage: no decoder process can be started, the storage behind a path fails, or the pool is closed.
        """
        job = Job(source=source, recipe=recipe, out=out)
        slot = await self._idle.get()
        try:
            with suppress(SourceUnreadable, InvalidReply):
                return await self._attempt(slot, job)
            # A new process: the sandbox allows the folders that existed when the process started, not a volume mounted
            # since; and a former image may have taken the process over.
            await slot.stop()
            try:
                return await self._attempt(slot, job)
            except SourceUnreadable:
                await slot.stop()
                raise await asyncio.to_thread(_why_unreadable, job) from None
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
    """A slot: one process at a time, replaced when needed."""

    def __init__(self, limits: RenderLimits) -> None:
        self._limits = limits
        self._process: DecoderProcess | None = None
        self._jobs = 0
        self._busy = False

    @property
    def busy(self) -> bool:
        """Whether its process is rendering."""
        return self._busy

    @property
    def alive(self) -> bool:
        """Whether it has a process that is not known to have ended."""
        return self._process is not None and self._process.alive

    async def warm(self) -> DecoderProcess:
        """Return the slot's process, started if there is none."""
        if self._process is None or not self._process.alive:
            await self.stop()
            self._process = await DecoderProcess.start(self._limits)
            self._jobs = 0
        return self._process

    async def render(self, job: Job) -> Rendering:
        process = await self.warm()
        self._jobs += 1
        self._busy, usable = True, False
        try:
            async with asyncio.timeout(self._limits.wall_seconds):
                reply, contents = await process.render(job)
            thumbnails = await _store(process, reply, contents, job.out)
            usable = True
            if reply.busy:
                self._jobs = self._limits.jobs_per_child
        except TimeoutError:
            raise DecoderTimeout from None
        except InvalidReply as error:
            if self._jobs > 1:
                raise  # it need not be this image's fault
            raise DecoderCrashed from error
        except DecoderOutOfMemory:
            # The process reported that itself, and exits by itself.
            usable, self._jobs = True, self._limits.jobs_per_child
            raise
        except DecoderFailure:
            raise
        except Exception:
            # A verdict, or a source that cannot be read: the process itself is still good.
            usable = True
            raise
        finally:
            self._busy = False
            if not usable:
                self._process = None
                await process.kill()
            elif self._jobs >= self._limits.jobs_per_child:
                await self.stop()
        return Rendering(
            width=reply.width,
            height=reply.height,
            thumbnails=thumbnails,
            traits=reply.traits,
            timings=reply.timings,
            left_out=reply.left_out,
        )

    async def stop(self) -> None:
        """Let an idle process exit by itself; kill a busy one."""
        process, self._process = self._process, None
        if process is not None:
            await (process.kill() if self._busy else process.exit())


async def _store(
    process: DecoderProcess, reply: Reply, contents: Sequence[bytes], out: Path
) -> tuple[RenderedThumbnail, ...]:
    try:
        return await asyncio.to_thread(lambda: tuple(store(reply.thumbnails, contents, out)))
    except ValueError as error:
        raise process.invalid(error) from error
    except OSError as error:
        full = error.errno in _DISK_FULL
        raise (StorageFull if full else StorageUnavailable)(cause=cause_of(error)) from error


def _why_unreadable(job: Job) -> ServiceError:
    """Return the error for a source that a process calls unreadable: an outage only if this process sees one too.

    An outage is not counted against the image, and delays all others: a hostile file must not be able to claim one.
    """
    try:
        with job.source.open("rb") as file:
            file.read(1)
    except OSError as error:
        if not job.out.is_dir():
            return StorageUnavailable(cause=cause_of(error))
        # The storage itself is available. A missing file was deleted meanwhile.
        return ObjectMissing() if isinstance(error, FileNotFoundError) else ObjectUnreadable()
    return DecoderCrashed()
