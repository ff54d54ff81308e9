"""The decoder process: renders one image a line, inside hard limits, until its parent is gone.

Started by ``RenderPool`` as ``python -m image_service.imaging.child LIMITS``, with the limits as JSON.
"""

import ctypes
import errno
import json
import math
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from PIL import AvifImagePlugin

from image_service.domain.image import ImageFormat
from image_service.errors import DecoderOutOfMemory, ObjectMissing, ServiceError, StorageFull, StorageUnavailable
from image_service.imaging.decoders import heic
from image_service.imaging.heap import give_back_excess, keep_freed_memory
from image_service.imaging.limits import RenderLimits
from image_service.imaging.protocol import Job, decode_job, encode_error, encode_ready, encode_rendering
from image_service.imaging.rendering import render
from image_service.imaging.sandbox import shut_in

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SET_PARENT_DEATH_SIGNAL: Final = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
_OUT_OF_MEMORY: Final = encode_error(DecoderOutOfMemory())
"""Made beforehand: there may be no memory left to make it when it is needed."""


def main() -> None:
    """Announce readiness, then answer jobs from standard input until it ends."""
    limits = RenderLimits(**json.loads(sys.argv[1]))
    jobs, replies = sys.stdin.buffer, _keep_stdout_for_replies()
    _die_with_parent()
    os.nice(limits.niceness)
    keep_freed_memory()
    if ImageFormat.HEIC in limits.formats:
        heic.prepare()
    _confine(limits)
    _reply(replies, encode_ready(shut_in(limits.readable, limits.writable)))
    for line in jobs:
        _allow_processor_time(limits.cpu_seconds)
        try:
            reply = _work(decode_job(line), limits)
        except MemoryError:
            _reply(replies, _OUT_OF_MEMORY)
            return
        _reply(replies, reply)
        give_back_excess()


def _work(job: Job, limits: RenderLimits) -> bytes:
    try:
        return encode_rendering(render(job.source, job.recipe, job.out, limits))
    except ServiceError as error:
        return encode_error(error)
    except OSError as error:
        # The decoders' own were turned into verdicts: this one is about reading the source or writing a thumbnail.
        return encode_error(_about_storage(error, job))


def _about_storage(error: OSError, job: Job) -> ServiceError:
    if error.errno in _NO_ROOM:
        return StorageFull()
    if isinstance(error, FileNotFoundError) and job.out.is_dir():
        return ObjectMissing()  # it was deleted meanwhile; the storage itself is there
    return StorageUnavailable(str(error))


def _keep_stdout_for_replies() -> BinaryIO:
    """Standard output as a private file; whatever else writes there lands in standard error."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return replies


def _reply(replies: BinaryIO, line: bytes) -> None:
    replies.write(line)
    replies.flush()


def _die_with_parent() -> None:
    """Ask the kernel for a SIGKILL when the parent dies: codecs do not look at standard input."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        # First in line when the machine itself runs out of memory: a decoder can be replaced.
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _confine(limits: RenderLimits) -> None:
    # One thread a process: the pool already keeps every core busy, and each thread's stack and arena is address space.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    for kind, amount in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_AS, limits.memory_bytes),
    ):
        resource.setrlimit(kind, (amount, amount))


def _allow_processor_time(seconds: int) -> None:
    """Let SIGXCPU end the process when this job has used so much, whatever earlier ones did."""
    soft = math.ceil(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    main()
