"""Prepares the process before the other modules are loaded: its standard streams, and the signals that end it."""

import os
import signal
import sys
from types import FrameType
from typing import Final

_INIT: Final = 1
"""The process id of a container's first process. The kernel discards a signal to it for which it has no handler."""
_SIGNALLED: Final = 128
"""Added to a signal's number, the exit status of a process that it ended, as shells report it."""


def prepare_process() -> None:
    """Open standard streams that are closed, and let SIGTERM and SIGHUP end the process from now on."""
    _open_standard_streams()
    for sign in stop_signals():
        if sign != signal.SIGINT:  # Python has a handler of its own
            end_at_once_on(sign)


def stop_signals() -> tuple[signal.Signals, ...]:
    """Returns the signals that stop the program: not SIGHUP where it is ignored, as under nohup."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *(() if ignored else (signal.SIGHUP,)))


def end_at_once_on(sign: signal.Signals) -> None:
    """Let a signal end the process at once, also as the first process of a container."""
    signal.signal(sign, _exit if os.getpid() == _INIT else signal.SIG_DFL)


def _exit(sign: int, _frame: FrameType | None) -> None:
    os._exit(_SIGNALLED + sign)


def _open_standard_streams() -> None:
    """Open /dev/null in the place of closed streams: otherwise a file or socket opened later is taken for one."""
    for descriptor, mode, name in ((0, "r", "stdin"), (1, "w", "stdout"), (2, "w", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 — it gets the lowest free number
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 — it stays open
