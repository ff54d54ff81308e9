"""The decoder process: renders one image per line of input, inside hard limits, until its parent ends.

Started by ``RenderPool`` as ``python -m image_service.imaging.isolation.child LIMITS``, with the limits as JSON.
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
from image_service.errors import (
    DecoderOutOfMemory,
    ObjectMissing,
    ObjectUnreadable,
    ServiceError,
    StorageFull,
    StorageUnavailable,
)
from image_service.imaging.decoders import heic
from image_service.imaging.isolation.malloc import keep_freed_memory, trim_excess
from image_service.imaging.isolation.protocol import Job, decode_job, encode_error, encode_ready, encode_rendering
from image_service.imaging.isolation.sandbox import enter_sandbox
from image_service.imaging.limits import RenderLimits
from image_service.imaging.render.pipeline import render

_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SET_PARENT_DEATH_SIGNAL: Final = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
_OUT_OF_MEMORY: Final = encode_error(DecoderOutOfMemory())
"""Encoded in advance: there may be no memory left to do so when it is needed."""


def main() -> None:
    """Report readiness, then render jobs from standard input until it ends."""
    limits = RenderLimits(**json.loads(sys.argv[1]))
    jobs, replies = sys.stdin.buffer, _keep_stdout_for_replies()
    _end_with_parent()
    os.nice(limits.niceness)
    keep_freed_memory()
    if ImageFormat.HEIC in limits.formats:
        heic.prepare()
    _limit_resources(limits)
    _reply(replies, encode_ready(enter_sandbox(limits.readable, limits.writable)))
    for line in jobs:
        _limit_processor_time(limits.cpu_seconds)
        try:
            reply = _run(decode_job(line), limits)
        except MemoryError:
            _reply(replies, _OUT_OF_MEMORY)
            return
        _reply(replies, reply)
        trim_excess()


def _run(job: Job, limits: RenderLimits) -> bytes:
    try:
        return encode_rendering(render(job.source, job.recipe, job.out, limits))
    except ServiceError as error:
        return encode_error(error)
    except OSError as error:
        # Errors of decoders are verdicts by now: this one is from reading the source or writing a thumbnail.
        return encode_error(_storage_error(error, job))


def _storage_error(error: OSError, job: Job) -> ServiceError:
    if error.errno in _DISK_FULL:
        return StorageFull()
    if isinstance(error, FileNotFoundError) and job.out.is_dir():
        return ObjectMissing()  # it was deleted meanwhile; the storage itself is available
    if job.out.is_dir() and not _is_readable(job.source):
        return ObjectUnreadable()
    return StorageUnavailable(str(error))


def _is_readable(source: Path) -> bool:
    """Whether the whole file can be read: errors do not always name the file that they are about."""
    try:
        source.read_bytes()
    except OSError:
        return False
    return True


def _keep_stdout_for_replies() -> BinaryIO:
    """Return standard output as a private file, and redirect other writes to it to standard error."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return replies


def _reply(replies: BinaryIO, line: bytes) -> None:
    replies.write(line)
    replies.flush()


def _end_with_parent() -> None:
    """Have the kernel send SIGKILL when the parent ends: a codec does not read standard input meanwhile."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        # The first to be killed when the machine itself runs out of memory: a decoder can be replaced.
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _limit_resources(limits: RenderLimits) -> None:
    # One thread a process: the pool already keeps every core busy, and each thread takes address space.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    for kind, amount in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_AS, limits.memory_bytes),
    ):
        resource.setrlimit(kind, (amount, amount))


def _limit_processor_time(seconds: int) -> None:
    """Let SIGXCPU end the process when this job has used so much, however much earlier ones used."""
    soft = math.ceil(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    main()
