"""Interleaved rounds: every engine renders the same picture once a round, in warm processes."""

import statistics
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.imaging.engines import FLOOR, ISOLATED, OURS, Engine, Worker
from benchmarks.imaging.quality import references, ssim

WARM_UP = 2


@dataclass(slots=True)
class Result:
    """What one engine needed for one picture, over all rounds."""

    engine: str
    version: str
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_memory: int = 0
    ssim: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    def summary(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def ratio(one: Result, other: Result, *, cpu: bool = False) -> float:
    """The median over the rounds of one's time through the other's: what slows a round down slows both."""
    ones, others = (one.cpu, other.cpu) if cpu else (one.seconds, other.seconds)
    return statistics.median(a / b for a, b in zip(ones, others, strict=True))


def measure(source: Path, engines: Iterable[Engine], rounds: int, processor: int) -> list[Result]:
    """Results of the engines, in their order; one that cannot read the picture has an error.

    Args:
        source: The picture.
        engines: What to compare; each runs in a process of its own.
        rounds: How often each renders it, apart from the warm-up.
        processor: The one that all processes run on.
    """
    wanted = [engine for engine in engines if engine.name != FLOOR or source.suffix == ".jpg"]
    with tempfile.TemporaryDirectory() as scratch:
        workers = [Worker(engine, processor) for engine in wanted]
        try:
            results = {worker.name: Result(worker.name, worker.version) for worker in workers}
            folders = {worker.name: _folder(Path(scratch), worker.name) for worker in workers}
            for number in range(-WARM_UP, rounds):
                # Each round begins with another engine, so that none always follows the same one.
                turn = number % len(workers)
                for worker in workers[turn:] + workers[:turn]:
                    _once(worker, source, folders[worker.name], results[worker.name], counts=number >= 0)
        finally:
            for worker in workers:
                worker.close()
        _judge(source, results, folders)
        return list(results.values())


def _folder(scratch: Path, name: str) -> Path:
    folder = scratch / name.replace(" ", "-")
    folder.mkdir()
    return folder


def _once(worker: Worker, source: Path, out: Path, result: Result, *, counts: bool) -> None:
    if result.error:
        return
    answer = worker.render(source, out)
    result.error = answer.get("error")
    if result.error or not counts:
        return
    result.seconds.append(answer["seconds"])
    if worker.name != ISOLATED:  # whose decoder process still runs, so that its time is unknown
        result.cpu.append(answer["cpu"])
    result.peak_memory = max(result.peak_memory, worker.peak_memory(), answer["children_peak"])


def _judge(source: Path, results: dict[str, Result], folders: dict[str, Path]) -> None:
    """Compare what was made with ideal thumbnails of the sizes that most engines chose."""
    made = {name: folder for name, folder in folders.items() if not results[name].error and name != FLOOR}
    sizes: dict[str, tuple[int, int]] = {}
    for preset in ("1200x1200", "300x300", "100x100"):
        chosen = [_size(folder / preset) for name, folder in made.items() if name != OURS] or [(1, 1)]
        sizes[preset] = statistics.mode(chosen)
    ideal = references(source, sizes)
    for name, folder in made.items():
        results[name].ssim = {preset: ssim(ideal[preset], folder / preset) for preset in sizes}


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size
