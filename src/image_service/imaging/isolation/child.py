"""The decoder process: renders one image per line of input, inside hard limits, until its parent ends.

It reads its source and writes nothing but its replies, which contain the thumbnails.

Started by ``RenderPool`` as ``python -m image_service.imaging.isolation.child LIMITS``, with the limits as JSON.
"""

import ctypes
import json
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, cast

from PIL import AvifImagePlugin

from image_service.domain.image import ImageFormat
from image_service.domain.recipe import Recipe
from image_service.errors import DecoderOutOfMemory, ServiceError, StorageUnavailable
from image_service.imaging.decoders import heic, jxl
from image_service.imaging.isolation.jobs import decode_job
from image_service.imaging.isolation.malloc import keep_freed_memory, trim_excess
from image_service.imaging.isolation.outputs import CollectedFiles
from image_service.imaging.isolation.protocol import encode_error, encode_ready, encode_rendering
from image_service.imaging.isolation.sandbox import enter_sandbox
from image_service.imaging.limits import RenderLimits
from image_service.imaging.render import encoding
from image_service.imaging.render.pipeline import render

_REPLY_BUFFER: Final = 256 * 1024
"""Bytes that are written at once, which is all of most replies: each write wakes the parent."""
_PREPARED: Final[dict[ImageFormat, Callable[[], None]]] = {
    ImageFormat.HEIC: heic.prepare,
    ImageFormat.JXL: jxl.prepare,
}
"""What loads the decoders that are optional dependencies."""
_SET_PARENT_DEATH_SIGNAL: Final = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def main() -> None:
    """Report readiness, then render jobs from standard input until it ends."""
    limits = RenderLimits(**json.loads(sys.argv[1]))
    jobs, replies = sys.stdin.buffer, _keep_stdout_for_replies()
    _end_with_parent()
    os.nice(limits.niceness)
    keep_freed_memory()
    for image_format, prepare in _PREPARED.items():
        if image_format in limits.formats:
            prepare()
    encoding.prepare(limits.outputs)
    _limit_resources(limits)
    _reply(replies, encode_ready(enter_sandbox(limits.readable, limits.writable)))
    for line in jobs:
        _limit_processor_time(limits.cpu_seconds)
        number, source, recipe = decode_job(line)
        # Encoded in advance: there may be no memory left to do so when it is needed.
        out_of_memory = encode_error(number, DecoderOutOfMemory())
        try:
            reply = _render(number, source, recipe, limits)
        except MemoryError:
            _reply(replies, out_of_memory)
            return
        _reply(replies, *reply)
        del reply
        trim_excess()


def _render(number: str, source: Path, recipe: Recipe, limits: RenderLimits) -> tuple[bytes | memoryview, ...]:
    """Return the parts of the reply: its line, and the thumbnails."""
    files = CollectedFiles()
    try:
        rendering = render(source, recipe, cast("Path", files), limits)
    except ServiceError as error:
        return (encode_error(number, error),)
    except OSError as error:
        # Errors of decoders are verdicts by now: this one is from reading the source.
        return (encode_error(number, StorageUnavailable(str(error))),)
    # The encoder of an optional output that took too long runs on in a thread.
    line = encode_rendering(number, rendering, busy=threading.active_count() > 1)
    return line, *(files.contents[each.output] for each in rendering.thumbnails)


def _keep_stdout_for_replies() -> BinaryIO:
    """Return standard output as a private file, and redirect other writes to it to standard error."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb", _REPLY_BUFFER)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return replies


def _reply(replies: BinaryIO, *parts: bytes | memoryview) -> None:
    replies.writelines(parts)
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
        (resource.RLIMIT_FSIZE, limits.file_bytes if limits.writable else 0),
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
