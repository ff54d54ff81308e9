"""What makes a process of the service feel a wrong clock or a slow disk: Python imports this before all else.

The process needs this folder in its ``PYTHONPATH``, and in ``PROCESS_FAULTS_FOLDER`` the folder whose files tell what is wrong
at the moment: ``clock`` and ``fsync`` hold a number of seconds. Without them, nothing is.
"""

# ruff: noqa: INP001  (a folder in PYTHONPATH, no package)

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


def _slow_fsync(fd: Any) -> None:  # noqa: ANN401  (whatever it takes)
    _sleep(_seconds("fsync"))
    _fsync(fd)


time.time = _wrong_time
os.fsync = _slow_fsync
