"""Gives a service process a wrong clock or a slow disk. Python imports this module at startup.

The process needs this folder in ``PYTHONPATH``. ``PROCESS_FAULTS_FOLDER`` names a folder with the files ``clock`` and
``fsync``, which hold a number of seconds: the clock's error and the extra time per fsync. Without them, no fault.
"""

# ruff: noqa: INP001  (a PYTHONPATH folder, not a package)

import os
import time
from pathlib import Path
from typing import Any

_folder = Path(os.environ.get("PROCESS_FAULTS_FOLDER", "/nonexistent"))
_time, _fsync, _sleep = time.time, os.fsync, time.sleep


def _seconds(name: str) -> float:
    try:
        return float((_folder / name).read_text() or 0)
    except OSError:
        return 0.0


def _wrong_time() -> float:
    return _time() + _seconds("clock")


def _slow_fsync(fd: Any) -> None:  # noqa: ANN401  (any argument of os.fsync)
    _sleep(_seconds("fsync"))
    _fsync(fd)


time.time = _wrong_time
os.fsync = _slow_fsync
