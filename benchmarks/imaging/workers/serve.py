"""The loop of a worker in Python: reads jobs and writes replies as lines of JSON."""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

SIZES = (1200, 300, 100)
"""The boxes of the three thumbnails, the largest first."""
QUALITY = 82


def serve(version: str, render: Callable[[Path, Path], None]) -> None:
    """Print the version, then run jobs from standard input until it ends.

    Args:
        version: The version of the engine, for the report.
        render: Makes thumbnails of a file in a folder, each named after its size: ``1200x1200``.
    """
    print(json.dumps({"version": version}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(_measure(render, Path(job["source"]), Path(job["out"]))), flush=True)


def names() -> dict[int, str]:
    """Return the file name of each thumbnail by its box."""
    return {size: f"{size}x{size}" for size in SIZES}


def fit(width: int, height: int, box: int) -> tuple[int, int]:
    """Return the size of a picture inside a square box, never enlarged."""
    scale = min(1.0, box / max(width, height))
    return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))


def _measure(render: Callable[[Path, Path], None], source: Path, out: Path) -> dict[str, object]:
    processor, began = _processor_seconds(), time.perf_counter()
    try:
        render(source, out)
    except Exception as error:  # noqa: BLE001 — any failure of an engine is its result
        return {"error": f"{type(error).__name__}: {error}"[:200]}
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "cpu": _processor_seconds() - processor,
        "children_peak": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    }


def _processor_seconds() -> float:
    """Return user and system time of this process and of its ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
