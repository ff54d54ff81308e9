"""Writes log lines in a thread, so that a reader that is slow or stopped delays no request."""

import os
import select
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from types import TracebackType
from typing import Final, Self

import structlog

_MOST_WAITING: Final = 1_000_000
"""Characters that wait to be written before lines are dropped: some thousand lines."""
_WRITTEN_AT_ONCE: Final = 64 * 1024
"""Characters; a pipe of Linux holds as many bytes."""
_CLOSE_TIMEOUT: Final = 2.0

_log = structlog.get_logger(__name__)


def _ignore(_lines: int) -> None:
    """Do nothing."""


class BackgroundStream:
    """A stream whose ``write`` never blocks: a thread writes to the descriptor, and lines that it cannot are dropped.

    As a context manager it writes at the end what still waits, for two seconds at most. One thread at a time may call
    ``write``, which a ``logging.Handler`` ensures.

    Args:
        descriptor: Where to write. It stays open, and blocking or not, as it is: other processes may share it.
        most_waiting: Characters that may wait to be written.
    """

    def __init__(self, descriptor: int, *, most_waiting: int = _MOST_WAITING) -> None:
        self.on_lost: Callable[[int], None] = _ignore
        """Called with the number of lines that were dropped; must not block, nor log."""
        self._descriptor = descriptor
        self._most_waiting = most_waiting
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        # Characters. Each is changed by one thread, so that no lock is needed.
        self._accepted = self._taken = 0
        self._losing = Lock()
        self._lost = self._reported = 0
        self._running = False
        self._thread = Thread(target=self._run, name="log-writer", daemon=True)

    def __enter__(self) -> Self:
        self._running = True
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lines.put(None)
        self._thread.join(_CLOSE_TIMEOUT)
        self._running = self._thread.is_alive()

    def isatty(self) -> bool:
        """Whether it leads to a terminal."""
        return os.isatty(self._descriptor)

    def write(self, text: str) -> None:
        """Write a line soon, or drop it if too much waits. Outside of the context it is written at once."""
        if not self._running:
            self._write(text)
        elif self._accepted - self._taken + len(text) > self._most_waiting:
            self._lose()
        else:
            self._accepted += len(text)
            self._lines.put(text)

    def flush(self) -> None:
        """Do nothing: lines are written as soon as possible."""

    def _run(self) -> None:
        ended = False
        while not ended or not self._lines.empty():
            lines, last = self._take()
            ended = ended or last
            written = self._write("".join(lines))
            self._taken += sum(map(len, lines))
            if not written:
                self._lose(len(lines))
            elif self._lost > self._reported and self._taken == self._accepted:
                self._report()

    def _take(self) -> tuple[list[str], bool]:
        """Wait for lines; returns some, and whether they are the last."""
        lines: list[str] = []
        size = 0
        text = self._lines.get()
        while text is not None:
            lines.append(text)
            size += len(text)
            if size >= _WRITTEN_AT_ONCE or self._lines.empty():
                return lines, False
            text = self._lines.get()  # this thread alone takes from it
        return lines, True

    def _write(self, text: str) -> bool:
        """Write everything; returns False if that fails, because nothing reads any more or the disk is full."""
        rest = memoryview(text.encode(errors="backslashreplace"))
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # another process that shares it has made it non-blocking
                writable = select.poll()
                writable.register(self._descriptor, select.POLLOUT)
                writable.poll()
            except OSError:
                return False
        return True

    def _lose(self, lines: int = 1) -> None:
        with self._losing:
            self._lost += lines
        self.on_lost(lines)

    def _report(self) -> None:
        lost, self._reported = self._lost - self._reported, self._lost
        _log.warning("log lines lost: nothing read them in time", lines=lost)
