"""Processor time and memory of processes, as the kernel counts them.

The time of a group includes that of all child processes; the kernel adds an ended child's time to its parent's record
when the parent has waited for it. Decoder processes are counted apart from their worker.
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
"""API and worker in one process (standalone)."""
DECODE: Final = "decode"
DATABASE: Final = "database"
BROKER: Final = "broker"
CLIENT: Final = "client"

_HAVE_DECODERS: Final = (WORKER, BOTH)
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_OWN, _ENDED_CHILDREN = slice(11, 13), slice(13, 15)
"""Fields of /proc/PID/stat after the name: user and system time of the process, and of its ended children."""
_RESET_PEAK: Final = "5"


class ResourceUsage:
    """Measures processor time and memory of named groups of processes and of their descendants."""

    def __init__(self, groups: Mapping[str, tuple[psutil.Process, ...]]) -> None:
        self._groups = groups

    def seconds(self) -> dict[str, float]:
        """Returns the seconds of processor time that each group has used since its start."""
        spent: dict[str, float] = defaultdict(float)
        for name, process, child_group in self._roots():
            spent[name] += _seconds(process.pid, _OWN)
            spent[child_group] += _seconds(process.pid, _ENDED_CHILDREN)
            for child in process.children(recursive=True):
                spent[child_group] += _seconds(child.pid, _OWN) + _seconds(child.pid, _ENDED_CHILDREN)
        return spent

    def pids(self, group: str) -> list[int]:
        """Returns the ids of the group's processes."""
        return [pid for name, pid in self._processes() if name == group]

    def reset_peaks(self) -> None:
        """Restart the measurement of peak memory."""
        for _, pid in self._processes():
            with suppress(OSError):  # it has just ended
                Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK, encoding="ascii")

    def peaks(self) -> dict[str, int]:
        """Returns the peak resident memory, in bytes, of the largest process of each group."""
        return self._largest("VmHWM")

    def resident(self) -> dict[str, int]:
        """Returns the resident memory, in bytes, of the largest process of each group."""
        return self._largest("VmRSS")

    def _largest(self, field: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, pid in self._processes():
            found[name] = max(found.get(name, 0), _memory(pid, field))
        return found

    def _processes(self) -> Iterator[tuple[str, int]]:
        for name, process, child_group in self._roots():
            yield name, process.pid
            for child in process.children(recursive=True):
                yield child_group, child.pid

    def _roots(self) -> Iterator[tuple[str, psutil.Process, str]]:
        """Yields each group's name, each of its processes, and the group of that process's children."""
        for name, processes in self._groups.items():
            for process in processes:
                yield name, process, DECODE if name in _HAVE_DECODERS else name


def decoder_seconds() -> float:
    """Returns the processor time of this process's own decoder processes."""
    return sum(
        _seconds(child.pid, _OWN)
        for child in psutil.Process().children()
        if "image_service.imaging.isolation.child" in child.cmdline()
    )


def _seconds(pid: int, which: slice) -> float:
    try:
        record = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it has just ended: its time is in its parent's record from now on
    fields = record.rpartition(")")[2].split()
    return sum(map(int, fields[which])) / _TICKS


def _memory(pid: int, field: str) -> int:
    """Returns bytes; 0 for a process that has just ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0
