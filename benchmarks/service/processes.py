"""What processes cost: processor time and memory, as the kernel counts them.

A process's time includes that of its children, the dead ones too: those it has waited for are in its own record. Only
decoders are told apart from the worker that they belong to.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

API: Final = "API"
WORKER: Final = "worker"
BOTH: Final = "API + worker"
"""In one process."""
DECODE: Final = "decode"
DATABASE: Final = "database"
BROKER: Final = "broker"
CLIENT: Final = "client"

_HAVE_DECODERS: Final = (WORKER, BOTH)
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_OWN, _REAPED = slice(11, 13), slice(13, 15)
"""User and system time of a process, and of its children that it has waited for, after its name in its record."""
_FORGET_PEAK: Final = "5"


class Watch:
    """Counts what groups of processes cost; each by its name, with the processes that it begins with."""

    def __init__(self, groups: Mapping[str, tuple[psutil.Process, ...]]) -> None:
        self._groups = groups

    def seconds(self) -> dict[str, float]:
        """Processor time of each group since it began."""
        spent: dict[str, float] = defaultdict(float)
        for name, process, below in self._roots():
            spent[name] += _seconds(process.pid, _OWN)
            spent[below] += _seconds(process.pid, _REAPED)
            for child in process.children(recursive=True):
                spent[below] += _seconds(child.pid, _OWN) + _seconds(child.pid, _REAPED)
        return spent

    def pids(self, group: str) -> list[int]:
        """The group's processes."""
        return [pid for name, pid in self._processes() if name == group]

    def forget_peaks(self) -> None:
        """Have peaks count from now on."""
        for _, pid in self._processes():
            with suppress(OSError):  # it has just ended
                Path(f"/proc/{pid}/clear_refs").write_text(_FORGET_PEAK, encoding="ascii")

    def peaks(self) -> dict[str, int]:
        """Bytes that the largest process of each group held in memory at most."""
        return self._largest("VmHWM")

    def held(self) -> dict[str, int]:
        """Bytes that the largest process of each group holds in memory now."""
        return self._largest("VmRSS")

    def _largest(self, field: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, pid in self._processes():
            found[name] = max(found.get(name, 0), _memory(pid, field))
        return found

    def _processes(self) -> Iterator[tuple[str, int]]:
        for name, process, below in self._roots():
            yield name, process.pid
            for child in process.children(recursive=True):
                yield below, child.pid

    def _roots(self) -> Iterator[tuple[str, psutil.Process, str]]:
        """Each group's name, with its processes, and what their children belong to."""
        for name, processes in self._groups.items():
            for process in processes:
                yield name, process, DECODE if name in _HAVE_DECODERS else name


def decoder_seconds() -> float:
    """Processor time of the decoders that this process itself has."""
    return sum(
        _seconds(child.pid, _OWN)
        for child in psutil.Process().children()
        if "image_service.imaging.isolation.child" in child.cmdline()
    )


def _seconds(pid: int, which: slice) -> float:
    try:
        record = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it has just ended, and is in its parent's record from now on
    fields = record.rpartition(")")[2].split()
    return sum(map(int, fields[which])) / _TICKS


def _memory(pid: int, field: str) -> int:
    """Bytes; 0 for a process that has just ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0
